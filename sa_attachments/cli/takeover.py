"""The command ``takeover``: make the place of a storage belong to this database."""

from __future__ import annotations

import sys

import click

from . import answer
from .application import Application, options
from .failure import Failure


@answer.command("Let a storage's place belong to this database.")
@click.argument("storage", default="default")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options
def takeover(application: Application, storage: str, yes: bool, as_json: bool) -> int:
    """Make the place of STORAGE (a name, "default" if none is given) belong to this database.

    A place belongs to the database that stored its first file there, and only that one deletes in it: not a restored
    copy, not a staging system that looks at production's files. Take it over when the database has moved for good,
    as after a restore on another server. From then on its former database deletes nothing there.

    Never run it on a copy whose original is still in use: to this database, what only the original knows is a
    stranger, which a sweep purges.

    \b
    Examples:
      sa-attachments takeover avatars
      sa-attachments takeover avatars --yes --json
    """
    name = application.files.real(storage)
    if not yes:
        _ask(name, application)
    application.run(lambda engine: application.files.takeover(engine, name))
    if as_json:
        answer.document({"ok": True, "storage": name})
    else:
        click.echo(f"The place of {name!r} belongs to {application.database} now; its former database deletes nothing.")
    return 0


def _is_answered() -> bool:
    return sys.stdin.isatty()


def _ask(name: str, application: Application) -> None:
    if not _is_answered():
        raise Failure("nobody is there to ask: say --yes")
    question = f"Only {application.database} will delete files of {name!r} from now on. Is no other database using it?"
    click.confirm(question, abort=True, err=True)
