"""Performance: the scenes as they went. One that raises does not hold, and the next ones are played all the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sa_attachments.cli.failure import one_line

from .inventory import Inventory
from .playground import Playground
from .scenes import SCENES, Cast, Check, Scene


@dataclass(frozen=True, slots=True)
class Performance:
    """How one scene went, and what was there before and after it (None if nobody could look)."""

    scene: Scene
    checks: Sequence[Check]
    before: Inventory | None
    inventory: Inventory | None
    error: str | None

    @property
    def ok(self) -> bool:
        """Whether all holds."""
        return self.error is None and bool(self.checks) and all(check.holds for check in self.checks)

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "title": self.scene.title,
            "ok": self.ok,
            "error": self.error,
            "checks": [check._asdict() for check in self.checks],
            "inventory": None if self.inventory is None else asdict(self.inventory),
        }


def perform(playground: Playground, cast: Cast) -> Iterator[Performance]:
    """Play all scenes, each when its turn comes."""
    for scene in SCENES:
        checks: list[Check] = []
        before = inventory = error = None
        try:
            before = playground.take_stock()
            # One by one: what held before an exception is told too.
            for check in scene.play(playground, cast, before):
                checks.append(check)  # noqa: PERF402
            inventory = playground.take_stock()
        except Exception as raised:  # noqa: BLE001 - whatever it is, the scene does not hold
            error = f"{type(raised).__name__}: {one_line(str(raised))}"
        yield Performance(scene, checks, before, inventory, error)
