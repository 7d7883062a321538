from __future__ import annotations

import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import URL, make_url

from sa_attachments.cli.database import Database
from sa_attachments.cli.failure import Failure
from tests.engines import MARIADB, with_driver


def one(engine: Engine) -> object:
    with engine.connect() as connection:
        return connection.scalar(text("SELECT 1"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "app.db"
    path.touch()
    return path


@pytest.mark.parametrize("driver", ["sqlite", "sqlite+pysqlite", "sqlite+aiosqlite"])
def test_reaches_sqlite_by_any_driver(file: Path, driver: str) -> None:
    assert Database(f"{driver}:///{file}").run(one) == 1


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg", "psycopg_async"])
def test_reaches_postgresql_by_any_driver(postgres_url: URL, driver: str) -> None:
    url = with_driver(postgres_url, driver).render_as_string(hide_password=False)
    assert Database(url).run(one) == 1


def test_takes_a_relative_path_from_a_folder(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert Database("sqlite:///app.db", file.parent).run(one) == 1
    monkeypatch.chdir(file.parent)
    assert Database("sqlite:///app.db").run(one) == 1


def test_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="there is no SQLite file"):
        Database(f"sqlite:///{tmp_path}/typo.db")
    assert not (tmp_path / "typo.db").exists()


def test_hides_the_password() -> None:
    database = Database("postgresql+psycopg://me:secret@127.0.0.1:1/app?connect_timeout=2")
    assert str(database) == "postgresql+psycopg://me:***@127.0.0.1:1/app?connect_timeout=2"


@pytest.mark.parametrize("url", ["", "app.db", "://", "postgresql://me:secret@host:port/app"])
def test_refuses_what_is_no_url_without_repeating_it(url: str) -> None:
    with pytest.raises(Failure, match="the database URL can't be understood: expected dialect") as failure:
        Database(url)
    assert "secret" not in failure.value.message


def test_names_an_unknown_dialect() -> None:
    with pytest.raises(Failure, match="the database URL begins with 'postgres'"):
        Database("postgres://me:secret@host/app")


@pytest.mark.parametrize(
    ("url", "module", "instead"),
    [
        ("postgresql+asyncpg:///app", "asyncpg", ", or use a synchronous driver, as postgresql\\+psycopg://"),
        ("mysql+pymysql:///app", "pymysql", ""),
    ],
)
def test_names_the_driver_that_is_not_there(
    url: str, module: str, instead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Failure, match=f"needs the module '{module}', which is not installed{instead}$"):
        Database(url).run(one)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("timeout=soon", "could not convert string to float: 'soon'"),
        ("check_same_thread=maybe", "String is not true/false: 'maybe'"),
    ],
)
@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
def test_tells_of_options_that_the_driver_refuses(file: Path, driver: str, options: str, said: str) -> None:
    with pytest.raises(Failure, match=f"the driver refuses the options of the database URL: {said}"):
        Database(f"{driver}:///{file}?{options}").run(one)


def test_tells_of_options_that_asyncpg_does_not_know(postgres_url: URL) -> None:
    url = with_driver(postgres_url, "asyncpg").update_query_string("sslmode=require")
    with pytest.raises(Failure, match=r"the driver refuses the options of the database URL: .*'sslmode'"):
        Database(url.render_as_string(hide_password=False)).run(one)


@pytest.mark.skipif(not MARIADB, reason="needs a MariaDB server")
@pytest.mark.parametrize("driver", ["pymysql", "aiomysql"])
def test_asks_for_the_database_that_a_mariadb_url_does_not_name(driver: str) -> None:
    url = with_driver(make_url(MARIADB or "").set(database=""), driver).render_as_string(hide_password=False)
    with pytest.raises(Failure, match=rf"the database URL names no database: expected mysql.{driver}://user@host/name"):
        Database(url).run(one)
