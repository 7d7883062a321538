"""Reports: what the care for files answers, for annotations and for programs that look at more than ``ok``.

>>> report = SweepReport([SweptStorage("default", listed=3, purged=1), SweptStorage("avatars", failed=1)])
>>> report.ok, report["avatars"].failed
(False, 1)

``Storages.sweep`` gives a ``SweepReport``, ``verify`` a ``VerifyReport``, ``move`` a ``MoveReport``, ``rebuild`` a
``RebuildReport``, ``stats`` a list of ``LedgerStats``.
"""

from __future__ import annotations

from .moving import MoveReport
from .rebuilding import RebuildReport
from .statistics import LedgerStats
from .sweep import SweepReport, SweptStorage
from .verify import Finding, VerifyReport

__all__ = ["Finding", "LedgerStats", "MoveReport", "RebuildReport", "SweepReport", "SweptStorage", "VerifyReport"]
