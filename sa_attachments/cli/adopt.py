"""The command ``adopt``: what migrations do with ``op.adopt_..._column``, without a migration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import click
from rich.text import Text
from sqlalchemy import Connection, Engine

from sa_attachments.adoption import AdoptionReport, finish, hold, restore
from sa_attachments.adoption import adopt as adopt_column
from sa_attachments.adoption.plan import POLICIES, AdvancedAlchemy, Blobs, Depot, Origin, Paths, Plan, SQLAlchemyFile
from sa_attachments.errors import AdoptionFailed

from . import answer
from .application import Application, options
from .progress import bars

_LIBRARIES: dict[str, type[Depot | SQLAlchemyFile | AdvancedAlchemy]] = {
    "depot": Depot,
    "sqlalchemy-file": SQLAlchemyFile,
    "advanced-alchemy": AdvancedAlchemy,
}
_KINDS = ["blob", "path", *_LIBRARIES, "finish", "hold"]


def _mapping(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    if wrong := [value for value, (theirs, _, ours) in zip(values, pairs, strict=True) if not theirs or not ours]:
        raise click.BadParameter(f"{wrong[0]!r} maps nothing: expected THEIRS=OURS", ctx, param)
    return {theirs: ours for theirs, _, ours in pairs}


@answer.command("Turn what a column holds into attachments, or back.")
@click.argument("kind", type=click.Choice(_KINDS), metavar="KIND")
@click.argument("table")
@click.argument("columns", nargs=-1, metavar="SOURCE INTO")
@click.option("--reverse", is_flag=True, help="Put back what the column SOURCE held.")
@click.option("--storage", help="Where copies go, or where files are that stay in place. Default: the default storage.")
@click.option("--filename", metavar="COLUMN", help="The column that says what a blob's or path's file is called.")
@click.option("--content-type", metavar="COLUMN", help="The column that says what it is claimed to be.")
@click.option("--root", metavar="FOLDER|URL", help="What paths are below and may not leave.")
@click.option(
    "--mode",
    type=click.Choice(["copy", "link", "in_place"]),
    help="What becomes of files that lie somewhere. Default: copy for paths, in_place for libraries.",
)
@click.option("--prefix", default="", help="What values begin with and paths don't, as https://cdn.example/media/.")
@click.option("--map", "mapping", multiple=True, callback=_mapping, metavar="THEIRS=OURS", help="A library's storage.")
@click.option("--fallback", type=click.Choice(["copy"]), help="Copy what can't be adopted in place.")
@click.option(
    "--policy",
    type=click.Choice(POLICIES),
    default="fail",
    show_default=True,
    help="What becomes of rows that can't be adopted; null empties SOURCE.",
)
@click.option("--report", metavar="FILE", help="Add a line of JSON for each row that could not be adopted.")
@click.option("--schema", help="The table's schema.")
@options
def adopt(
    application: Application,
    kind: str,
    table: str,
    columns: tuple[str, ...],
    reverse: bool,
    storage: str | None,
    filename: str | None,
    content_type: str | None,
    root: str | None,
    mode: str | None,
    prefix: str,
    mapping: dict[str, str],
    fallback: str | None,
    policy: str,
    report: str | None,
    schema: str | None,
    as_json: bool,
) -> int:
    """Turn what the column SOURCE of TABLE holds into attachments in its column INTO, while the application goes on.

    KIND is blob (bytes), path (paths or URLs of files), depot, sqlalchemy-file or advanced-alchemy (what these
    libraries wrote). The column INTO has to be there, and empty but for attachments. It works in batches, each
    committed by itself; what was killed is run again and goes on where it was.

    Files that stay where they are, and those of paths, are held: never purged, until the command is run with KIND
    finish and the arguments TABLE INTO; hold is its reverse.

    Exit code 1 if rows could not be adopted.

    \b
    Examples:
      sa-attachments adopt blob docs data file --filename name
      sa-attachments adopt path docs path file --root /srv/media --mode link --policy skip --report left.jsonl
      sa-attachments adopt depot docs upload file --map old=default
      sa-attachments adopt depot docs upload file --map old=default --reverse
      sa-attachments adopt finish docs file
    """
    expected = 1 if kind in ("finish", "hold") else 2
    if len(columns) != expected:
        raise click.UsageError(f"{kind} takes {'TABLE INTO' if expected == 1 else 'TABLE SOURCE INTO'}")
    ledger = _ledger_schema(application, schema)
    if expected == 1:
        ending = finish if kind == "finish" else hold

        def work(connection: Connection, advance: Callable[[int, int], None]) -> AdoptionReport:
            return ending(connection, application.files, table, columns[0], schema=schema, ledger_schema=ledger)
    else:
        origin: Origin
        if kind == "blob":
            origin = Blobs(filename, content_type)
        elif kind == "path":
            origin = Paths(root, mode or "copy", prefix, fallback, filename, content_type)
        else:
            origin = _LIBRARIES[kind](mapping, mode or "in_place", fallback)
        plan = Plan(table, columns[0], columns[1], origin, schema, storage, policy, report, ledger)

        def work(connection: Connection, advance: Callable[[int, int], None]) -> AdoptionReport:
            return (restore if reverse else adopt_column)(connection, application.files, plan, advance)

    return _told(application, work, table, as_json)


def _told(application: Application, work: Callable[..., AdoptionReport], table: str, as_json: bool) -> int:
    failure: AdoptionFailed | None = None

    def run(engine: Engine) -> AdoptionReport:
        with engine.connect() as connection:
            return work(connection, lambda rows, total: progress(table, rows, total))

    with bars() as progress:
        try:
            done = application.run(run)
        except AdoptionFailed as error:
            failure, done = error, error.report
    if as_json:
        said: dict[str, Any] = asdict(done) | {"counts": dict(done.counts)}
        said["path"] = None if done.path is None else str(done.path)
        said["unadopted"] = [each | {"row": [str(part) for part in each["row"]]} for each in said["unadopted"]]
        answer.document({"ok": done.ok and failure is None, **said, **({"error": str(failure)} if failure else {})})
        return 0 if done.ok and failure is None else 1
    console = answer.console()
    console.print(Text(str(done)), soft_wrap=True)
    for unadopted in done.unadopted:
        console.print(Text(f"left alone: {unadopted}", "red"), soft_wrap=True)
    if failure is not None:
        console.print(Text(str(failure), "red"), soft_wrap=True)
    return 0 if done.ok and failure is None else 1


def _ledger_schema(application: Application, schema: str | None) -> str | None:
    """The schema of the application's ledger; of several, the one that is where the table is."""
    schemas = [ledger.lines.schema for ledger in application.files.ledgers()]
    return schema if schema in schemas else next(iter(schemas), None)
