"""The command ``sweep``: condemn files that nobody will ever own, and purge what is due."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from datetime import timedelta

import click
from rich.table import Table
from rich.text import Text

from sa_attachments import AttachmentWarning
from sa_attachments.reports import SweepReport

from . import answer
from .application import Application, options
from .duration import given
from .progress import bars

_NUMBERS = ("listed", "strangers", "skipped", "purged", "failed", "unfinished")


@answer.command("Purge what crashes left and what is due; to be run regularly.")
@click.option("--full", is_flag=True, help="Look at all files, not only at those since the last sweep.")
@click.option(
    "--grace",
    callback=given,
    metavar="DURATION",
    help="Leave files alone that are younger, as 90s, 24h or 1d12h; should be longer than any transaction. "
    "Default: what the Storages say.",
)
@click.option(
    "--stranger-retain",
    callback=given,
    metavar="DURATION",
    help="Purge files without an owner so long after they were found, as 7d. Default: what the Storages say.",
)
@options
def sweep(
    application: Application, full: bool, grace: timedelta | None, stranger_retain: timedelta | None, as_json: bool
) -> int:
    """Find files that no row names or ever will, as crashes leave them, and purge what is due.

    Run it regularly, once an hour or once a day; it may run beside the application and beside itself. A file without
    an owner is condemned first, and purged by a sweep after --stranger-retain. What it prints, in files:

    \b
    listed      looked at
    strangers   without an owner: condemned now
    skipped     left for the next sweep: too young, or a transaction is still open
    purged      deleted
    failed      the storage could not delete them; the next sweep tries again
    unfinished  left-overs of interrupted uploads, removed

    Exit code 1 if something failed, or if a storage's place belongs to another database, where nothing is deleted.

    \b
    Examples:
      sa-attachments sweep
      sa-attachments sweep --storages myapp.files:files --database postgresql+psycopg:///app --json
    """
    with warnings.catch_warnings(), bars() as progress:
        warnings.simplefilter("ignore", AttachmentWarning)  # The report says the same.
        report = application.run(
            lambda engine: application.files.sweep(
                engine, full=full, grace=grace, stranger_retain=stranger_retain, progress=progress
            )
        )
    if as_json:
        answer.document({"ok": report.ok, "storages": [asdict(storage) for storage in report.storages]})
    else:
        _print(report)
    return 0 if report.ok else 1


def _print(report: SweepReport) -> None:
    console = answer.console()
    table = Table("storage", box=None)
    for name in _NUMBERS:
        table.add_column(name, justify="right")
    for storage in report.storages:
        numbers = [f"{getattr(storage, name):,}" for name in _NUMBERS]
        table.add_row(Text(storage.name), *numbers, style="red" if storage.failed or storage.problem else None)
    console.print(table)
    for storage in report.storages:
        if storage.problem:
            console.print(Text(f"{storage.name}: nothing was deleted: {storage.problem}", "red"), soft_wrap=True)
        if storage.waiting:
            said = f"{storage.name}: somebody's transaction was in the way: the next sweep does the rest"
            console.print(Text(said), soft_wrap=True)
        if storage.failed:
            said = f"{storage.name}: {storage.failed:,} could not be deleted; sweep again later"
            console.print(Text(said, "red"), soft_wrap=True)
