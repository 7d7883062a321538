"""Attachments are fields of pydantic's models, SQLModel's too: as they are, and as JSON what a client may know."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel, ValidationError
from sqlalchemy import MetaData, create_engine
from sqlalchemy.orm import registry
from sqlmodel import Field, Session, SQLModel, select

from sa_attachments import Attachment, AttachmentListType, AttachmentType, Storages

files = Storages("memory:")


class Base(SQLModel, registry=registry()):
    metadata = MetaData()


class Doc(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)
    file: Attachment | None = Field(default=None, sa_type=AttachmentType(files))  # type: ignore[call-overload]
    pages: Sequence[Attachment] = Field(default=(), sa_type=AttachmentListType(files))  # type: ignore[call-overload]


class Answer(BaseModel):
    id: int
    file: Attachment | None
    pages: Sequence[Attachment]


PUBLIC = {
    "id": 1,
    "file": {"filename": "a.txt", "content_type": "text/plain", "size": 3},
    "pages": [{"filename": "unnamed", "content_type": "text/plain", "size": 4}],
}


@pytest.fixture
def session() -> Iterator[Session]:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with files.override(), Session(engine) as session:
        session.add(Doc(file=Attachment.upload(b"one", "a.txt"), pages=[Attachment.upload(b"page")]))
        session.commit()
        yield session


def test_sqlmodel_needs_no_configuration(session: Session) -> None:
    doc = session.exec(select(Doc)).one()
    assert doc.file is not None
    assert (doc.file.read(), [page.read() for page in doc.pages]) == (b"one", [b"page"])
    assert json.loads(doc.model_dump_json()) == PUBLIC
    assert doc.model_dump()["file"] is doc.file


def test_storage_and_key_do_not_go_out(session: Session) -> None:
    doc = session.exec(select(Doc)).one()
    assert doc.file is not None
    said = Answer(id=1, file=doc.file, pages=doc.pages).model_dump_json()
    assert json.loads(said) == PUBLIC
    assert doc.file.key not in said


@pytest.mark.parametrize("value", [b"bytes", "text", PUBLIC["file"], {"storage": "default", "key": "a"}])
def test_nothing_but_an_attachment_is_taken(value: Any) -> None:
    """Law 11: none is ever rebuilt from a client's JSON."""
    with pytest.raises(ValidationError, match="instance of Attachment"):
        Answer(id=1, file=value, pages=[])
    with pytest.raises(ValidationError):
        Answer.model_validate_json(json.dumps({"id": 1, "file": str(value), "pages": []}))


def test_a_new_one_has_no_size_yet() -> None:
    new = Answer(id=1, file=Attachment.upload(b"x", "a.txt"), pages=[])
    assert json.loads(new.model_dump_json())["file"]["size"] is None


@pytest.mark.parametrize("model", [Doc, Answer])
@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_its_schema_says_what_a_client_sees(model: Any, mode: Any) -> None:
    schema = model.model_json_schema(mode=mode)
    assert set(schema["properties"]["pages"]["items"]["properties"]) == {"filename", "content_type", "size"}


def test_fastapi_answers_with_it(session: Session) -> None:
    doc = session.exec(select(Doc)).one()
    app = FastAPI()

    @app.get("/", response_model=Answer)
    def answer() -> Any:
        return doc

    with warnings.catch_warnings(action="ignore"):  # a Starlette of 2026 likes another httpx better
        from starlette.testclient import TestClient
    client = TestClient(app)
    assert client.get("/").json() == PUBLIC
    assert "filename" in client.get("/openapi.json").text
