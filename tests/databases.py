"""One database per worker on a server, emptied before each test.

Emptying costs 2 ms where a new database costs 20 to 80. What an earlier test left behind can't block it: its
connections are ended, its prepared transactions rolled back.

Tables cost PostgreSQL as much as a database. Tests that want the same ones share them::

    if not database.clear("docs"):      # takes the rows, if all else is as it was at remember("docs")
        metadata.create_all(engine)     # otherwise there is nothing at all
        database.remember("docs")
"""

from __future__ import annotations

from contextlib import suppress

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError


class PostgresDatabase:
    def __init__(self, server: str, name: str) -> None:
        self.name = name
        self.url = make_url(server).set(database=name)
        self._server = _administer(make_url(server))
        with self._server.connect() as connection:
            connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE template0'))
        self._inside = _administer(self.url)
        self._remembered: tuple[str, str] | None = None

    def clear(self, tables: str) -> bool:
        """Take the rows of ``tables`` away, or else everything; returns whether the tables are there."""
        if self._remembered is not None and self._remembered[0] == tables:
            with self._inside.connect() as connection:
                self._end_the_others(connection)
                if self._shape(connection) == self._remembered[1]:
                    self._take_rows(connection)
                    return True
        self.empty()
        return False

    def remember(self, tables: str) -> None:
        """What is there now are these tables, without rows."""
        with self._inside.connect() as connection:
            self._remembered = tables, self._shape(connection)

    def empty(self) -> URL:
        with self._inside.connect() as connection:
            self._end_the_others(connection)
            schemas = connection.scalars(
                text("SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'")
            )
            for schema in schemas.all():
                connection.execute(text(f'DROP SCHEMA "{schema}" CASCADE'))
            connection.execute(text("CREATE SCHEMA public"))
        return self.url

    def drop(self) -> None:
        self.empty()
        self._inside.dispose()
        with self._server.connect() as connection:
            connection.execute(text(f'DROP DATABASE "{self.name}" WITH (FORCE)'))
        self._server.dispose()

    def _end_the_others(self, connection: Connection) -> None:
        others = text(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        connection.execute(others)
        for prepared in connection.scalars(
            text("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
        ).all():
            connection.execute(text(f"ROLLBACK PREPARED '{prepared}'"))

    def _shape(self, connection: Connection) -> str:
        """All that is there but for rows; the same if nothing was made, changed or dropped in between."""
        catalogs = {  # and what of them TRUNCATE does not change
            "pg_namespace": "oid, nspname",
            "pg_class": "oid, relname, relowner, relacl, relpersistence, relrowsecurity, reloptions",
            **dict.fromkeys(["pg_attrdef", "pg_constraint", "pg_trigger", "pg_proc", "pg_rewrite"], "oid, xmin"),
            **dict.fromkeys(["pg_type", "pg_policy", "pg_extension"], "oid, xmin"),
        }
        parts = [
            f"SELECT concat_ws(' ', '{catalog}', {columns}) FROM {catalog} WHERE oid >= 16384"  # else the server's own
            for catalog, columns in catalogs.items()
        ]
        parts.append("SELECT concat_ws(' ', attrelid, attnum, xmin) FROM pg_attribute WHERE attrelid >= 16384")
        things = " UNION ALL ".join(parts)
        return connection.scalar(
            text(f"SELECT md5(string_agg(thing, ';' ORDER BY thing)) FROM ({things}) AS t (thing)")
        )

    def _take_rows(self, connection: Connection) -> None:
        tables = connection.scalars(
            text("SELECT oid::regclass FROM pg_class WHERE relkind = 'r' AND oid >= 16384")
        ).all()
        connection.execute(text(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY"))


class MariaDatabase:
    def __init__(self, server: str, name: str) -> None:
        self.name = name
        # PyMySQL reads all certificates of the machine for each connection, which takes 40 ms, before it knows whether
        # the server wants any.
        given = make_url(server).set(query={"charset": "utf8mb4", "ssl_disabled": "true"})
        self.url = given.set(database=name)
        self._server = _administer(given)

    def empty(self) -> URL:
        with self._server.connect() as connection:
            self._drop(connection)
            connection.execute(text(f"CREATE DATABASE `{self.name}` CHARACTER SET utf8mb4"))
        return self.url

    def drop(self) -> None:
        with self._server.connect() as connection:
            self._drop(connection)
        self._server.dispose()

    def _drop(self, connection: Connection) -> None:
        mine = text("SELECT id FROM information_schema.processlist WHERE db = :name")
        for process in connection.scalars(mine, {"name": self.name}).all():
            with suppress(DBAPIError):  # It ended by itself.
                connection.execute(text(f"KILL {process}"))
        connection.execute(text(f"DROP DATABASE IF EXISTS `{self.name}`"))


def _administer(url: URL) -> Engine:
    return create_engine(url, isolation_level="AUTOCOMMIT")
