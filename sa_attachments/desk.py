"""Desk: where those who write SQL without the ORM hand files in and out, in a transaction of their own connection.

>>> from sqlalchemy import Column, Integer, MetaData, Table, create_engine
>>> from sa_attachments import Attachment, AttachmentType, Storages
>>> files, metadata = Storages("memory:"), MetaData()
>>> docs = Table("docs", metadata, Column("id", Integer, primary_key=True), Column("file", AttachmentType(files)))
>>> engine = create_engine("sqlite://")
>>> metadata.create_all(engine)
>>> with engine.begin() as connection:
...     staged = files.stage(Attachment.upload(b"hello"), connection, docs.c.file)
...     _ = connection.execute(docs.insert(), {"id": 1, "file": staged})
>>> with engine.begin() as connection:
...     old = connection.scalar(docs.select().with_only_columns(docs.c.file).where(docs.c.id == 1).with_for_update())
...     _ = connection.execute(docs.delete().where(docs.c.id == 1))
...     files.drop(old, connection)

Traps
-----
What a row named before is not looked for: read it under lock, and drop it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast
from weakref import WeakKeyDictionary

from sqlalchemy import Column, Connection, text
from sqlalchemy.orm import Mapper, Session

from .attachment import Attachment, binding_of, facts_of, make, origin_of, set_origin
from .column import AttachmentType, ColumnType, kept_for
from .custody import Custody
from .descriptor import Named, named
from .errors import BadConfiguration, BadSource, OwnershipLost
from .frames import Frame
from .home import Home
from .ledger import Drop, Ledger, owner_of
from .offload import in_greenlet
from .processing.steps import changed
from .queries import CONDEMNED, OWNED
from .references import Reference
from .scope import Scope
from .staging import Stage, Token
from .tables import quoted, translated
from .wants import Want, copy_wanted, has_passed


class Office(Home, Protocol):
    """What is needed of ``Storages``."""

    custodies: WeakKeyDictionary[Connection, Custody]

    def ledgers(self) -> list[Ledger]:
        """Those that it knows of."""
        ...


@dataclass(frozen=True, eq=False)
class Unmapped(Reference):
    """A column of a table that nobody needs to have mapped."""

    label: str

    @property
    def target(self) -> str:
        return self.label


def check(said: Any) -> None:
    """BadSource unless it is an attachment."""
    if not isinstance(said, Attachment):
        raise BadSource(
            f"expected an attachment, not {type(said).__name__}: Attachment.upload makes one of what can be read; "
            "of a list, pass one after the other"
        )


class Where(NamedTuple):
    """What was said of a file besides itself."""

    connection: Connection | None
    reference: Unmapped | None


def where(files: Office, said: Sequence[Any]) -> Where:
    """Sort what was said: a connection, a column or attribute of these files, both, or nothing. BadConfiguration."""
    connection: Connection | None = None
    reference: Unmapped | None = None
    for each in said:
        # An AsyncConnection, by what it has: its module needs greenlet.
        connects = isinstance(each, Connection) or hasattr(each, "sync_connection")
        if connects and connection is None:
            connection = _plain(each)
        elif each is not None and not connects and reference is None:
            reference = _reference(files, each)
        elif each is not None:
            raise BadConfiguration(f"{each!r} is one too many: expected a connection, a column, or one of each")
    return Where(connection, reference)


def _plain(connection: Any) -> Connection:
    if isinstance(connection, Connection):
        return connection
    if not in_greenlet():
        raise BadConfiguration("an AsyncConnection wants to be awaited: use Storages.astage and Storages.adrop")
    if not isinstance(connection.sync_connection, Connection):
        raise BadConfiguration(f"{connection!r} is not started")
    return connection.sync_connection


def _reference(files: Office, said: Any) -> Unmapped:
    if isinstance(said, Session):
        raise BadConfiguration("a session's objects need no staging; for its connection, pass session.connection()")
    owner = getattr(said, "class_", None)
    column = said if owner is None else getattr(getattr(said, "property", None), "columns", [None])[0]
    if not isinstance(column, Column) or not isinstance(column.type, ColumnType):
        raise BadConfiguration(f"{said} holds no attachments: expected a column or attribute of AttachmentType")
    return _of_column(files, column, column.type, None if owner is None else f"{owner.__name__}.{said.key}")


def _of_column(files: Office, column: Column[Any], column_type: ColumnType, label: str | None = None) -> Unmapped:
    label = label or column_type.label
    if column_type.files is not files:
        raise BadConfiguration(f"{label} keeps its files in another Storages than this one: use that")
    table: Any = column.table
    key = tuple(table.primary_key)
    return Unmapped(cast(Mapper[Any], None), column.key, column, column_type, table, key, (), (), label)


class Desk:
    """One hand-over on one connection."""

    def __init__(self, files: Office, connection: Connection) -> None:
        self._files = files
        self._connection = connection

    def stage(self, attachment: Attachment, reference: Unmapped | None, storage: str | None) -> Attachment:
        """Own a file, which is stored or copied if need be; see ``Storages.stage``."""
        reference = reference or self._elsewhere(attachment)
        stage, custody = self._open(reference)
        try:
            if custody.waits(origin_of(attachment), reference.type.steps):
                return attachment
            stored, files = self._own(stage, custody, attachment, reference, storage)
        finally:
            stage.close()
        owner = None if reference.table is self._files.ledger_of(reference.table).lines else owner_of(reference.column)
        scope, _ = stage.of(reference)
        handed = make(reference.type.attachment_class, facts_of(stored), reference.type)
        set_origin(handed, custody.take(scope, files, owner, reference.type.steps))
        return handed

    def drop(self, attachment: Attachment, reference: Unmapped | None) -> None:
        """Condemn a file; see ``Storages.drop``."""
        files = named(facts_of(attachment))
        binding = binding_of(attachment)
        if reference is None and isinstance(binding, ColumnType) and binding.column is not None:
            reference = _of_column(self._files, binding.column, binding)
        reference = reference or self._elsewhere(attachment)
        stage, custody = self._open(reference)
        stage.close()
        scope, connection = stage.of(reference)
        scope.ledger.begin_write(connection)
        found = scope.ledger.states(connection, files, lock=True)
        states = [found.get(file.name) for file in files]
        others = set(states) - {OWNED}
        # Triggers, where there are some, condemned already what the row's own statement left without a name.
        if others and not (others == {CONDEMNED} and counts_names(connection, reference)):
            what, state = ("it", states[0]) if states[0] != OWNED else ("a variant of it", others.pop())
            raise OwnershipLost(
                f"{attachment!r} can't be dropped: the ledger calls {what} {state or 'unknown'}, not owned. Somebody "
                "else may have replaced it: read the row with with_for_update(), and drop what it names then"
            )
        # What was staged in this transaction nobody has seen: there is nothing to go back to.
        retain = 0 if files[0] in custody.frame.staged(scope) else kept_for(reference.type)
        custody.drop(scope, reference.column, files)
        scope.ledger.drop(connection, [Drop(file, retain) for file in files])
        if not retain:
            custody.frame.work(scope).dropped += files

    def _open(self, reference: Unmapped) -> tuple[_Stage, Custody]:
        """Begin a transaction, unless there is one, and look whether it can keep files."""
        connection = self._connection
        began = None if connection.in_transaction() else connection.begin()
        custody = self._files.custodies.get(connection)
        if custody is None:
            custody = self._files.custodies[connection] = Custody(self._files, connection)
        stage = _Stage(connection, custody.frame)
        try:
            stage.check([reference])
        except BaseException:
            stage.close()
            if began is not None:
                began.rollback()
            raise
        return stage, custody

    def _own(
        self, stage: _Stage, custody: Custody, attachment: Attachment, reference: Unmapped, storage: str | None
    ) -> tuple[Attachment, list[Named]]:
        want = Want(attachment, reference)
        if attachment.is_stored:
            files = named(facts_of(attachment))
            if self._owns_as_it_is(stage, custody, attachment, files, reference):
                return attachment, files
            want = copy_wanted(attachment, reference)
        if storage is not None:
            want.attachment = changed(want.attachment, storage=storage)
        stage.put([want])
        assert want.stored is not None
        return want.stored, named(facts_of(want.stored))

    def _owns_as_it_is(
        self, stage: _Stage, custody: Custody, attachment: Attachment, files: list[Named], reference: Unmapped
    ) -> bool:
        """Whether a stored file can be had under its own key: nobody owned it before, or whoever did dropped it."""
        is_ours = getattr(binding_of(attachment), "files", None) is self._files
        if not (is_ours and has_passed(attachment, reference.type)):
            return False
        origin = origin_of(attachment)
        if isinstance(origin, Token):
            if stage.claim(reference, attachment, origin):
                custody.took(origin)
                return True
            return False
        scope, connection = stage.of(reference)
        scope.ledger.begin_write(connection)
        states = scope.ledger.states(connection, files, lock=True)
        return all(states.get(file.name) == CONDEMNED for file in files) and all(
            stage.take_over(reference, file, None) for file in files
        )

    def _elsewhere(self, attachment: Attachment) -> Unmapped:
        """What stands for a column that nobody named: the ledger itself. ``verify`` leaves alone what is owned by no
        column of attachments.
        """
        ledgers = self._files.ledgers()
        if len(ledgers) != 1:
            raise BadConfiguration(
                f"there are {len(ledgers)} ledgers: name the column, Storages.stage(attachment, connection, "
                "table.c.column), or the ledger, Storages(ledger=metadata)"
            )
        column_type = AttachmentType(self._files, attachment_class=type(attachment))
        return _of_column(self._files, ledgers[0].lines.c.key, column_type, "a staged attachment")


_TRIGGERS = {
    "sqlite": "sqlite_master WHERE type = 'trigger' AND tbl_name = :name AND sql LIKE :body",
    "postgresql": "pg_trigger WHERE tgrelid = to_regclass(:quoted) AND tgname LIKE '%attachments%'",
    "mysql": "information_schema.triggers WHERE event_object_schema = COALESCE(:schema, DATABASE())"
    " AND event_object_table = :name AND action_statement LIKE :body",
}


def counts_names(connection: Connection, reference: Unmapped) -> bool:
    """Whether the database itself counts the names in a table, by triggers."""
    given = {
        "name": reference.table.name,
        "schema": translated(connection, reference.table.schema),
        "quoted": quoted(connection, reference.table),
        "body": "%attachment_ledger%",
    }
    statement = text("SELECT COUNT(*) FROM " + _TRIGGERS[connection.dialect.name.replace("mariadb", "mysql")])
    return bool(connection.scalar(statement, {name: given[name] for name in statement._bindparams}))


class _Stage(Stage):
    """Owns files on a connection, which no session knows of."""

    def __init__(self, connection: Connection, frame: Frame) -> None:
        super().__init__(frame)
        self._connection = connection

    def of(self, reference: Reference) -> tuple[Scope, Connection]:
        self._frame.seen(self._connection)
        return Scope.of(reference, self._connection), self._connection

    def _bind(self, reference: Reference) -> Connection:
        return self._connection

    _begun = _bind
