"""Counting: triggers by which a database itself counts the names of each stored file, and condemns it at zero.

A ``Counting`` says what the triggers of one table do; a ``Counter`` writes them in the SQL of one database.

>>> counting = Counting("users", (Counted("avatar", 0), Counted("photos", 86_400_000)))
>>> counting.signature
'sa_attachments 2 avatar=0&photos=86400000;'
>>> Counting.read("users", None, f"BEGIN /* {counting.signature} */ ...") == counting
True
"""

from __future__ import annotations

from .counted import Counted, Counting
from .counter import Counter, Installed
from .dialects import counter_of

__all__ = ["Counted", "Counter", "Counting", "Installed", "counter_of"]
