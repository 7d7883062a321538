"""The facts of real files, added to what was said before, and asked for in queries."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import Engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_attachments import Attachment, AttachmentType, Storages
from sa_attachments.processing.images import Capture, Dimensions, DominantColour, Limit, Placeholder
from sa_attachments.processing.images.thumbhash import decode
from sa_attachments.processing.steps import run

from .samples import chart, corners, samples, similar, written
from .test_colour import SWAPPED
from .test_exif import camera

ALL: list[Any] = [Dimensions(), Capture(), DominantColour(), Placeholder()]


def facts(data: bytes, *steps: Any, **metadata: Any) -> dict[str, Any]:
    return dict(run(steps or ALL, Attachment.upload(data, metadata=metadata), "Photo.image").metadata)


def test_what_a_camera_writes() -> None:
    found = facts(written(chart((48, 64)), "JPEG", exif=camera()), caption="Me")
    assert found["caption"] == "Me"
    assert (found["width"], found["height"], found["frames"]) == (64, 48, 1)
    assert (found["orientation"], found["taken_at"]) == (6, "2025-07-08T09:10:11+02:00")


def test_what_nobody_knows_is_not_said() -> None:
    assert facts(written(chart(), "PNG"), Capture()) == {"orientation": 1}


@pytest.mark.parametrize("name", samples())
def test_every_format_has_them(name: str) -> None:
    sample = samples()[name]
    found = facts(sample.data)
    size = (768, 512) if sample.kind == "PCD" else (64, 48)
    assert (found["width"], found["height"], found["frames"], found["orientation"]) == (*size, 1, 1)
    colour = found["dominant_colour"]
    assert any(
        similar([tuple(bytes.fromhex(colour[1:]))], [each], max(sample.tolerance, 30)) for each in sample.expected
    )
    width, height, rgba = decode(base64.b64decode(found["thumbhash"]))
    assert similar(corners(Image.frombytes("RGBA", (width, height), rgba)), sample.expected, 90)


def test_the_look_is_that_of_the_right_colours() -> None:
    found = facts(
        written(chart(colours=[(200, 20, 20)] * 4), "PNG", icc_profile=SWAPPED), DominantColour(), Placeholder()
    )
    assert similar([tuple(bytes.fromhex(found["dominant_colour"][1:]))], [(20, 200, 20)], 6)
    width, height, rgba = decode(base64.b64decode(found["thumbhash"]))
    assert similar(corners(Image.frombytes("RGBA", (width, height), rgba)), [(20, 200, 20)] * 4, 30)


def test_the_dominant_colour_is_that_of_the_larger_part() -> None:
    image = chart((100, 100), [(10, 20, 200)] * 4)
    image.paste((250, 250, 0), (0, 0, 100, 40))
    assert similar([_colour(image)], [(10, 20, 200)], 3)
    image.paste((250, 250, 0), (0, 0, 100, 70))
    assert similar([_colour(image)], [(250, 250, 0)], 3)


def _colour(image: Image.Image) -> tuple[int, ...]:
    return tuple(bytes.fromhex(facts(written(image, "PNG"), DominantColour())["dominant_colour"][1:]))


def test_nothing_to_see_has_no_colour() -> None:
    data = written(Image.new("RGBA", (10, 10), (9, 9, 9, 0)), "PNG")
    assert facts(data, DominantColour()) == {"dominant_colour": None}


def test_frames_are_counted() -> None:
    frames = [chart((10, 10), [(20 * n, 9, 9)] * 4) for n in range(5)]
    data = written(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    assert facts(data, Dimensions())["frames"] == 5


def test_facts_take_the_place_of_what_was_claimed() -> None:
    assert facts(written(chart(), "PNG"), Dimensions(), width=1, caption="Me") == {
        "caption": "Me",
        "width": 64,
        "height": 48,
        "frames": 1,
    }


def test_facts_are_of_the_picture_as_it_comes() -> None:
    data = written(chart((400, 300)), "JPEG", exif=camera())
    assert facts(data, Dimensions(), Limit(40, 40))["width"] == 300  # it stands upright
    assert facts(data, Limit(40, 40), Dimensions())["width"] == 30
    assert facts(data, Limit(40, 40), Capture()) == {"orientation": 1}


@pytest.mark.parametrize("engine", ["sqlite", "postgres", "mariadb"], indirect=True)
def test_each_fact_can_be_asked_for(engine: Engine) -> None:
    class Base(DeclarativeBase): ...

    class Photo(Base):
        __tablename__ = "photos"
        id: Mapped[int] = mapped_column(primary_key=True)
        image: Mapped[Attachment] = mapped_column(AttachmentType(Storages("memory:"), steps=ALL))

    Base.metadata.create_all(engine)
    with Session(engine) as session:
        tall = chart((30, 40), [(200, 10, 10)] * 4)
        session.add(Photo(id=1, image=Attachment.upload(written(tall, "JPEG", exif=camera()))))
        session.add(Photo(id=2, image=Attachment.upload(written(chart((300, 200)), "PNG"))))
        session.commit()
        facts = Photo.image.metadata

        def found(condition: Any) -> list[int]:
            return list(session.scalars(select(Photo.id).where(condition).order_by(Photo.id)))

        assert found(facts["width"] > 100) == [2]
        assert found(facts["width"] >= 40) == [1, 2]
        assert found(facts["height"] == 30) == [1]
        assert found(facts["frames"] == 1) == [1, 2]
        assert found(facts["orientation"] == 6) == [1]
        assert found(facts["taken_at"] < "2025-08") == [1]
        assert found(facts["taken_at"].as_string().startswith("2025-07")) == [1]
        hashes = [photo.image.metadata["thumbhash"] for photo in session.scalars(select(Photo).order_by(Photo.id))]
        assert found(facts["thumbhash"] == hashes[1]) == [2]
        assert found(facts["dominant_colour"].as_string().like("#c%")) == [1]
    engine.dispose()
