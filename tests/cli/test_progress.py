from __future__ import annotations

import io
import sys

import pytest

from sa_attachments.cli.progress import bars


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_shows_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with bars({"reading": 3}) as progress:
        progress("reading", 2)
        progress("[red]listing", 1500)
    shown = terminal.getvalue()
    assert "reading" in shown
    assert "[red]listing" in shown  # a storage's name is no markup
    assert "1,500" in shown


@pytest.mark.parametrize("force", [{}, {"FORCE_COLOR": "1"}])
def test_is_silent_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], force: dict[str, str]
) -> None:
    for name, value in force.items():
        monkeypatch.setenv(name, value)
    with bars() as progress:
        progress("reading", 2)
    assert capsys.readouterr() == ("", "")
