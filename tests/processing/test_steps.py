"""Steps run in order on what the bytes say, and every refusal names the attribute, rule, limit and measure."""

from __future__ import annotations

import functools
import gc
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sa_attachments import (
    Attachment,
    AttachmentType,
    BadConfiguration,
    BadSource,
    FileMissing,
    Refused,
    SourceConsumed,
    Storages,
)
from sa_attachments.attachment import body_of
from sa_attachments.processing import MaxSize, MinSize, Step
from sa_attachments.processing.steps import check, run
from sa_attachments.processing.storing import store
from sa_attachments.storages.local import LocalStorage

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1"


class Scan(Attachment):
    __slots__ = ()


def upload(**said: Any) -> Attachment:
    return Attachment.upload(b"hello", **{"filename": "a.txt", **said})


# The signature that is documented, in all its shapes


def function(attachment: Attachment) -> None:
    attachment.read()


class Callable_:
    def __call__(self, attachment: Attachment, /) -> Attachment | None:
        return None


class Methods:
    def check(self, attachment: Attachment) -> None: ...

    @staticmethod
    def static(attachment: Attachment) -> None: ...


def with_options(attachment: Attachment, limit: int = 3) -> None:
    if limit == 3:
        raise ValueError(f"{attachment.filename} is over {limit}")


@pytest.mark.parametrize(
    "step", [function, lambda attachment: None, Callable_(), Methods().check, Methods.static, MaxSize(9)]
)
def test_any_callable_that_takes_an_attachment_is_a_step(step: Step) -> None:
    assert run([step], upload(), "Doc.file").read() == b"hello"


def test_steps_run_in_order_each_on_what_the_one_before_made() -> None:
    seen: list[bytes] = []

    def append(text: bytes) -> Step:
        def step(attachment: Attachment) -> Attachment:
            seen.append(attachment.read())
            return Attachment.upload(attachment.read() + text)

        return step  # type: ignore[return-value]

    assert run([append(b"1"), append(b"2"), function], upload(), "Doc.file").read() == b"hello12"  # type: ignore[list-item]
    assert seen == [b"hello", b"hello1"]


def test_a_step_sees_what_the_bytes_say_and_what_the_client_said() -> None:
    seen: list[object] = []
    run(
        [lambda a: seen.extend((a.content_type, a.claimed_content_type, a.filename))],
        upload(content_type="image/png"),
        "",
    )
    assert seen == ["text/plain", "image/png", "a.txt"]


def test_without_steps_the_type_is_found_out_all_the_same() -> None:
    assert run([], Attachment.upload(PNG, "a.pdf", "application/pdf"), "Doc.file").content_type == "image/png"


def test_what_a_transform_does_not_say_stays() -> None:
    first = upload(content_type="text/csv", metadata={"n": 1}, storage="other")
    done = run([lambda a: Attachment.upload(PNG)], first, "Doc.file")
    assert (done.filename, done.claimed_content_type, done.metadata, body_of(done).storage) == (  # type: ignore[union-attr]
        "a.txt",
        "text/csv",
        {"n": 1},
        "other",
    )
    assert done.content_type == "image/png"


def test_what_a_transform_says_is_taken() -> None:
    done = run(
        [lambda a: Attachment.upload(PNG, "b.png", "image/x-png", {"m": 2}, "third")],
        upload(content_type="text/csv", metadata={"n": 1}, storage="other"),
        "Doc.file",
    )
    assert (done.filename, done.claimed_content_type, done.metadata, body_of(done).storage) == (  # type: ignore[union-attr]
        "b.png",
        "image/x-png",
        {"m": 2},
        "other",  # where it goes was known before
    )


def test_a_transform_can_not_give_away_what_was_not_given_to_it(tmp_path: Path) -> None:
    """The storage would link the file, and whoever wrote into it then would change what is stored."""

    def nothing_to_do(attachment: Attachment) -> Attachment:
        with attachment.path() as path:
            return Attachment.upload(path, move=True)

    mine = tmp_path / "mine.txt"
    mine.write_bytes(b"hello")
    storage = LocalStorage(tmp_path / "files")
    for given in (False, True):
        ready = run([nothing_to_do], Attachment.upload(mine, move=given), "Doc.file")
        store(ready, "default", storage, started=lambda named: None)
        assert mine.stat().st_nlink == 1 + given


def test_a_file_that_a_transform_gives_away_is_removed_when_nobody_needs_it_any_more(tmp_path: Path) -> None:
    def program(attachment: Attachment) -> Attachment:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.tmp"
        path.write_bytes(attachment.read().upper())
        return Attachment.upload(path, move=True)

    def renamed(attachment: Attachment) -> Attachment:
        with attachment.path() as path:
            return Attachment.upload(path, "b.txt", move=True)

    def refuse(attachment: Attachment) -> None:
        raise ValueError("no")

    given = tmp_path / "given.txt"
    given.write_bytes(b"hello")
    for steps in ([program], [program, renamed], [program, program, upper_later], [renamed]):
        done = run(steps, Attachment.upload(given, move=True), "Doc.file")  # type: ignore[arg-type]
        assert done.read().upper() == b"HELLO"
        del done
        assert list(tmp_path.iterdir()) == [given], steps  # whose turn comes with the commit
    with pytest.raises(Refused):
        run([program, refuse], upload(), "Doc.file")  # type: ignore[list-item]
    gc.collect()  # the error holds what it happened to
    assert list(tmp_path.iterdir()) == [given]


def upper_later(attachment: Attachment) -> Attachment:
    """Reads when it is read."""
    return Attachment.upload(chunk.upper() for chunk in attachment.chunks())


def test_a_transform_that_only_renames_keeps_the_type_and_the_guards() -> None:
    done = run(
        [MaxSize(3), lambda a: a.replace(filename="b.txt")], Attachment.upload(iter([b"hello"]), "a.txt"), "Doc.file"
    )
    assert (done.filename, done.content_type) == ("b.txt", "text/plain")
    with pytest.raises(Refused):
        done.open()


def test_the_result_is_of_the_class_that_was_uploaded() -> None:
    done = run([lambda a: Attachment.upload(b"x")], Scan.upload(b"hello"), "Doc.file")
    assert type(done) is Scan


@pytest.mark.parametrize("result", [b"bytes", "text", 7, True])
def test_a_step_that_returns_something_else_is_a_mistake(result: Any) -> None:
    def careless(attachment: Attachment) -> Any:
        return result

    with pytest.raises(TypeError, match=f"step careless returned {result!r}, expected None or a new attachment"):
        run([careless], upload(), "Doc.file")


def test_a_step_that_returns_a_stored_attachment_is_a_mistake() -> None:
    stored = Storages("memory:").stage(upload())
    with pytest.raises(TypeError, match="expected None or a new attachment"):
        run([lambda attachment: stored], upload(), "Doc.file")
    with pytest.raises(TypeError, match="steps are for new attachments"):
        run([], stored, "Doc.file")


# Refusing


def test_a_refusal_names_the_attribute() -> None:
    def refuse(attachment: Attachment) -> None:
        raise Refused("too grey", rule="Colour", limit="red", measured="grey")

    with pytest.raises(Refused, match=r"Doc\.file: too grey") as caught:
        run([refuse], upload(), "Doc.file")
    error = caught.value
    assert (error.target, error.rule, error.limit, error.measured) == ("Doc.file", "Colour", "red", "grey")


def not_today(attachment: Attachment) -> None:
    raise ValueError("not today")


@pytest.mark.parametrize("rule", [MaxSize(4), MinSize(6), not_today], ids=["guard", "step", "error"])
def test_a_refusal_names_the_file_that_it_is_about(rule: Step) -> None:
    with pytest.raises(Refused) as caught:
        check([rule], Attachment.upload(iter([b"hel", b"lo"]), "second.txt"), "Doc.pages")
    assert (caught.value.target, caught.value.filename) == ("Doc.pages", "second.txt")


def named_by_a_partial() -> Step:
    return functools.partial(functools.partial(with_options), limit=3)


class Grumpy:
    def __call__(self, attachment: Attachment, /) -> None:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no")


@pytest.mark.parametrize(
    ("step", "rule", "message"),
    [
        (with_options, "with_options", r"Doc\.file: a\.txt is over 3"),
        (named_by_a_partial(), "with_options", r"Doc\.file: a\.txt is over 3"),
        (Grumpy(), "Grumpy", "can't decode"),
        (lambda attachment: int(""), "<lambda>", "invalid literal"),
    ],
)
def test_any_value_error_is_a_refusal_by_the_steps_name(step: Step, rule: str, message: str) -> None:
    with pytest.raises(Refused, match=message) as caught:
        run([step], upload(), "Doc.file")
    assert (caught.value.rule, caught.value.target) == (rule, "Doc.file")
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_value_error_without_a_message_still_says_something() -> None:
    def silent(attachment: Attachment) -> None:
        raise ValueError

    with pytest.raises(Refused, match=r"^Doc\.file: ValueError$"):
        run([silent], upload(), "Doc.file")


@pytest.mark.parametrize(
    "error", [KeyError("k"), OSError("disk"), RuntimeError("bug"), FileMissing("gone"), BadSource("b")]
)
def test_other_errors_pass_as_they_are(error: Exception) -> None:
    def broken(attachment: Attachment) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        run([broken], upload(), "Doc.file")
    assert caught.value is error


def test_after_a_refusal_no_further_step_runs() -> None:
    seen: list[object] = []
    with pytest.raises(Refused):
        run([MaxSize(1), seen.append], upload(), "Doc.file")  # type: ignore[list-item]
    assert seen == []


# Reading in a step


def test_a_step_may_read_a_source_that_can_be_read_once() -> None:
    done = run([function, function], Attachment.upload(iter([b"hel", b"lo"])), "Doc.file")
    assert done.read() == b"hello"


def test_what_is_not_read_in_a_step_is_streamed_straight_through() -> None:
    done = run([], Attachment.upload(iter([b"hel", b"lo"])), "Doc.file")
    stream: Any = body_of(done).source.stream()  # type: ignore[union-attr]
    assert stream.read(-1) == b"hello"
    with pytest.raises(SourceConsumed):
        done.read()


# Early, for forms


def test_check_stores_nothing_and_the_attachment_can_be_stored_afterwards() -> None:
    for source in (b"hello", io.BytesIO(b"hello"), iter([b"hello"])):
        new = Attachment.upload(source)
        check([MinSize(1), MaxSize(5), function], new, "Doc.file")
        assert not new.is_stored
        assert Storages("memory:").stage(new).read() == b"hello"


def endless() -> Iterator[bytes]:
    while True:
        yield b"x" * 1000


def test_check_finds_what_only_streaming_shows() -> None:
    with pytest.raises(Refused, match=r"Doc\.file: the file has 2\d,000 bytes or more, allowed are 20,000") as caught:
        check([MaxSize(20_000)], Attachment.upload(endless()), "Doc.file")
    assert (caught.value.rule, caught.value.limit, caught.value.measured) == ("MaxSize", 20_000, 21_000)


def test_check_of_a_stored_attachment_checks_its_bytes() -> None:
    stored = Storages("memory:").stage(upload())
    check([MaxSize(5)], stored, "Doc.file")
    with pytest.raises(Refused):
        check([MaxSize(4)], stored, "Doc.file")


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([MaxSize], r"the class 'MaxSize' is no step: make one of it, as MaxSize\(\.\.\.\)"),
        ([MaxSize(5), None], "None is no step: expected something to call"),
        (MaxSize(5), r"steps are a list, as \[MaxSize\(limit_bytes=5\)\]$"),
    ],
    ids=["class", "nothing", "one alone"],
)
def test_what_is_no_step_is_said_when_the_column_is_made(steps: Any, said: str) -> None:
    with pytest.raises(BadConfiguration, match=said):
        AttachmentType(Storages("memory:"), steps=steps)


def test_steps_of_a_column_are_kept_as_they_were_given() -> None:
    steps = [MaxSize(5), function]
    column_type = AttachmentType(Storages("memory:"), steps=iter(steps))  # type: ignore[arg-type]
    assert column_type.steps == tuple(steps)
