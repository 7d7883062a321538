"""The page on serving: its views run as they stand there, in the frameworks' own clients."""

from __future__ import annotations

import gc
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

from sa_attachments import Attachment, AttachmentType, Storages
from sa_attachments.storages.memory import MemoryStorage

PAGE = Path(__file__).parent.parent / "docs" / "serving.md"
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\2\0\0\0\x90wS\xde"
VIEWS = {
    "Flask": "in_flask.py",
    "FastAPI and Starlette": "in_fastapi.py",
    "Litestar": "in_litestar.py",
    "Pyramid": "in_pyramid.py",
}
MODELS = """
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sa_attachments import Attachment, AttachmentType, Storages

class Base(DeclarativeBase): ...

class Doc(Base):
    __tablename__ = "docs"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(Storages("memory:")))

engine = create_engine("sqlite://")
"""
TEXT, PICTURE, HTML, SIGNED, NOTHING = range(1, 6)
"""Primary keys."""


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: Mapping[str, str]


Get = Callable[..., Answer]


class Signing(MemoryStorage):
    """A storage with addresses."""

    def sign_download(self, key: str, *, expires: timedelta, filename: str, content_type: str) -> str:
        return f"https://files.example/{filename}?for={expires.total_seconds():.0f}"


def blocks(section: str) -> list[str]:
    text = PAGE.read_text("utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def write_views(folder: Path) -> list[str]:
    """The views of each framework as a program, and the module that they import; returns the names of the files."""
    (folder / "models.py").write_text(MODELS)
    for section, name in VIEWS.items():
        (folder / name).write_text("\n".join(blocks(section)))
    (folder / "views.py").write_text(blocks("FastAPI and Starlette")[0])
    return ["models.py", "views.py", *VIEWS.values()]


def run(*programs: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": __name__}  # of a module that is there
    for program in programs:
        exec(compile(program, str(PAGE), "exec", dont_inherit=True), namespace)
    return namespace


@pytest.fixture(params=["memory:", "local:"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Storages:
    url = request.param if request.param == "memory:" else f"local:{tmp_path}/files?durable=false"
    return Storages({"default": url, "signing": Signing()})


@pytest.fixture
def models(files: Storages, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module that the page imports, with a row of each kind."""

    class Base(DeclarativeBase): ...

    class Doc(Base):
        __tablename__ = "docs"
        id: Mapped[int] = mapped_column(primary_key=True)
        file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))

    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Doc(id=TEXT, file=Attachment.upload(b"0123456789", "bäh 1.txt")))
        session.add(Doc(id=PICTURE, file=Attachment.upload(PNG, "a.png")))
        session.add(Doc(id=HTML, file=Attachment.upload(b"<html><script>alert(1)</script>", "a.png", "image/png")))
        session.add(Doc(id=SIGNED, file=Attachment.upload(PNG, "b.png", storage="signing")))
        session.add(Doc(id=NOTHING))
        session.commit()
    module = ModuleType("models")
    module.__dict__.update(Doc=Doc, engine=engine)
    monkeypatch.setitem(sys.modules, "models", module)
    yield module
    engine.dispose()


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where downloads go, and where nothing is left."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    if any(folder.iterdir()):
        gc.collect()
    assert list(folder.iterdir()) == []


def flask() -> Get:
    pytest.importorskip("flask")
    app = run(*blocks("Flask"))["app"]
    app.config["PROPAGATE_EXCEPTIONS"] = True

    def get(row: int, **headers: str) -> Answer:
        with app.test_client().get(f"/docs/{row}", headers=_named(headers)) as response:
            return Answer(response.status_code, response.data, response.headers)

    return get


def werkzeug() -> Get:
    """Flask's names, as far as the page uses them, on Werkzeug alone: what it says of that."""
    from werkzeug.exceptions import HTTPException, abort
    from werkzeug.test import Client, create_environ
    from werkzeug.utils import redirect, send_file
    from werkzeug.wrappers import Response

    class Flask:
        environ: Any

        def __init__(self, name: str) -> None:
            self.view: Any = None

        def get(self, path: str) -> Any:
            return lambda view: setattr(self, "view", view)

        def __call__(self, environ: Any, start_response: Any) -> Any:
            Flask.environ = environ
            try:
                response = self.view(int(environ["PATH_INFO"].rpartition("/")[2]))
            except HTTPException as error:
                response = error.get_response(environ)
            return response(environ, start_response)

    fake = ModuleType("flask")
    names = {"Flask": Flask, "Response": Response, "abort": abort, "redirect": redirect}
    fake.__dict__.update(names, send_file=lambda path, **given: send_file(path, Flask.environ, **given))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "flask", fake)
        app = run(*blocks("Flask"))["app"]

    def get(row: int, **headers: str) -> Answer:
        environ = create_environ(f"/docs/{row}", headers=_named(headers))
        with Client(app).open(environ) as response:
            return Answer(response.status_code, response.data, response.headers)

    return get


def starlette() -> Get:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    models = sys.modules["models"]
    serve = run(blocks("FastAPI and Starlette")[0])["serve"]

    def doc(request: Request) -> Response:
        with Session(models.engine) as session:
            file = session.get_one(models.Doc, request.path_params["id"]).file
        return serve(request, file)

    return _asgi(Starlette(routes=[Route("/docs/{id:int}", doc)]))


def fastapi() -> Get:
    pytest.importorskip("fastapi")
    return _asgi(run(*blocks("FastAPI and Starlette"))["app"])


def asynchronous() -> Get:
    """As the page says of an AsyncSession."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    models = sys.modules["models"]
    serve = run(blocks("FastAPI and Starlette")[0])["serve"]

    async def doc(request: Request) -> Response:
        with Session(models.engine) as session:
            file = session.get_one(models.Doc, request.path_params["id"]).file
        return await run_in_threadpool(serve, request, file)

    return _asgi(Starlette(routes=[Route("/docs/{id:int}", doc)]))


def litestar() -> Get:
    from litestar import Litestar

    views = ModuleType("views")
    views.__dict__.update(run(blocks("FastAPI and Starlette")[0]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "views", views)
        return _asgi(Litestar([run(*blocks("Litestar"))["doc"]]))


def pyramid() -> Get:
    with warnings.catch_warnings(action="ignore"):  # WebOb imports cgi
        pytest.importorskip("pyramid.response")
        from pyramid.request import Request

    app = run(*blocks("Pyramid"))["main"]().make_wsgi_app()

    def get(row: int, **headers: str) -> Answer:
        response = Request.blank(f"/docs/{row}", headers=_named(headers)).get_response(app)
        return Answer(response.status_code, response.body, response.headers)

    return get


def _asgi(app: Any) -> Get:
    with warnings.catch_warnings(action="ignore"):  # a Starlette of 2026 likes another httpx better
        from starlette.testclient import TestClient

    def get(row: int, **headers: str) -> Answer:
        response = TestClient(app).get(f"/docs/{row}", headers=_named(headers), follow_redirects=False)
        return Answer(response.status_code, response.content, response.headers)

    return get


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


FRAMEWORKS = [flask, werkzeug, starlette, asynchronous, fastapi, litestar, pyramid]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_serves_a_file_to_be_saved(framework: Callable[[], Get], models: ModuleType) -> None:
    answer = framework()(TEXT)
    assert (answer.status, answer.body) == (200, b"0123456789")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert "filename*=UTF-8''b%C3%A4h%201.txt".lower() in answer.headers["Content-Disposition"].lower()
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["ETag"] == '"84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"'
    assert "private" in answer.headers["Cache-Control"]
    assert answer.headers["Content-Length"] == "10"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_says_when_it_was_stored(framework: Callable[[], Get], models: ModuleType) -> None:
    with Session(models.engine) as session:
        stored = session.get_one(models.Doc, TEXT).file.stored_at
    assert framework()(TEXT).headers["Last-Modified"] == f"{stored:%a, %d %b %Y %H:%M:%S} GMT"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_serves_parts(framework: Callable[[], Get], models: ModuleType) -> None:
    get = framework()
    part = get(TEXT, Range="bytes=2-4")
    assert (part.status, part.body, part.headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    assert get(TEXT, Range="bytes=99-").status == 416
    etag = part.headers["ETag"]
    assert get(TEXT, Range="bytes=2-4", If_Range=etag).status == 206
    assert get(TEXT, Range="bytes=2-4", If_Range='"another"').status == 200


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_sends_nothing_twice(framework: Callable[[], Get], models: ModuleType) -> None:
    get = framework()
    etag = get(TEXT).headers["ETag"]
    for known in (etag, f'"another", W/{etag}'):
        assert get(TEXT, If_None_Match=known)[:2] == (304, b"")
    assert get(PICTURE, If_None_Match=etag).status == 200


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_lets_no_script_run(framework: Callable[[], Get], models: ModuleType) -> None:
    answer = framework()(HTML)
    assert answer.headers["Content-Type"].startswith("text/html")  # though it was said to be a picture
    assert answer.headers["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_shows_pictures(framework: Callable[[], Get], models: ModuleType) -> None:
    answer = framework()(PICTURE)
    assert (answer.headers["Content-Type"], answer.body) == ("image/png", PNG)
    assert answer.headers["Content-Disposition"].startswith("inline")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_misses_what_is_not_there(framework: Callable[[], Get], models: ModuleType) -> None:
    assert framework()(NOTHING).status == 404


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_sends_to_storages_with_addresses(framework: Callable[[], Get], models: ModuleType) -> None:
    answer = framework()(SIGNED)
    assert (answer.status, answer.headers["Location"]) == (302, "https://files.example/b.png?for=3600")
