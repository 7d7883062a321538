"""The command ``verify``: compare rows, ledger and storages, all three ways."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import click
from rich.text import Text
from sqlalchemy import Engine

from sa_attachments.verify import VerifyReport

from . import answer
from .application import Application, options
from .progress import bars

SHOWN = 50
"""Findings that are printed for people; JSON has all."""


@answer.command("Compare rows, ledger and storages.")
@click.option("--repair", is_flag=True, help="Mend what can be mended without losing anything.")
@click.option("--checksums", is_flag=True, help="Read all bytes, and compare their SHA-256 too.")
@options
def verify(application: Application, repair: bool, checksums: bool, as_json: bool) -> int:
    """Compare what rows name, what the ledger says and what the storages hold. Changes nothing without --repair.

    \b
    missing     a row names a file that its storage does not hold
    damaged     the bytes are not those that were stored (size; SHA-256 with --checksums)
    unowned     a row names a file that the ledger does not call owned   --repair: owned again
    unnamed     the ledger calls a file owned that no row names          --repair: condemned
    stranger    a storage holds a file that the ledger does not know     the sweep purges it
    unreadable  a row's descriptor is damaged

    Files that change hands meanwhile may be reported: look twice. Exit code 1 if something was found that was not
    repaired.

    \b
    Examples:
      sa-attachments verify
      sa-attachments verify --checksums --json
    """
    application.require_columns()
    files = application.files

    def work(engine: Engine) -> VerifyReport:
        totals: Counter[str] = Counter()
        for line in files.stats(engine):
            totals[line.storage] += line.files
            totals["ledger"] += line.files
        with bars(totals) as progress:
            return files.verify(engine, repair=repair, checksums=checksums, progress=progress)

    report = application.run(work)
    if as_json:
        counts = {"rows": report.rows, "files": report.files, "lines": report.lines}
        findings = [asdict(finding) for finding in report.findings]
        document = {"ok": report.ok, **counts, "counts": dict(report.counts), "findings": findings}
        answer.document({**document, "problems": report.problems})
    else:
        _print(report)
    return 0 if report.ok else 1


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
        console.print(Text(f"{name}: {problem}", "red"))
    looked = f"{report.rows:,} rows, {report.files:,} files, {report.lines:,} lines of the ledger"
    found = ", ".join(f"{number:,} {kind}" for kind, number in sorted(report.counts.items()))
    found = found or ("all is well" if report.ok else "no findings")
    console.print(Text(f"{looked}: {found}", "green" if report.ok else "red"), soft_wrap=True)
