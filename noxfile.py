"""What the project can do with itself: ``nox -l`` lists it, ``nox -s lint`` does one thing.

``nox`` alone runs the tests on every Python and SQLAlchemy that is here, the lint, the types and the documentation.
"""

from __future__ import annotations

import nox

nox.needs_version = ">=2024.4"
nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["tests", "lint", "types", "docs"]

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
SQLALCHEMYS = {"2.0": "SQLAlchemy>=2.0.36,<2.1", "2.1": "SQLAlchemy>=2.1,<2.2"}


def install(session: nox.Session, *requirements: str) -> None:
    session.install("-q", "-c", "constraints.txt", "-e", ".[test]", *requirements)


@nox.session(python=PYTHONS)
@nox.parametrize("sqlalchemy", list(SQLALCHEMYS))
def tests(session: nox.Session, sqlalchemy: str) -> None:
    """The default suite: real databases, doctests, examples of the pages."""
    install(session, SQLALCHEMYS[sqlalchemy])
    session.run("pytest", "-n", "auto", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """ruff: rules and format."""
    install(session)
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict and pyright."""
    install(session)
    session.run("mypy")
    session.run("pyright")


@nox.session
def docs(session: nox.Session) -> None:
    """The manuals in the modules and the pages, by running their examples; and that nothing public is left out."""
    install(session)
    session.run(
        "pytest", "sa_attachments", "alembic_ext", "README.md", "docs", "tests/test_public_docs.py", *session.posargs
    )


@nox.session
def torture(session: nox.Session) -> None:
    """What the default suite leaves out: minutes of random operations, kills at every step, sweeps that race writers,
    and each case of each scenario on each database.
    """
    install(session)
    session.env["SA_ATTACHMENTS_TORTURE"] = "1"
    session.run("pytest", "-n", "auto", "-m", "torture", "tests", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """The table of speed targets, as ratios to a hand-written floor."""
    install(session)
    session.run("python", "benchmarks/run.py", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """The demo, as a newcomer installs it."""
    session.install("-q", "-e", ".[cli,sniff]")
    session.run("sa-attachments", "demo", *session.posargs)
