"""The recipe of docs/variants.md with a real queue: Procrastinate on PostgreSQL, its worker a process of its own."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session

ROOT = Path(__file__).parents[2]


@pytest.fixture
def queue(postgres_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module ``tasks``, whose queue is there and open."""
    pytest.importorskip("procrastinate", reason="needs procrastinate")
    monkeypatch.setenv("QUEUE_DATABASE", postgres_url.render_as_string(hide_password=False))
    monkeypatch.setenv("QUEUE_FOLDER", str(tmp_path / "files"))
    sys.modules.pop("tests.queues.tasks", None)
    tasks = importlib.import_module("tests.queues.tasks")
    tasks.Base.metadata.create_all(tasks.engine)
    with tasks.app.open():
        tasks.app.schema_manager.apply_schema()
        yield tasks
    tasks.engine.dispose()
    sys.modules.pop("tests.queues.tasks", None)


def work() -> None:
    """What a worker does until the queue is empty."""
    done = subprocess.run(
        [sys.executable, "-m", "procrastinate", "--app", "tests.queues.tasks.app", "worker", "--one-shot"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def jobs(queue: Any) -> dict[str, int]:
    """How many there are in each state."""
    with queue.engine.connect() as connection:
        rows = connection.execute(text("SELECT status, count(*) FROM procrastinate_jobs GROUP BY status"))
        return {row[0]: row[1] for row in rows}


@pytest.mark.timeout(180)
def test_a_worker_makes_what_was_committed(queue: Any) -> None:
    with Session(queue.engine) as session:
        songs = [queue.Song(text=data) for data in (b"la", b"bad", b"gone", b"lu")]
        session.add_all(songs)
        session.flush()
        assert jobs(queue) == {}
        session.commit()
        session.delete(songs[2])
        session.commit()
        void = queue.Song(text=b"void")
        session.add(void)
        session.flush()
        session.rollback()
    assert jobs(queue) == {"todo": 4}
    work()
    assert jobs(queue) == {"succeeded": 4}
    with Session(queue.engine) as session:
        held = {song.text.read(): song.text for song in session.query(queue.Song)}
        assert set(held) == {b"la", b"bad", b"lu"}
        assert held[b"la"].variants["loud"].read() == b"LA"
        assert held[b"lu"].variants["loud"].read() == b"LU"
        with pytest.raises(LookupError, match="it is bad"):
            held[b"bad"].variant("loud")
    assert queue.files.verify(queue.engine).ok
    assert len(list(queue.files.resolve().keys())) == 5
