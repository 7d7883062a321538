"""Files of documents that are no rows: in ZODB, MongoDB, or whatever else joins transactions of the ``transaction``
package. For sessions of zope.sqlalchemy nothing of this is needed: their files follow the session.

>>> import transaction, ZODB
>>> from persistent.mapping import PersistentMapping
>>> from sa_attachments import Attachment
>>> database = ZODB.DB(None)
>>> connection = database.open()
>>> names = connection.root.names = PersistentMapping()
>>> def is_named(key):
...     with database.transaction() as fresh:
...         return any(files.bind(text).key == key for text in fresh.root.names.values())
>>> files = DocumentFiles("memory:", "sqlite://", is_named=is_named)

A file is stored at once, kept if the transaction is committed, and removed if it is not:

>>> names["me"] = files.stage(Attachment.upload(b"hello", "me.txt")).to_json()
>>> transaction.commit()
>>> files.bind(names["me"]).read()
b'hello'

A document gives its file up by ``drop``, in the transaction that makes it so:

>>> gone = files.bind(names.pop("me"))
>>> files.drop(gone)
>>> transaction.commit()
>>> report = files.sweep()                      # does what a commit had no time for
>>> gone.read()
Traceback (most recent call last):
sa_attachments.errors.FileMissing: ...
>>> connection.close()

Traps
-----
Two databases can't commit as one. What a killed process, or a failed commit, left in doubt is asked of ``is_named``: it
must look at what is committed, by a connection of its own, and tell the truth. Run ``sweep`` regularly, which asks.

Forgetting ``drop`` leaves a file that nobody names; naming a file that was dropped, or of which another document is the
owner, loses it: pass what you take from another document through ``stage``, which copies it.
"""

from __future__ import annotations

from ...errors import MissingExtra

try:
    from .files import DocumentFiles, Recovered
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("transaction", "zope"):
        raise
    raise MissingExtra(f"{__name__} needs the module {error.name!r}: pip install 'sa-attachments[zope]'") from error

__all__ = ["DocumentFiles", "Recovered"]
