from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner
from sqlalchemy import exc

from sa_attachments import BadConfiguration, LedgerMissing, StorageFailed
from sa_attachments.cli import answer
from sa_attachments.cli.failure import Failure, Trouble

ERRORS = [
    (Failure("two\nlines"), 2, "two lines"),
    (Trouble("bad"), 1, "bad"),
    (LedgerMissing("no table"), 2, "no table"),
    (BadConfiguration("no URL"), 2, "no URL"),
    (StorageFailed("no answer", storage="default", operation="list"), 1, "no answer"),
    (exc.DBAPIError("SELECT secret", {}, Exception("locked\n")), 2, "the database: locked"),
    (exc.TimeoutError("pool is empty"), 2, "TimeoutError: pool is empty"),
]


@pytest.mark.parametrize(("error", "exit_code", "said"), ERRORS)
@pytest.mark.parametrize("as_json", [False, True])
def test_errors_are_one_line_and_with_json_one_document(
    error: Exception, exit_code: int, said: str, as_json: bool
) -> None:
    @answer.command("Fail.")
    def command(as_json: bool) -> int:
        raise error

    result = CliRunner().invoke(command, ["--json"] if as_json else [])
    assert result.exit_code == exit_code
    assert result.stderr == f"Error: {said}\n"
    assert (json.loads(result.stdout) if as_json else result.stdout) == (
        {"ok": False, "error": said} if as_json else ""
    )


@pytest.mark.parametrize("as_json", [False, True])
def test_what_a_command_says_of_its_usage_is_in_the_document_too(as_json: bool) -> None:
    @answer.command("Refuse.")
    def command(as_json: bool) -> int:
        raise click.UsageError("this or that,\nnot both")

    result = CliRunner().invoke(command, ["--json"] if as_json else [])
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ")
    assert result.stderr.endswith("Error: this or that,\nnot both\n")
    assert (json.loads(result.stdout) if as_json else result.stdout) == (
        {"ok": False, "error": "this or that, not both"} if as_json else ""
    )


@pytest.mark.parametrize("error", [click.Abort, KeyboardInterrupt])
@pytest.mark.parametrize("as_json", [False, True])
def test_what_was_stopped_says_so_in_the_document_too(error: type[BaseException], as_json: bool) -> None:
    @answer.command("Ask.")
    def command(as_json: bool) -> int:
        raise error

    result = CliRunner().invoke(command, ["--json"] if as_json else [])
    assert result.exit_code == 1
    assert (json.loads(result.stdout) if as_json else result.stdout) == (
        {"ok": False, "error": "stopped"} if as_json else ""
    )


@pytest.mark.parametrize("exit_code", [0, 1])
def test_returns_its_exit_code(exit_code: int) -> None:
    @answer.command("Return.")
    def command(as_json: bool) -> int:
        click.echo("done")
        return exit_code

    result = CliRunner().invoke(command, [])
    assert (result.exit_code, result.stdout) == (exit_code, "done\n")


def test_a_bug_is_no_failure() -> None:
    @answer.command("Break.")
    def command(as_json: bool) -> int:
        raise KeyError("ours")

    assert isinstance(CliRunner().invoke(command, []).exception, KeyError)
