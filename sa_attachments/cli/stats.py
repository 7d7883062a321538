"""The command ``stats``: how many files, and how many bytes, by storage and by what the ledger says of them."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from . import answer
from .application import Application, options


@answer.command("Count files and bytes, by storage and state.")
@options
def stats(application: Application, as_json: bool) -> int:
    """Count files and bytes by storage and state, as the ledger knows them.

    \b
    owned      a row names it, or an open transaction will
    condemned  dropped, or without an owner: purged when it is due (see retain)
    purging    being deleted; a sweep finishes what was interrupted
    gone       deleted without ever having had an owner; remembered for a while, so that a late owner fails

    The column held counts those of them that an adoption holds: they are not purged before "adopt finish".

    \b
    Examples:
      sa-attachments stats
      sa-attachments stats --json
    """
    found = application.run(application.files.stats)
    if as_json:
        answer.document({"ok": True, "stats": [line._asdict() for line in found]})
        return 0
    table = Table("storage", "state", box=None)
    table.add_column("files", justify="right")
    table.add_column("size", justify="right")
    table.add_column("held", justify="right")
    for line in found:
        table.add_row(Text(line.storage), line.state, f"{line.files:,}", answer.size(line.size), f"{line.held:,}")
    answer.console().print(table if found else "the ledger has no files")
    return 0
