"""Files that obey the transaction of the row that names them.

>>> from sqlalchemy import create_engine
>>> from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
>>> files = Storages("memory:")
>>> class Base(DeclarativeBase): pass
>>> class User(Base):
...     __tablename__ = "users"
...     id: Mapped[int] = mapped_column(primary_key=True)
...     avatar: Mapped[Attachment] = mapped_column(AttachmentType(files))
>>> engine = create_engine("sqlite://")
>>> Base.metadata.create_all(engine)
>>> with Session(engine) as session:
...     user = User(avatar=Attachment.upload(b"hello", "hello.txt"))
...     session.add(user)
...     session.commit()                 # the file is stored and the row committed, or neither
...     user.avatar.filename, user.avatar.size, user.avatar.read()
('hello.txt', 5, b'hello')
"""

from . import tracker as tracker
from .attachment import Attachment
from .column import AttachmentListType, AttachmentType
from .errors import (
    AdoptionFailed,
    AttachmentError,
    AttachmentWarning,
    BadConfiguration,
    BadSource,
    DescriptorDamaged,
    FileDamaged,
    FileMissing,
    LedgerMissing,
    MissingExtra,
    NoTransaction,
    NotStored,
    NoUrl,
    OwnershipLost,
    Refused,
    SourceConsumed,
    StorageFailed,
    UnknownStorage,
    UnknownVariant,
    VariantFailed,
    VariantMissing,
)
from .files import Storages

__all__ = [
    "AdoptionFailed",
    "Attachment",
    "AttachmentError",
    "AttachmentListType",
    "AttachmentType",
    "AttachmentWarning",
    "BadConfiguration",
    "BadSource",
    "DescriptorDamaged",
    "FileDamaged",
    "FileMissing",
    "LedgerMissing",
    "MissingExtra",
    "NoTransaction",
    "NoUrl",
    "NotStored",
    "OwnershipLost",
    "Refused",
    "SourceConsumed",
    "StorageFailed",
    "Storages",
    "UnknownStorage",
    "UnknownVariant",
    "VariantFailed",
    "VariantMissing",
]
