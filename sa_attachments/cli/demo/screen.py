"""Screen: shows the demo to people: what each scene runs, what holds, and what lies on disk and in the ledger."""

from __future__ import annotations

import ast
import time
from collections.abc import Iterable, Set

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from sa_attachments.cli import answer

from .inventory import Inventory, Line
from .original import Original
from .performance import Performance
from .scenes import DAY, SCENES

SHOWN = 12
"""Files that are shown of many."""

MOST_CELLS = 40
"""Of a name; those of hostile files are long."""

_COLOURS = {"owned": "green", "condemned": "yellow", "purging": "yellow", "gone": "dim"}


class Screen:
    """See the module."""

    def __init__(self, console: Console, source: str) -> None:
        """``source`` is the text of the application."""
        self._console = console
        self._code = {
            node.name: ast.get_source_segment(source, node) or ""
            for node in ast.parse(source).body
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
        }

    def begin(self, originals: list[Original]) -> None:
        """Say what plays."""
        count = f"{len(originals):,} file{'' if len(originals) == 1 else 's'}"
        self._console.print(Text("Files that obey the transaction of the row that names them", "bold"))
        self._console.print(Text(f"On {count}, in an SQLite database and a folder, with this class:"))
        self._console.print(self._shown("Document"))

    def show(self, number: int, performance: Performance) -> None:
        """One scene."""
        scene, inventory = performance.scene, performance.inventory
        title = f"{number}/{len(SCENES)} {scene.title}"
        self._console.print()
        self._console.print(Rule(Text(title, "bold"), align="left", style="blue" if performance.ok else "red"))
        self._console.print(Text(scene.story))
        self._console.print(self._shown(scene.function))
        if inventory is not None:
            changed = inventory.changed(performance.before)
            self._console.print(Group(tree(inventory, changed), ledger(inventory, changed)))
        for check in performance.checks:
            self._console.print(self._mark(check.text, check.holds))
        if performance.error is not None:
            self._console.print(self._mark(performance.error, holds=False))

    def end(self, performances: list[Performance], seconds: float, kept: str | None) -> None:
        """What came of it."""
        failed = [str(number) for number, each in enumerate(performances, 1) if not each.ok]
        self._console.print()
        self._console.print(Rule(style="red" if failed else "green"))
        if failed:
            said = f"{'Scene' if len(failed) == 1 else 'Scenes'} {', '.join(failed)} of {len(SCENES)} did not hold."
            self._console.print(Text(said, "bold red"))
        else:
            self._console.print(Text(f"All {len(SCENES)} scenes hold, in {seconds:.1f} s.", "bold green"))
        if kept is None:
            self._console.print(Text("--keep DIR leaves all this to look at."))
        else:
            self._console.print(Text.assemble("Left in ", (kept, "bold"), ": documents.py, documents.db and files."))
            self._console.print(Text("In there, sa-attachments stats, verify and sweep work."))

    def _shown(self, name: str) -> RenderableType:
        syntax = Syntax(self._code[name], "python", theme="ansi_dark", background_color="default", word_wrap=True)
        return Padding(syntax, (1, 0, 1, 2), expand=False)

    def _mark(self, text: str, holds: bool) -> RenderableType:
        signs = ("✔", "✘") if self._console.encoding.startswith("utf") else ("ok", "NO")
        row = Table.grid(padding=(0, 1))
        row.add_row(Text(signs[not holds], "bold green" if holds else "bold red"), Text(text, "" if holds else "red"))
        return row


def tree(inventory: Inventory, changed: Set[str]) -> RenderableType:
    """What lies on disk."""
    root = Tree(Text("files/", "bold"), guide_style="dim")
    folders: dict[str, Tree] = {}
    shown, more = _some(inventory.disk, changed)
    for key in shown:
        folder, _, _ = key.rpartition("/")
        if folder not in folders:
            folders[folder] = root.add(Text(f"{folder}/"))
        size = (f"  {answer.size(inventory.disk[key])}", "dim")
        folders[folder].add(Text.assemble((short(key), _style(key, changed)), "  ", name_of(inventory, key), size))
    if more:
        root.add(more)
    return Padding(root, (0, 0, 0, 2), expand=False)


def ledger(inventory: Inventory, changed: Set[str]) -> RenderableType:
    """What the ledger says, and which rows agree."""
    table = Table("file", "ledger", "named by", box=None, padding=(0, 2, 0, 0))
    rows = {row["key"]: f"documents {number}" for number, row in inventory.rows.items()}
    shown, more = _some({*inventory.lines, *inventory.disk}, changed)
    for key in shown:
        file = Text(short(key), _style(key, changed))
        table.add_row(file, _state(inventory.lines.get(key)), Text(rows.get(key, "-")))
    if more:
        table.add_row("", more, "")
    return Padding(table, (1, 0, 1, 2), expand=False)


def short(key: str) -> str:
    """Enough of a key to tell it from the others.

    >>> short("2026/11/24/22/019ab7e2-1f35-7cc0-9d1e-5b8d2f6e0a41")
    '…2f6e0a41'
    """
    return f"…{key[-8:]}"


def name_of(inventory: Inventory, key: str) -> Text:
    """The name that is shown to people."""
    name = inventory.names.get(key)
    text = Text("nobody knows it", "red") if name is None else Text(name)
    text.truncate(MOST_CELLS, overflow="ellipsis")
    return text


def _state(line: Line | None) -> Text:
    if line is None:
        return Text("unknown", "red")
    text = Text(line.state, _COLOURS.get(line.state, ""))
    if line.state == "condemned" and line.purge_after is not None:
        text.append(f", purged in {(line.purge_after - time.time() * 1000) / DAY:.0f} days")
    return text


def _style(key: str, changed: Set[str]) -> str:
    return "bold" if key in changed else ""


def _some(keys: Iterable[str], changed: Set[str]) -> tuple[list[str], str]:
    """In order; of many those that changed before the others; and how many more there are."""
    picked = sorted(keys, key=lambda key: (key not in changed, key))
    more = len(picked) - SHOWN
    return sorted(picked[:SHOWN]), f"… and {more:,} more" if more > 0 else ""
