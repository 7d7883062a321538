"""Storages: the object that an application makes, usually called ``files``: its storages by name, and the care for
what is in them.

>>> from datetime import timedelta
>>> files = Storages({"default": "memory:", "avatars": "default"}, grace=timedelta(hours=1))
>>> staged = files.stage(Attachment.upload(b"hello"))      # before a transaction, for slow uploads
>>> files.bind(staged.to_json()) == staged                  # back from a queue or a cache of your own
True

It can be made empty beside the models, and be configured when the application starts, by ``configure``.

Traps
-----
Run ``sweep`` regularly, from a scheduler: it purges what crashed processes left behind, and what is due for other
reasons. Rows record the name of the storage their file is in, so keep a name configured as long as rows record it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, inspect, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.util import greenlet_spawn

from . import desk
from .attachment import Attachment, bind, body_of, make, set_origin
from .care import Care
from .column import Hook
from .descriptor import decode
from .drops import encode_identity
from .errors import BadConfiguration, FileMissing
from .hooks import hook
from .ledger import Ledger, owner_of
from .offload import run
from .processing.steps import Step
from .processing.variants import Variant
from .references import Reference, of_class, read_locked
from .staging import Token
from .upload import Upload, given
from .wants import Rules, Whole, refuse_held

A = TypeVar("A", bound=Attachment)
H = TypeVar("H", bound=Hook)


class Storages(Care):
    """Names → storages, and what keeps their files and the rows together."""

    # Attachments

    def stage(self, attachment: A, *where: Any, storage: str | None = None) -> A:
        """Store a new attachment before a transaction, so that a slow upload holds no connection. Assign the result.

        Name the attribute or column that it is for (``User.avatar``, ``docs.c.file``), so that its steps run now and
        not on assignment. What no row ever names is swept. Raises what a flush would.

        With a ``Connection`` as well, for those who work without the ORM, the file is owned in the connection's
        transaction, and a statement of this connection may write it into one row; see ``sa_attachments.desk``. One that
        another row owns is copied, one that was dropped and not purged yet is owned again. OwnershipLost,
        NoTransaction, LedgerMissing.
        """
        desk.check(attachment)
        connection, reference = desk.where(self, where)
        if connection is not None:
            return cast(A, desk.Desk(self, connection).stage(attachment, reference, storage))
        if attachment.is_stored:
            return attachment
        body = body_of(attachment)
        rules: Rules = _Bound(self) if reference is None else reference.type
        cls = type(attachment) if reference is None else reference.type.attachment_class
        target = "a staged attachment" if reference is None else reference.target
        meant = None if reference is None else reference.type.storage
        name = self.real(storage or (isinstance(body, Upload) and body.storage) or meant)

        def job() -> Attachment:
            refuse_held(self, attachment, target)
            return Whole(name, self.resolve(name), rules, target, lambda named: None).store(attachment, cls)

        staged = run(job)
        set_origin(staged, Token(given(body)))
        return cast(A, staged)

    async def astage(self, attachment: A, *where: Any, storage: str | None = None) -> A:
        """``stage`` without blocking the event loop; ``where`` may hold an ``AsyncConnection``."""
        return cast(A, await greenlet_spawn(self.stage, attachment, *where, storage=storage))

    def drop(self, attachment: Attachment | None, connection: Any, column: Any = None) -> None:
        """Condemn a file (None is none) that no row names any more, in the connection's own transaction: it is purged
        after the commit, or when ``retain`` of its column is over. For those who work without the ORM.

        OwnershipLost if nobody owns it: read the row with ``with_for_update()`` before.
        """
        found, reference = desk.where(self, [connection, column])
        if found is None:
            raise BadConfiguration(f"{connection!r} is no connection: for a session, pass session.connection()")
        if attachment is not None:
            desk.check(attachment)
            desk.Desk(self, found).drop(attachment, reference)

    async def adrop(self, attachment: Attachment | None, connection: Any, column: Any = None) -> None:
        """``drop`` with an ``AsyncConnection``."""
        await greenlet_spawn(self.drop, attachment, connection, column)

    def bind(self, attachment: A | str, attachment_class: type[A] = Attachment) -> A:  # type: ignore[assignment]
        """Let an attachment that comes out of your own cache or queue, pickled or by ``to_json``, know its storages.

        Never pass what a client sent: storage and key are capabilities.
        """
        if isinstance(attachment, str):
            attachment = make(attachment_class, decode(attachment, "a text"), None)
        desk.check(attachment)
        bind(attachment, _Bound(self))
        return attachment

    def make(self, engine: Any, attachment: A, name: str, *, primary_key: Any = None) -> A:
        """The variant of that name of an attachment that a committed row names: made if it is not there, or failed
        before, or was made by a former recipe. For task queues; see ``sa_attachments.making``.

        With the ``primary_key`` of the row it is found at once. Raises UnknownVariant, VariantFailed, VariantMissing,
        StorageFailed.
        """
        return cast(A, self._workshop.make(engine, attachment, name, primary_key))

    async def amake(self, engine: Any, attachment: A, name: str, *, primary_key: Any = None) -> A:
        """``make`` with an ``AsyncEngine``, or without blocking the event loop."""
        return cast(A, await greenlet_spawn(self._workshop.make, engine, attachment, name, primary_key))

    def connect(self, engine: Any) -> None:
        """Let ``attachment.variant`` make what is not there yet, on connections of this engine; None: no longer."""
        self._workshop.connect(engine)

    def after_commit(self, attribute: Any) -> Callable[[H], H]:
        """Have a function called with a list of primary keys, after each commit that gave rows files of an attribute
        (``User.avatar``) that they did not have: to enqueue tasks.

        It runs in the committing thread, so it should be quick; what it raises is logged. A key is one value, or a
        tuple where it has several columns. Only what a flush writes is told, not bulk statements; and as nobody knows
        for sure how a commit ended, and a process may die after it, a task may find no row, and a row no task.
        """
        return hook(attribute, self)

    def restore(self, session: Session, attribute: Any, primary_key: Any) -> Attachment:
        """Take back the file that a row dropped last from ``attribute`` (``User.avatar``), while it is retained.

        It is assigned to the row, if that exists (a list gets it at its end), and returned. FileMissing if nothing is
        kept. With an ``AsyncSession``: ``await session.run_sync(files.restore, User.avatar, 7)``.
        """
        if iscoroutinefunction(session.connection):  # by what it has: its module needs greenlet
            raise BadConfiguration(
                "an AsyncSession wants to be awaited: await session.run_sync(files.restore, User.avatar, primary_key)"
            )
        mapper = getattr(attribute, "parent", None)
        known = of_class(mapper.class_) if mapper is not None else ()
        reference = next((each for each in known if each.key == attribute.key), None)
        if mapper is None or reference is None:
            raise BadConfiguration(
                f"{attribute} holds no attachments to be restored: expected an attribute, as User.avatar"
            )
        values = primary_key if isinstance(primary_key, tuple) else (primary_key,)
        if len(values) != len(mapper.primary_key):
            names = ", ".join(column.key for column in mapper.primary_key)
            raise BadConfiguration(f"{primary_key!r} is no primary key of {mapper.class_.__name__}: expected ({names})")
        identity = tuple(values[position] for position in reference.positions)
        # A session that reads from followers is asked where it writes.
        connection = session.connection(bind_arguments={"mapper": mapper, "clause": update(reference.table)})
        ledger = self.ledger_of(reference.table)
        row = session.get(mapper.class_, primary_key)
        # A database may write a key in another way than who asks: another case, a number's zeros, a time's zone.
        identities = [identity] if row is None else [identity, reference.identity(inspect(row))]
        tenant = ledger.tenant(connection, reference.table)
        whose = {encode_identity((*tenant, *each)) for each in identities}
        facts = ledger.retained(connection, owner_of(reference.column), whose)
        if facts is None:
            raise FileMissing(
                f"{reference.target}: nothing is kept of what row {identity} dropped (see the option retain)"
            )
        restored = make(reference.type.attachment_class, dict(facts), reference.type)
        if row is not None:
            present = _present(connection, ledger, reference, row) if reference.type.plural else ()
            others = [item for item in present if item != restored]  # a stale object may have it
            setattr(row, attribute.key, reference.type.value([*others, restored]))
        return restored


def _present(connection: Connection, ledger: Ledger, reference: Reference, row: Any) -> Sequence[Attachment]:
    """The items that a list is to have beside a restored one: those that were assigned to the object, or else those of
    its row, which a stale object does not know.
    """
    state = inspect(row)
    if reference.key not in state.committed_state:
        ledger.begin_write(connection)
        identity = reference.identity(state)
        found = read_locked(connection, [reference], [identity]).get(identity)
        if found is not None:
            set_committed_value(row, reference.key, reference.type.value(found[reference.column.name]))
    return reference.type.items(getattr(row, reference.key))


@dataclass(frozen=True, slots=True)
class _Bound:
    """An attachment that no column holds."""

    files: Storages
    label: str = "an attachment"
    steps: tuple[Step, ...] = ()
    variants: Mapping[str, Variant] = field(default_factory=dict)

    def resolve(self, name: str) -> Any:
        return self.files.resolve(name)

    def derived(self, attachment: Any, name: str) -> Any:
        return self.files.derived(attachment, name)

    async def aderived(self, attachment: Any, name: str) -> Any:
        return await self.files.aderived(attachment, name)
