"""Adoption: operations that turn what other columns hold into attachments, and back.

    def upgrade():
        op.adopt_blob_column("docs", "data", "file", filename="name", create=True)

    def downgrade():
        op.restore_blob_column("docs", "data", "file", create=True)
        op.drop_column("docs", "file")

The storages come from ``context.configure(attachment_storages=files)`` in ``env.py``, or from ``files=`` of the
operation, a URL or URLs by name. The work itself is that of ``sa_attachments.adoption``; a migration that was killed is
run again, and continues where it was.

Traps
-----
Each batch is committed by itself, and before the first one, what the migration did so far: let an adoption be the first
operation of its migration, with ``create=True`` for the new column, so that it can be run again.
"""

from __future__ import annotations

from alembic.operations import BatchOperations, Operations

from .operations import (
    AdoptColumn,
    FinishAdoption,
    HoldAdoption,
    RestoreColumn,
    adopt_column,
    finish_adoption,
    hold_adoption,
    restore_column,
)

_KINDS = ("blob", "path", "depot", "sqlalchemy_file", "advanced_alchemy")


def register() -> None:
    """Tell Alembic of the operations."""
    for kind in _KINDS:
        for verb, operation in (("adopt", AdoptColumn), ("restore", RestoreColumn)):
            for operations, source in ((Operations, f"{kind}_column"), (BatchOperations, f"batch_{kind}_column")):
                method = getattr(operation, source).__func__
                says = method.__doc__
                operations.register_operation(f"{verb}_{kind}_column", source)(operation)
                method.__doc__ = says  # which Alembic has taken, and the other verb needs too
    Operations.register_operation("finish_adoption")(FinishAdoption)
    BatchOperations.register_operation("finish_adoption", "batch_finish_adoption")(FinishAdoption)
    Operations.register_operation("hold_adoption")(HoldAdoption)
    BatchOperations.register_operation("hold_adoption", "batch_hold_adoption")(HoldAdoption)
    Operations.implementation_for(AdoptColumn)(adopt_column)
    Operations.implementation_for(RestoreColumn)(restore_column)
    Operations.implementation_for(FinishAdoption)(finish_adoption)
    Operations.implementation_for(HoldAdoption)(hold_adoption)
