"""Answer: what a command says at its end on standard output, for people or as one JSON document.

>>> document({"ok": True, "name": "\\udcff"})
{
  "ok": true,
  "name": "\\udcff"
}
>>> size(0), size(1), size(1536), size(10**15)
('0 bytes', '1 byte', '1.5 KiB', '909.5 TiB')

Traps
-----
What comes from outside, names above all, is shown as ``Text``: rich would take ``[red]`` in a plain string for markup.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError

from sa_attachments import AttachmentError

from .failure import EXIT_CODES, Failure, explained, one_line


class Command(click.Command):
    """A command with ``--json``, that returns its exit code, and whose errors are failures, or of usage."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"epilog": EXIT_CODES, **options})
        self.params.append(
            click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON document to standard output.")
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _documented("--json" in args):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with _documented(ctx.params["as_json"]):
            ctx.exit(self._invoke(ctx))

    def _invoke(self, ctx: click.Context) -> int:
        try:
            return int(super().invoke(ctx))
        except (AttachmentError, SQLAlchemyError) as error:
            raise explained(error) from error


class Commands(click.Group):
    """Commands by name; what is wrong before one is found is answered as it would answer."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _documented("--json" in args):
            return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        with _documented("--json" in args):
            return super().resolve_command(ctx, args)


@contextmanager
def _documented(as_json: bool) -> Iterator[None]:
    """Tell of a failure in a document too, if there is to be one."""
    try:
        yield
    except (Failure, click.UsageError) as error:
        if as_json:
            document({"ok": False, "error": one_line(error.format_message())})
        raise
    except (click.Abort, KeyboardInterrupt):
        if as_json:
            document({"ok": False, "error": "stopped"})
        raise


def command(short_help: str) -> Callable[[Callable[..., Any]], Command]:
    """Make a function a command; its docstring is the help, ``short_help`` the line in the list of commands."""
    return click.command(cls=Command, short_help=short_help)


def document(answer: Mapping[str, Any]) -> None:
    """Print it as JSON; all in ASCII, so that every terminal, pipe and parser can take it."""
    click.echo(json.dumps(answer, indent=2))


def console() -> Console:
    """For people: in colour on a terminal (unless NO_COLOR is set), as wide as that; 80 columns elsewhere."""
    return Console(highlight=False, markup=False, emoji=False)


def size(number: float) -> str:
    """A number of bytes as people read it."""
    if number < 1024:
        return f"{number} byte{'' if number == 1 else 's'}"
    for unit in ("KiB", "MiB", "GiB"):
        number /= 1024
        if number < 1023.95:
            return f"{number:.1f} {unit}"
    return f"{number / 1024:,.1f} TiB"
