from __future__ import annotations

import io
from collections.abc import Mapping
from html.parser import HTMLParser

import pytest
from sqlalchemy import Column, Integer, MetaData, Table

from sa_attachments import Attachment, AttachmentType, NoUrl, Storages
from sa_attachments.processing import Dimensions, Limit, Placeholder, Recipe, Step, Variant
from sa_attachments.processing.responsive import Responsive, responsive, widths

Image = pytest.importorskip("PIL.Image", reason="needs the extra images")


def picture(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "PNG")
    return file.getvalue()


def stored(data: bytes, variants: Mapping[str, Recipe], *steps: Step) -> Attachment:
    files = Storages("memory:")
    column_type = AttachmentType(files, steps=steps, variants=variants)

    table = Table("t", MetaData(), Column("id", Integer, primary_key=True), Column("photo", column_type))
    return files.stage(Attachment.upload(data, "a.png"), table.c.photo)


def url(attachment: Attachment) -> str:
    return f"/{attachment.metadata.get('width', 'original')}?a&b"


class _Attributes(HTMLParser):
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found = tag, dict(attrs)


@pytest.fixture
def photo() -> Attachment:
    return stored(picture(200, 100), widths(50, 100, 400, 800), Placeholder(), Dimensions())


def test_browsers_choose_from_widths(photo: Attachment) -> None:
    image = responsive(photo, "50vw", url=url)
    # Wider than the picture there is nothing, and only once.
    assert image.srcset == "/50?a&b 50w, /100?a&b 100w, /200?a&b 200w"
    assert (image.src, image.sizes, image.width, image.height) == ("/200?a&b", "50vw", 200, 100)
    assert image.placeholder is not None
    assert image.placeholder.startswith("data:image/png;base64,")


def test_the_element_is_escaped(photo: Attachment) -> None:
    element = responsive(photo, url=url).html(alt='"><script>', loading="lazy", sizes="10vw")
    parser = _Attributes()
    parser.feed(element)
    tag, attributes = parser.found
    assert tag == "img"
    assert attributes["alt"] == '"><script>'
    assert (attributes["loading"], attributes["sizes"], attributes["src"]) == ("lazy", "10vw", "/200?a&b")
    assert "<script" not in element
    assert element.__html__() == element


def test_a_picture_without_widths_is_served_as_it_is() -> None:
    photo = stored(picture(20, 10), {"plain": Limit(5)})
    image = responsive(photo, url=url)
    assert image == Responsive("/original?a&b", "", "100vw", None, None, None)
    assert image.attributes == {"src": "/original?a&b"}


def test_only_those_that_are_named_and_are_there() -> None:
    variants = {**widths(5), **widths(8, lazy=True), "other": Variant(Limit(6), Dimensions())}
    photo = stored(picture(20, 10), variants)
    assert responsive(photo, names=["w5", "w8"], url=url).srcset == "/5?a&b 5w"
    with pytest.raises(LookupError, match="declares no variant"):
        responsive(photo, names=["w5", "nix"], url=url)


def test_a_storage_without_addresses_says_so(photo: Attachment) -> None:
    with pytest.raises(NoUrl):
        responsive(photo)


def test_widths_take_what_transforms_take() -> None:
    photo = stored(picture(20, 10), widths(5, format="WEBP"))
    assert photo.variant("w5").content_type == "image/webp"
    assert widths(5) != widths(5, format="WEBP")
