"""The Alembic side of sa_attachments: nothing is needed here to migrate tables that hold attachments."""
