"""The command line, ``sa-attachments``: the demo, and the care that an operator takes of files, ledger and storages.

>>> main(["--version"])
sa-attachments, version ...
0

It finds the application's ``Storages`` as ``module:name``, the modules with the models, and the database's URL by
options, by the environment, or in the working directory's ``pyproject.toml`` (see ``configuration``). Each command has
a ``--help`` that suffices, ``--json``, and these exit codes:

0. all is well
1. it ran, and something is wrong: ``verify`` found something, ``sweep`` could not clean everything, a scene of the
   demo did not hold
2. it could not do its work: usage, configuration, a database that can't be reached

Traps
-----
The extra ``cli`` brings click and rich; without them ``main`` says so. Only modules of this package import them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

_EXTRA = {"click", "rich"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``sa-attachments`` with these arguments, or with the process's own; returns the exit code."""
    try:
        from .program import run
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        sys.stderr.write(f"sa-attachments needs the module {missing!r}: pip install 'sa-attachments[cli]'\n")
        return 2
    return run(arguments)
