"""Frames: what a transaction did, whichever of its savepoints were released or rolled back."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa_attachments.descriptor import Named
from sa_attachments.frames import Frame, Work
from sa_attachments.source import PathSource

on = pytest.mark.parametrize


def file(key: str) -> Named:
    return Named("default", key, 1)


class Deed:
    """Something done to an object; writes down what became of it."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    def revert(self) -> None:
        self.log.append(f"revert {self.name}")

    def done(self) -> None:
        self.log.append(f"done {self.name}")


class Connection:
    pass


def busy(name: str, log: list[str] | None = None) -> Frame:
    """A frame in which one of everything happened."""
    frame = Frame()
    work = frame.work("ledger")
    work.staged.append(file(f"{name} staged"))
    work.void.append(file(f"{name} void"))
    work.dropped.append(file(f"{name} dropped"))
    work.given.append((PathSource(Path(name)), file(f"{name} staged")))
    frame.loose.append(("files", file(f"{name} loose")))
    if log is not None:
        frame.undo.append(Deed(name, log))
    return frame


def keys(files: list[Named]) -> list[str]:
    return [each.key for each in files]


# A savepoint ends


def test_a_released_savepoint_joins_its_parent() -> None:
    log: list[str] = []
    parent, child = busy("parent", log), busy("child", log)
    child.marked = True
    parent.absorb(child)
    work = parent.work("ledger")
    assert keys(work.staged) == ["parent staged", "child staged"]
    assert keys(work.dropped) == ["parent dropped", "child dropped"]
    assert keys(work.void) == ["parent void", "child void"]
    assert [source.path().name for source, _ in work.given] == ["parent", "child"]
    assert [named.key for _, named in parent.loose] == ["parent loose", "child loose"]
    assert [undo.name for undo in parent.undo] == ["parent", "child"]  # type: ignore[attr-defined]
    assert log == []


def test_of_one_that_was_rolled_back_the_files_are_suspects_and_the_drops_void() -> None:
    log: list[str] = []
    parent, child = busy("parent", log), busy("child", log)
    parent.absorb(child)
    work = parent.work("ledger")
    assert keys(work.staged) == ["parent staged"]
    assert keys(work.dropped) == ["parent dropped"]
    assert keys(work.void) == ["parent void", "child void", "child staged"]
    assert [source.path().name for source, _ in work.given] == ["parent"]
    assert [named.key for _, named in parent.loose] == ["parent loose", "child loose"]
    assert [undo.name for undo in parent.undo] == ["parent"]  # type: ignore[attr-defined]
    assert log == ["revert child"]


@dataclass
class Tree:
    """A transaction and its savepoints; each ends by being released or rolled back."""

    name: str
    released: bool
    children: list[Tree]

    def frame(self, log: list[str]) -> Frame:
        frame = busy(self.name, log)
        for child in self.children:
            frame.absorb(child.frame(log))
        frame.marked = self.released
        return frame

    def names(self) -> set[str]:
        return {self.name}.union(*(child.names() for child in self.children))

    def kept(self) -> set[str]:
        """Those whose rows are in the transaction still."""
        return {self.name}.union(*(child.kept() for child in self.children if child.released))


def check(tree: Tree) -> None:
    log: list[str] = []
    frame = tree.frame(log)
    work, kept, names = frame.work("ledger"), tree.kept(), tree.names()
    assert sorted(keys(work.staged)) == sorted(f"{name} staged" for name in kept)
    assert sorted(keys(work.dropped)) == sorted(f"{name} dropped" for name in kept)
    suspects = [f"{name} void" for name in names] + [f"{name} staged" for name in names - kept]
    assert sorted(keys(work.void)) == sorted(suspects)
    assert sorted(named.key for _, named in frame.loose) == sorted(f"{name} loose" for name in names)
    assert sorted(log) == sorted(f"revert {name}" for name in names - kept)
    frame.done() if tree.released else frame.revert()
    end = "done" if tree.released else "revert"
    assert sorted(log[-len(kept) :]) == sorted(f"{end} {name}" for name in kept)


@on("released", list(product([True, False], repeat=3)))
def test_three_levels_however_they_end(released: tuple[bool, bool, bool]) -> None:
    check(Tree("a", released[0], [Tree("b", released[1], [Tree("c", released[2], [])])]))


@on("released", list(product([True, False], repeat=4)))
def test_siblings_however_they_end(released: tuple[bool, ...]) -> None:
    first, second, inner = (Tree(name, end, []) for name, end in zip("bcd", released[1:], strict=True))
    second.children.append(inner)
    check(Tree("a", released[0], [first, second]))


@given(
    st.recursive(
        st.booleans().map(lambda released: (released, [])),
        lambda inner: st.tuples(st.booleans(), st.lists(inner, max_size=3)),
        max_leaves=12,
    )
)
def test_any_tree_of_savepoints(shape: Any) -> None:
    names = iter(range(1000))

    def grown(shape: Any) -> Tree:
        return Tree(str(next(names)), shape[0], [grown(each) for each in shape[1]])

    check(grown(shape))


# Works


def test_ledgers_are_kept_apart() -> None:
    parent, child = Frame(), Frame()
    parent.work("one").staged.append(file("a"))
    child.work("two").staged.append(file("b"))
    child.marked = True
    parent.absorb(child)
    assert keys(parent.work("one").staged) == ["a"]
    assert keys(parent.work("two").staged) == ["b"]


@on(
    ("mine", "theirs", "expected"),
    [(set(), set(), set()), (set(), {7}, {7}), ({5}, set(), {5}), ({5}, {7}, {5, 7}), ({"db"}, {"db"}, {"db"})],
)
def test_which_ledger_it_was_is_not_forgotten(mine: Any, theirs: Any, expected: Any) -> None:
    for kept in (True, False):
        work = Work(identities=set(mine))
        work.absorb(Work(identities=theirs), kept)
        assert work.identities == expected


@on("attribute", ["staged", "void", "dropped"])
def test_a_work_with_files_is_true(attribute: str) -> None:
    work = Work()
    assert not work
    getattr(work, attribute).append(file("a"))
    assert work
    frame = Frame()
    frame.works["ledger"] = work
    assert frame


def test_a_frame_in_which_nothing_happened_is_false() -> None:
    frame = Frame()
    frame.work("ledger")
    assert not frame
    frame.loose.append(("files", file("a")))
    assert frame


@on("marked", [True, False])
def test_what_was_absorbed_is_nobody_elses_any_more(marked: bool) -> None:
    """A connection that goes back to its pool may ask the child once more."""
    parent, child = busy("parent"), busy("child")
    child.marked = marked
    parent.absorb(child)
    assert not child
    assert (child.works, child.loose) == ({}, [])
    child.work("ledger").staged.append(file("later"))
    assert "later" not in keys(parent.work("ledger").staged)


# Objects


def test_deeds_are_reverted_latest_first_and_once() -> None:
    log: list[str] = []
    frame = Frame()
    frame.undo += [Deed("first", log), Deed("second", log)]
    frame.revert()
    frame.revert()
    assert log == ["revert second", "revert first"]


def test_deeds_are_done_once_and_not_reverted_any_more() -> None:
    log: list[str] = []
    frame = Frame()
    frame.undo += [Deed("first", log), Deed("second", log)]
    frame.done()
    frame.done()
    frame.revert()
    assert log == ["done first", "done second"]


# Connections


def test_a_connection_is_noted_once_and_its_savepoints_are_noted_with_the_parent() -> None:
    one, two = Connection(), Connection()
    parent, child = Frame(), Frame()
    parent.seen(one)
    parent.seen(one)
    child.seen(one)
    child.seen(two)
    parent.absorb(child)
    assert set(parent.connections) == {one, two}


def test_a_connection_that_nobody_uses_is_let_go() -> None:
    frame, connection = Frame(), Connection()
    frame.seen(connection)
    del connection
    gc.collect()
    assert list(frame.connections) == []
