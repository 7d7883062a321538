"""The command ``move``: take the files of one storage to another, while the application goes on."""

from __future__ import annotations

import re
import warnings
from dataclasses import asdict
from datetime import timedelta

import click
from rich.text import Text

from sa_attachments import AttachmentWarning
from sa_attachments.reports import MoveReport

from . import answer
from .application import Application, options
from .duration import given, parse
from .progress import bars


def part(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, int]:
    """What ``--part`` is given: ``"2/4"`` is the second of four."""
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", value)
    number, parts = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= parts:
        raise click.BadParameter(f"{value!r} is no part: expected 2/4 for the second of four", ctx, param)
    return number, parts


@answer.command("Take the files of one storage to another, live.")
@click.option("--from", "source", required=True, metavar="STORAGE", help="Where the files are.")
@click.option("--to", "target", required=True, metavar="STORAGE", help="Where they are to be.")
@click.option(
    "--retain",
    default="7d",
    show_default=True,
    callback=given,
    metavar="DURATION",
    help="Keep the files at the source so long, for who still reads them there.",
)
@click.option(
    "--part",
    default="1/1",
    show_default=True,
    callback=part,
    metavar="N/M",
    help="Move the N-th of M parts of the rows, so that M processes or machines share the work.",
)
@click.option("--dry-run", is_flag=True, help="Only count.")
@options
def move(
    application: Application,
    source: str,
    target: str,
    retain: timedelta | None,
    part: tuple[int, int],
    dry_run: bool,
    as_json: bool,
) -> int:
    """Copy the files of one storage to another, compare their SHA-256, and let the rows name the copies.

    The application may read and write meanwhile, as long as it knows both storages: first let its columns, or the
    alias that they use, name the target for new files, then move the old ones. A move that was killed is begun again.
    A sweep purges the files at the source after --retain. What it prints:

    \b
    rows        named files of the source
    files       are at the target now
    overtaken   copied in vain: their row was changed or deleted meanwhile
    busy        rows that somebody held all the time: move again

    Exit code 1 if files are left at the source: lost or damaged there, refused by a storage, or in rows that are busy.

    \b
    Examples:
      sa-attachments move --from local --to s3 --dry-run
      sa-attachments move --from local --to s3 --part 1/4 --json
    """
    with warnings.catch_warnings(), bars() as progress:
        warnings.simplefilter("default", AttachmentWarning)
        report = application.run(
            lambda engine: application.files.move(
                engine,
                source,
                target,
                retain=retain if retain is not None else parse("7d"),
                part=part,
                dry_run=dry_run,
                progress=lambda rows, total: progress("rows", rows, total),
            )
        )
    if as_json:
        answer.document({"ok": report.ok, "dry_run": dry_run, **asdict(report)})
    else:
        _print(report, source, target, dry_run)
    return 0 if report.ok else 1


def _print(report: MoveReport, source: str, target: str, dry_run: bool) -> None:
    console = answer.console()
    verb = "would move" if dry_run else "moved"
    size = answer.size(report.size)
    console.print(Text(f"{verb} {report.files:,} files ({size}) of {report.rows:,} rows from {source!r} to {target!r}"))
    if report.overtaken:
        console.print(Text(f"{report.overtaken:,} copied in vain: their rows were changed meanwhile"))
    if report.busy:
        console.print(Text(f"{report.busy:,} rows were held by somebody all the time: move again", "red"))
    for failure in report.failed:
        console.print(Text(f"not moved: {failure}", "red"), soft_wrap=True)
