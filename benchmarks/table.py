"""The table of all contests, as Markdown for people and as JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy
from contest import Contest


def markdown(contests: Iterable[Contest], about: dict[str, str]) -> str:
    """A heading, what it was measured on, and a line for each contest."""
    lines = ["# Speed", ""]
    lines += [f"- {name}: {value}" for name, value in about.items()]
    lines += ["", "| work | amount | ratio (least to most) | target | met | ours | floor | beside |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for contest in contests:
        ratio = contest.ratio("ours", "floor")
        digits = 4 if contest.unit == "instructions" else 2
        target = "" if contest.target is None else f"≤ {contest.target}"
        lines.append(
            f"| {contest.work} | {contest.amount} | **{ratio.median:.{digits}f}** ({ratio.least:.{digits}f} to "
            f"{ratio.most:.{digits}f}) | {target} | {_met(contest)} | {_amount(contest, 'ours')} | "
            f"{_amount(contest, 'floor')} | {_beside(contest)} |"
        )
    return "\n".join(lines) + "\n"


def plain(contests: Iterable[Contest], about: dict[str, str]) -> str:
    """The same as JSON."""
    rows: list[dict[str, Any]] = []
    for contest in contests:
        sides = {
            name: {
                contest.unit: contest.seconds(name),
                "each": [run.seconds for run in contest.runs[name]],
                **contest.beside(name),
            }
            for name in contest.runs
        }
        ratio = contest.ratio("ours", "floor")._asdict()
        row = {"work": contest.work, "amount": contest.amount, "target": contest.target, "met": contest.met}
        rows.append({**row, "ratio": ratio, "sides": sides})
    return json.dumps({"about": about, "contests": rows}, indent=1, ensure_ascii=False) + "\n"


def about(rounds: int, settings: str) -> dict[str, str]:
    """What the figures depend on."""
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%d"),
        "with": f"Python {platform.python_version()}, SQLAlchemy {sqlalchemy.__version__}, {settings}",
        "on": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "how": f"median of {rounds} rounds in which the sides take turns; a ratio is that of one round",
    }


def write(contests: Sequence[Contest], about: dict[str, str], folder: Path) -> None:
    """``results.md`` and ``results.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.md").write_text(markdown(contests, about), encoding="utf-8")
    (folder / "results.json").write_text(plain(contests, about), encoding="utf-8")


def _met(contest: Contest) -> str:
    return {None: "", True: "yes", False: "**no**"}[contest.met]


def _amount(contest: Contest, side: str) -> str:
    cost = contest.seconds(side)
    return f"{cost:,.0f}" if contest.unit == "instructions" else f"{cost * 1000:,.0f} ms"


def _beside(contest: Contest) -> str:
    told = [f"{name} {value:,.1f}" for name, value in contest.beside("ours").items()]
    others = [name for name in contest.runs if name not in ("ours", "floor")]
    told += [f"to the {name}: {contest.ratio('ours', name).median:.2f}" for name in others]
    return "; ".join(told)
