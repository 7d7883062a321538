"""As ``alembic init`` writes it, with the models, the database's address, and the one line of ours."""

import os

from alembic import context
from models import Base
from sqlalchemy import create_engine, pool

url = os.environ["DATABASE_URL"]
plugins = ["alembic.autogenerate.*", "sa_attachments"]

if context.is_offline_mode():
    context.configure(
        url=url,
        target_metadata=Base.metadata,
        literal_binds=True,
        dialect_opts={"paramstyle": "named"},
        autogenerate_plugins=plugins,
        render_as_batch=True,
    )
    with context.begin_transaction():
        context.run_migrations()
else:
    engine = create_engine(url, poolclass=pool.NullPool)
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            autogenerate_plugins=plugins,
            render_as_batch=True,
        )
        with context.begin_transaction():
            context.run_migrations()
