"""Rows: those of the table whose column is adopted, as the database knows them; no mapping is needed.

>>> from sqlalchemy import create_engine
>>> connection = create_engine("sqlite://").connect()
>>> with connection.begin():
...     _ = connection.exec_driver_sql("CREATE TABLE docs (id INTEGER PRIMARY KEY, data BLOB, file JSON)")
...     rows = Rows(connection, Plan("docs", "data", "file", Blobs()))
...     _ = connection.exec_driver_sql("INSERT INTO docs (data) VALUES ('abc')")
...     [(row.identity, row.size) for row in rows.page(connection, None, 10)]
[((1,), 3)]
>>> Rows(connection, Plan("docs", "date", "file", Blobs()))
Traceback (most recent call last):
sa_attachments.errors.BadConfiguration: ...
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import unquote

from sqlalchemy import (
    JSON,
    Connection,
    Text,
    and_,
    bindparam,
    cast,
    column,
    func,
    inspect,
    literal_column,
    null,
    or_,
    select,
    table,
    update,
)
from sqlalchemy.types import LargeBinary, NullType, TypeEngine, _Binary

from .. import habits
from ..descriptor import Facts
from ..errors import BadConfiguration, listing
from ..keyset import Keyset, one_each
from ..references import Identity as Identity
from ..tables import translated
from .columns import check_key, check_types, check_writable, is_text, names_something
from .plan import AdvancedAlchemy, Blobs, Depot, Plan, SQLAlchemyFile

SLICE = 4 * 1024 * 1024
"""Bytes of a blob that are read at a time."""


@dataclass(slots=True)
class Row:
    """One row; ``value`` is what the column holds, as text; of a blob, only its ``size`` is known at first."""

    identity: Identity
    value: str | None = None
    size: int = 0
    filename: str | None = None
    content_type: str | None = None
    source: Any = None
    """Of a blob that was read: what stores its bytes."""
    tries: int = 0


class Adopted(NamedTuple):
    """A row that names attachments."""

    identity: Identity
    text: str
    """What names them."""
    said: str | None
    """What the source says; None of blobs."""


@dataclass(frozen=True, slots=True)
class Held:
    """A row that is locked: what identifies the value of its column (a blob's SHA-256), and what names its files."""

    token: str | None
    into: str | None


@dataclass(slots=True)
class _Columns:
    key: list[Any]
    source: Any
    into: Any
    extras: dict[str, Any]


class Rows:
    """See the module. Raises BadConfiguration if a table or column is not there, or can't hold what it should."""

    def __init__(self, connection: Connection, plan: Plan, *, back: bool = False, types: bool = True) -> None:
        """``back``: the way back, where ``into`` must be able to be emptied. Without ``types``, ``source`` may be empty
        or a column of any type.
        """
        self.plan = plan
        self.dialect = connection.dialect.name
        there = inspect(connection)
        schema = translated(connection, plan.schema)
        if not there.has_table(plan.table, schema):
            raise BadConfiguration(
                f"there is no table {plan.fullname!r}; there are {listing(there.get_table_names(schema))}"
            )
        found = {str(each["name"]): each for each in there.get_columns(plan.table, schema)}
        names = there.get_pk_constraint(plan.table, schema)["constrained_columns"]
        check_key(plan, {name: found[name]["type"] for name in names})
        wanted = [plan.source, plan.into, plan.origin.filename, plan.origin.content_type]
        if missing := {name for name in wanted if name and name not in found}:
            raise BadConfiguration(f"table {plan.fullname!r} has no column {listing(missing)}; it has {listing(found)}")
        self.binary = isinstance(plan.origin, Blobs)
        kinds: dict[str, TypeEngine[Any]] = {name: each["type"] for name, each in found.items()}
        if types:
            check_types(plan, self.dialect, kinds[plan.source], kinds[plan.into])
            check_writable(plan, found, back)
        if self.dialect != "postgresql":
            kinds[plan.into] = JSON()  # whatever text type reflection makes of it
        if self.dialect == "sqlite":  # whatever a type may promise, a key is what it is
            kinds |= dict.fromkeys(names, NullType())
        self.holds_json = isinstance(kinds.get(plan.source), JSON)
        self._table = table(plan.table, *(column(name, kinds[name]) for name in found), schema=schema)
        c = self._table.c
        extras = {"filename": plan.origin.filename, "content_type": plan.origin.content_type}
        source = c[plan.source] if plan.source else literal_column("NULL")
        known = habits.of_table(connection, plan.table, plan.schema)
        self._keys = Keyset([c[name] for name in names], known.enums)
        self._stamps = {name: c[name] for name in known.stamped}  # set to what they are, so that no row looks edited
        self._c = _Columns(self._keys.columns, source, c[plan.into], {k: c[v] for k, v in extras.items() if v})

    # Reading

    @property
    def _is_empty(self) -> Any:
        return or_(self._c.into.is_(null()), cast(self._c.into, Text).in_(["null", "[]"]))

    @property
    def _todo(self) -> Any:
        return and_(self._says_something, self._is_empty)

    @property
    def _says_something(self) -> Any:
        """Libraries write JSON's null, or a list without items, where there is no file."""
        said = self._c.source.is_not(None)
        is_document = self.holds_json or isinstance(self.plan.origin, Depot | SQLAlchemyFile | AdvancedAlchemy)
        if not is_document or isinstance(self._c.source.type, _Binary | LargeBinary):
            return said
        return and_(said, names_something(cast(self._c.source, Text)))

    def count(self, connection: Connection) -> int:
        """How many rows are still to be adopted."""
        return connection.scalar(select(func.count()).select_from(self._table).where(self._todo)) or 0

    def count_adopted(self, connection: Connection) -> int:
        """How many rows name attachments."""
        return connection.scalar(select(func.count()).select_from(self._table).where(~self._is_empty)) or 0

    def first(self, connection: Connection, limit: int) -> list[Identity]:
        """The primary keys of the first rows that are still to be adopted."""
        statement = select(*self._c.key).where(self._todo).order_by(*self._keys.order).limit(limit)
        return [tuple(row) for row in connection.execute(statement)]

    def page(self, connection: Connection, after: Identity | None, limit: int) -> list[Row]:
        """The next rows to be adopted, in the order of the primary key."""
        statement = self._select().where(self._todo).order_by(*self._keys.order).limit(limit)
        return self._rows(connection, statement if after is None else statement.where(self._keys.later(after)))

    def again(self, connection: Connection, identities: Sequence[Identity]) -> list[Row]:
        """Those of these rows that are still to be adopted."""
        statement = self._select().where(self._todo, self._among(identities))
        return self._rows(connection, statement.order_by(*self._c.key))

    def _select(self) -> Any:
        c = self._c
        what = func.length(c.source) if self.binary else cast(c.source, Text)
        return select(*c.key, what, *c.extras.values())

    def _rows(self, connection: Connection, statement: Any) -> list[Row]:
        width = len(self._c.key)
        found = []
        for values in connection.execute(statement):
            row = Row(tuple(values[:width]))
            if self.binary:
                row.size = int(values[width] or 0)
            else:
                row.value = values[width]
            for name, value in zip(self._c.extras, values[width + 1 :], strict=True):
                setattr(row, name, None if value is None else str(value))
            found.append(row)
        return found

    def adopted(self, connection: Connection, after: Identity | None, limit: int) -> list[Adopted]:
        """The next rows that name attachments."""
        c, width = self._c, len(self._c.key)
        said = null() if self.binary else cast(c.source, Text)
        statement = select(*c.key, cast(c.into, Text), said).where(~self._is_empty)
        statement = statement.order_by(*self._keys.order).limit(limit)
        found = connection.execute(statement if after is None else statement.where(self._keys.later(after)))
        return [Adopted(tuple(row[:width]), row[width], row[width + 1]) for row in found]

    def doubles(self, connection: Connection, limit: int) -> list[tuple[str, int]]:
        """Values that several rows have, and how many."""
        said = cast(self._c.source, Text)
        # By its bytes, whatever the collation: paths differ by case.
        each = cast(self._c.source, LargeBinary) if self.dialect in ("mysql", "mariadb") else said
        statement = select(func.min(said), func.count()).where(self._todo).group_by(each)
        statement = statement.having(func.count() > 1).limit(limit)
        return [(row[0], row[1]) for row in connection.execute(statement)]

    def mentions(self, connection: Connection, text: str) -> bool:
        """Whether the column that was adopted says this anywhere, quoted perhaps, as in a URL or in JSON."""
        if self.binary:
            return False
        said = cast(self._c.source, Text)
        about = select(said).where(said.like(re.sub("[^A-Za-z0-9]+", "%", f" {text} ")))
        forms = text, json.dumps(text)[1:-1]
        return any(each in value or each in unquote(value) for value in connection.scalars(about) for each in forms)

    def blobs(self, connection: Connection, identities: Sequence[Identity]) -> dict[Identity, Any]:
        """The values of a column of bytes."""
        c, width = self._c, len(self._c.key)
        statement = select(*c.key, c.source).where(self._among(identities))
        return {tuple(row[:width]): row[width] for row in connection.execute(statement)}

    def slices(self, connection: Connection, identity: Identity) -> Iterable[Any]:
        """The bytes of one row's value, some at a time."""
        start = 1
        while True:
            part = func.substr(self._c.source, start, SLICE, type_=LargeBinary())
            value = connection.scalar(select(part).where(self._among([identity])))
            if not value:
                return
            yield value
            start += len(value)

    def astray(self, connection: Connection, identities: Sequence[Identity]) -> list[Identity]:
        """Those that lead to no row. BadConfiguration if one leads to several."""
        try:
            found = self._there(connection, identities)
            return [identity for identity in identities if identity not in found]
        except TypeError:  # a list, or a set
            return list(identities)

    def says(self, connection: Connection, identities: Sequence[Identity]) -> dict[Identity, tuple[Any, Any]]:
        """What names the files of these rows, and what their source says; of a blob, its size."""
        c = self._c
        said = func.length(c.source) if self.binary else cast(c.source, Text)
        statement = select(*c.key, cast(c.into, Text), said).where(self._among(identities))
        found = one_each(connection.execute(statement), len(c.key), self.plan.fullname)
        return {identity: (row[-2], row[-1]) for identity, row in found.items()}

    def _there(self, connection: Connection, identities: Sequence[Identity]) -> set[Identity]:
        found = connection.execute(select(*self._c.key).where(self._among(identities)))
        return set(one_each(found, len(self._c.key), self.plan.fullname))

    # Writing

    def lock(
        self, connection: Connection, identities: Sequence[Identity]
    ) -> tuple[dict[Identity, Held], set[Identity]]:
        """Rows that are ours until the transaction ends, and those that are there at all."""
        c, width = self._c, len(self._c.key)
        there = self._there(connection, identities)
        token = self._token()
        statement = select(*c.key, cast(c.into, Text), token).where(self._among(identities)).order_by(*c.key)
        locked = connection.execute(statement.with_for_update(skip_locked=True, key_share=True)).all()
        held = {tuple(row[:width]): Held(row[width + 1], row[width]) for row in locked}
        if self.binary and self.dialect == "sqlite":  # it has no SHA-256; nobody else can write meanwhile
            held = {identity: Held(self._sha256(connection, identity), row.into) for identity, row in held.items()}
        return held, there

    def _token(self) -> Any:
        source = self._c.source
        if not self.binary:
            return cast(source, Text)
        if self.dialect == "postgresql":
            return func.encode(func.sha256(source), "hex", type_=Text())
        return null() if self.dialect == "sqlite" else func.sha2(source, 256, type_=Text())

    def _sha256(self, connection: Connection, identity: Identity) -> str | None:
        digest = hashlib.sha256()
        for part in self.slices(connection, identity):
            if not isinstance(part, bytes):
                return None
            digest.update(part)
        return digest.hexdigest()

    def name(self, connection: Connection, values: Mapping[Identity, Facts | list[Facts]]) -> None:
        """Let rows name attachments."""
        self._write(connection, {self.plan.into: values})

    def give_back(self, connection: Connection, values: Mapping[Identity, Any]) -> None:
        """Let rows say again what they said before, and name no attachments."""
        if self.holds_json:
            values = {identity: json.loads(value) for identity, value in values.items()}
        self._write(connection, {self.plan.source: values, self.plan.into: dict.fromkeys(values, null())})

    def took(self, connection: Connection, values: Mapping[Identity, Any]) -> bool:
        """Whether they say it: a database may cut it short, or somebody's trigger have written something else."""
        says = self.says(connection, list(values))
        wanted = {identity: (None, self._comparable(value)) for identity, value in values.items()}
        return wanted == {identity: (into, self._comparable(said)) for identity, (into, said) in says.items()}

    def _comparable(self, said: Any) -> Any:
        if isinstance(said, bytes):
            return len(said)
        return json.dumps(json.loads(said), sort_keys=True) if self.holds_json and said is not None else said

    def empty(self, connection: Connection, identity: Identity, said: str | None) -> bool:
        """Empty the column that can't be adopted, if it still says this."""
        unchanged = cast(self._c.source, Text) == said
        if said is not None and not is_text(said):
            unchanged = cast(self._c.source, LargeBinary) == said.encode(errors="surrogateescape")
        statement = update(self._table).where(self._among([identity]), self._todo, unchanged)
        return connection.execute(statement.values({self.plan.source: null(), **self._stamps})).rowcount == 1

    def _write(self, connection: Connection, columns: Mapping[str, Mapping[Identity, Any]]) -> None:
        key = [each == bindparam(f"key_{number}", type_=each.type) for number, each in enumerate(self._c.key)]
        bound = {name: values for name, values in columns.items() if not _all_null(values)}
        new = {name: bindparam(f"new_{number}", type_=self._table.c[name].type) for number, name in enumerate(bound)}
        statement = (
            update(self._table).where(*key).values({name: new.get(name, null()) for name in columns} | self._stamps)
        )
        parameters = [
            {f"key_{number}": value for number, value in enumerate(identity)}
            | {f"new_{number}": values[identity] for number, values in enumerate(bound.values())}
            for identity in next(iter(columns.values()))
        ]
        connection.execute(statement, parameters)

    def _among(self, identities: Sequence[Identity]) -> Any:
        return self._keys.among(identities)


def _all_null(values: Mapping[Identity, Any]) -> bool:
    return all(value is null() or type(value) is type(null()) for value in values.values())
