"""Program: ``sa-attachments`` and its commands.

>>> run(["sweep", "--grace", "soon"])
2
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import click

from .adopt import adopt
from .answer import Commands
from .demo import demo
from .failure import EXIT_CODES
from .move import move
from .stats import stats
from .sweep import sweep
from .takeover import takeover
from .variants import variants
from .verify import verify


@click.group(cls=Commands, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("sa-attachments"), prog_name="sa-attachments")
def program() -> None:
    """Files that obey the transaction of the row that names them: a demo, and the care for what is stored.

    The commands but the demo find the application by options, by the environment (SA_ATTACHMENTS_STORAGES,
    SA_ATTACHMENTS_DATABASE, SA_ATTACHMENTS_IMPORT), or in the nearest pyproject.toml:

    \b
    [tool.sa_attachments]
    storages = "myapp.files:files"           # module:name of the Storages
    database = "postgresql+psycopg:///app"   # SQLAlchemy's URL of the rows' database
    import = ["myapp.models"]                # the modules with the models
    """


for command in (demo, sweep, verify, stats, takeover, move, adopt, variants):
    program.add_command(command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # as a scheduler may leave it; what is opened next would take its number
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - as long as we run
    # A name that the terminal can't show must not end a sweep.
    getattr(sys.stdout, "reconfigure", lambda **options: None)(errors="backslashreplace")
    try:
        exit_code = program.main(arguments, "sa-attachments", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("Stopped.", err=True)
        return 1
    except OSError as error:  # a full disk under our output; who reads it through a pipe may go at any time
        click.echo(f"Error: {error}", err=True)
        return 2
    return exit_code if isinstance(exit_code, int) else 0
