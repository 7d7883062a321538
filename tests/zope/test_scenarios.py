"""All scenarios of the core, with sessions that zope.sqlalchemy manages.

The modules of ``tests.scenarios`` are collected here once more, among the fixtures of this folder: see ``conftest``.
"""
