"""``python -m sa_attachments.cli`` is ``sa-attachments``."""

from __future__ import annotations

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
