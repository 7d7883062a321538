"""What is due is found by the ledger's index, so that a sweep costs what is due, not what is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sa_attachments import Attachment, AttachmentType, Storages


def test_a_sweep_on_sqlite_scans_no_table(tmp_path: Path) -> None:
    files = Storages("memory:")

    class Base(DeclarativeBase):
        pass

    class Doc(Base):
        __tablename__ = "docs"
        id: Mapped[int] = mapped_column(primary_key=True)
        file: Mapped[Attachment] = mapped_column(AttachmentType(files))

    engine = create_engine(f"sqlite:///{tmp_path / 'rows.db'}")
    Base.metadata.create_all(engine)
    said: list[tuple[str, Any]] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")) and "attachment_ledger" in statement:
            said.append((statement, parameters))

    files.sweep(engine)
    event.remove(engine, "before_cursor_execute", note)
    plans = {}
    with engine.connect() as connection:
        for statement, parameters in said:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            plans[statement] = [str(row[3]) for row in rows]
    due = [plan for statement, plan in plans.items() if "purge_after <=" in statement]
    assert due
    assert all("ix_attachment_ledger_due" in plan[0] for plan in due), due
    engine.dispose()
