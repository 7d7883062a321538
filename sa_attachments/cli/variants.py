"""The command ``variants``: bring the variants of all rows in line with what their columns declare."""

from __future__ import annotations

import warnings
from dataclasses import asdict

import click
from rich.text import Text

from sa_attachments import AttachmentWarning
from sa_attachments.errors import UnknownVariant, listing
from sa_attachments.reports import RebuildReport

from . import answer
from .application import Application, options
from .move import part
from .progress import bars


@answer.command("Count the variants of files, or bring them in line.")
@click.option("--rebuild", is_flag=True, help="Make what is missing, stale or failed, and drop what is undeclared.")
@click.option("--variant", "names", metavar="NAME", multiple=True, help="Only this one. May be repeated.")
@click.option("--lazy", is_flag=True, help="Lazy variants too that nobody has asked for yet.")
@click.option(
    "--part",
    default="1/1",
    show_default=True,
    callback=part,
    metavar="N/M",
    help="Do the N-th of M parts of the rows, so that M processes or machines share the work.",
)
@options
def variants(
    application: Application,
    rebuild: bool,
    names: tuple[str, ...],
    lazy: bool,
    part: tuple[int, int],
    as_json: bool,
) -> int:
    """Count the variants of all rows, and with --rebuild bring them in line with what the columns declare.

    The application may read and write meanwhile. A rebuild that was killed is begun again: what is in line is passed
    over. What it prints:

    \b
    current     are there, made by the present recipe
    missing     were never made, or failed
    stale       were made by a former recipe; they are served until they are replaced
    undeclared  their column declares them no more

    Exit code 1 if not all are in line at the end.

    \b
    Examples:
      sa-attachments variants
      sa-attachments variants --rebuild --variant thumb
      sa-attachments variants --rebuild --part 1/4 --json
    """
    _require(application, names)
    with warnings.catch_warnings(), bars() as progress:
        warnings.simplefilter("default", AttachmentWarning)
        report = application.run(
            lambda engine: application.files.rebuild(
                engine,
                variants=names,
                lazy=lazy,
                part=part,
                dry_run=not rebuild,
                progress=lambda rows, total: progress("rows", rows, total),
            )
        )
    if as_json:
        answer.document({"ok": report.ok, "rebuild": rebuild, **asdict(report)})
    else:
        _print(report, rebuild)
    return 0 if report.ok else 1


def _require(application: Application, names: tuple[str, ...]) -> None:
    """Refuse a slip of the pen. What no column declares any more may be named, if it looks like nobody's slip."""
    declared = {name for column in application.files.columns for name in column.variants}
    if declared and names and not declared & set(names):
        raise UnknownVariant(f"no column declares a variant {listing(names)}; declared are {listing(declared)}")


def _print(report: RebuildReport, rebuild: bool) -> None:
    console = answer.console()
    counts = ", ".join(f"{getattr(report, each):,} {each}" for each in ("current", "missing", "stale", "undeclared"))
    console.print(Text(f"variants of {report.attachments:,} files: {counts}"))
    if rebuild:
        console.print(Text(f"made {report.made:,}, dropped {report.dropped:,}"))
    if report.overtaken:
        console.print(Text(f"{report.overtaken:,} made in vain: their rows were changed meanwhile"))
    if report.busy:
        console.print(Text(f"{report.busy:,} left, whose rows somebody held all the time: rebuild again", "red"))
    for failure in report.failed:
        console.print(Text(f"not made: {failure}", "red"), soft_wrap=True)
