"""The command ``verify``: compare rows, ledger and storages, all three ways."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import asdict

import click
from rich.text import Text
from sqlalchemy import Engine

from sa_attachments import AttachmentWarning, Storages
from sa_attachments.reports import VerifyReport

from . import answer
from .application import Application, options
from .progress import bars

SHOWN = 50
"""Findings that are printed for people; JSON has all."""


@answer.command("Compare rows, ledger and storages.")
@click.option("--repair", is_flag=True, help="Mend what can be mended without losing anything.")
@click.option("--checksums", is_flag=True, help="Read all bytes, and compare their SHA-256 too.")
@click.option("--probe", is_flag=True, help="Only try out all storages, with a small file each; see above.")
@options
def verify(application: Application, repair: bool, checksums: bool, probe: bool, as_json: bool) -> int:
    """Compare what rows name, what the ledger says and what the storages hold. Changes nothing without --repair.

    \b
    missing     a row names a file that its storage does not hold
    damaged     the bytes are not those that were stored (size; SHA-256 with --checksums)
    unowned     a row names a file that the ledger does not call owned   --repair: owned again
    unnamed     the ledger calls a file owned that no row names          --repair: condemned
    ownerless   its table or column is not in the database any more      --repair: condemned
    incomplete  a member of a mirror lost a file that another one has    --repair: copied there
    stranger    a storage holds a file that the ledger does not know     the sweep purges it
    unreadable  a row's descriptor is damaged

    Only columns that are mapped can be compared: models that were not imported are told, by the columns of theirs that
    the ledger knows. So are storages whose place belongs to another database, or that don't answer, and columns whose
    rows may be hidden from this user, or are not all here: nothing of theirs is condemned.

    With --probe, each configured storage is tried out instead: a small file is written, read, listed and deleted, so
    that missing rights, wrong credentials or an unreachable server are found before a user meets them.

    Files that change hands meanwhile may be reported: look twice. Exit code 1 if something was found that was not
    repaired.

    \b
    Examples:
      sa-attachments verify
      sa-attachments verify --checksums --json
      sa-attachments verify --probe
    """
    if probe and (repair or checksums):
        raise click.UsageError("--probe compares nothing: leave out --repair and --checksums, or run both commands")
    if probe:
        return _try_out(application.files, as_json)
    application.require_columns()
    files = application.files

    def work(engine: Engine) -> VerifyReport:
        totals: Counter[str] = Counter()
        for line in files.stats(engine):
            totals[line.storage] += line.files
            totals["ledger"] += line.files
        with warnings.catch_warnings(), bars(totals) as progress:
            warnings.simplefilter("ignore", AttachmentWarning)  # The report says the same.
            return files.verify(engine, repair=repair, checksums=checksums, progress=progress)

    report = application.run(work)
    ok = report.ok and not report.unmapped
    if as_json:
        counts = {"rows": report.rows, "files": report.files, "lines": report.lines}
        findings = [asdict(finding) for finding in report.findings]
        document = {"ok": ok, **counts, "counts": dict(report.counts), "findings": findings}
        answer.document({**document, "problems": report.problems, "unmapped": dict(report.unmapped)})
    else:
        _print(report)
    return 0 if ok else 1


def _try_out(files: Storages, as_json: bool) -> int:
    with redirect_stdout(sys.stderr):
        found = files.probe()
    ok = not any(found.values())
    if as_json:
        answer.document({"ok": ok, "problems": {name: str(error) for name, error in found.items() if error}})
        return 0 if ok else 1
    console = answer.console()
    for name, error in found.items():
        said = f"{name}: {error or 'works'}"
        console.print(Text(said, "red" if error else "green"), soft_wrap=True)
    return 0 if ok else 1


def _print(report: VerifyReport) -> None:
    console = answer.console()
    for finding in report.findings[:SHOWN]:
        kind = f"{finding.kind}, repaired" if finding.repaired else finding.kind
        file = f"{finding.storage}:{finding.key}  " if finding.key else ""
        # One line each, however long: to be searched, and to copy a key from.
        said = Text.assemble((kind, "green" if finding.repaired else "red"), "  ", file, finding.where)
        console.print(said, soft_wrap=True)
    if (more := len(report.findings) - SHOWN) > 0:
        console.print(f"and {more:,} more; --json lists all")
    for name, problem in report.problems.items():
        console.print(Text(f"{name}: {problem}", "red"), soft_wrap=True)
    for column, number in sorted(report.unmapped.items()):
        why = f"not compared, as it is not mapped here; the ledger has {number:,} files of it"
        console.print(Text(f"{column}: {why}: name the module with its model by --import", "red"), soft_wrap=True)
    looked = f"{report.rows:,} rows, {report.files:,} files, {report.lines:,} lines of the ledger"
    found = ", ".join(f"{number:,} {kind}" for kind, number in sorted(report.counts.items()))
    ok = report.ok and not report.unmapped
    found = found or ("all is well" if ok else "no findings")
    console.print(Text(f"{looked}: {found}", "green" if ok else "red"), soft_wrap=True)
