"""EXIF: what may be kept of it.

>>> from PIL import Image
>>> exif = Image.Exif()
>>> exif[0x013B], exif[0x0112], exif[0x0110] = "Ann Onymous", 6, "Camera 1"
>>> again = Image.Exif()
>>> again.load(kept(exif, ("copyright",)))
>>> dict(again)
{315: 'Ann Onymous'}
"""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime

from PIL import ExifTags, Image

_COPYRIGHT = (ExifTags.Base.Artist, ExifTags.Base.Copyright)
_DEEPER = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop)
# What describes the file that it was: its orientation, sizes, strips and tiles, previews, the maker's own notes (which
# hold addresses in that file), and packets of other kinds.
_OF_THE_FILE = {
    ExifTags.Base.Orientation, ExifTags.Base.ImageWidth, ExifTags.Base.ImageLength, ExifTags.Base.BitsPerSample,
    ExifTags.Base.Compression, ExifTags.Base.PhotometricInterpretation, ExifTags.Base.StripOffsets,
    ExifTags.Base.SamplesPerPixel, ExifTags.Base.RowsPerStrip, ExifTags.Base.StripByteCounts,
    ExifTags.Base.PlanarConfiguration, ExifTags.Base.TileWidth, ExifTags.Base.TileLength, ExifTags.Base.TileOffsets,
    ExifTags.Base.TileByteCounts, ExifTags.Base.JpegIFOffset, ExifTags.Base.JpegIFByteCount, ExifTags.Base.JPEGTables,
    ExifTags.Base.SubIFDs, ExifTags.Base.MakerNote, ExifTags.Base.InterColorProfile, ExifTags.Base.XMLPacket,
    ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight, ExifTags.Base.ColorMap, ExifTags.Base.Predictor,
    0x83BB, 0x8649,  # IPTC, Photoshop
}  # fmt: skip

_TIMES = (  # when it was taken, digitized, changed; each with its offset from UTC
    (ExifTags.Base.DateTimeOriginal, ExifTags.Base.OffsetTimeOriginal),
    (ExifTags.Base.DateTimeDigitized, ExifTags.Base.OffsetTimeDigitized),
    (ExifTags.Base.DateTime, ExifTags.Base.OffsetTime),
)


def taken_at(exif: Image.Exif) -> str | None:
    """When the picture was taken, as an ISO time, with an offset if the camera knew it; None if nobody says."""
    try:
        said = {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
    except Exception:  # noqa: BLE001 - as ``kept``
        return None
    for time, offset in _TIMES:
        # EXIF 3.0, §4.6.5: "YYYY:MM:DD HH:MM:SS", and blanks where it is not known
        digits = re.fullmatch(r"(\d{4}):(\d\d):(\d\d) (\d\d:\d\d:\d\d)", str(said.get(time, "")).strip("\0 "))
        if digits is None:
            continue
        zone = re.fullmatch(r"[+-]\d\d:\d\d", str(said.get(offset, "")).strip("\0 "))
        with suppress(ValueError):
            iso = f"{digits[1]}-{digits[2]}-{digits[3]}T{digits[4]}{zone[0] if zone else ''}"
            return datetime.fromisoformat(iso).isoformat()
    return None


def kept(exif: Image.Exif, parts: Collection[str]) -> bytes | None:
    """EXIF with the wanted parts only; None if nothing is left, or what is there can't be read."""
    try:
        return _kept(exif, parts) if parts else None
    except Exception:  # noqa: BLE001 - it parses and writes whatever cameras and editors wrote
        return None


def _kept(exif: Image.Exif, parts: Collection[str]) -> bytes | None:
    made = Image.Exif()
    wanted = "exif" in parts
    for tag, value in exif.items():
        if tag not in _DEEPER and tag not in _OF_THE_FILE and (wanted or ("copyright" in parts and tag in _COPYRIGHT)):
            made[tag] = value
    for deeper, part in ((ExifTags.IFD.Exif, "exif"), (ExifTags.IFD.GPSInfo, "gps")):
        if part in parts:
            inner = {tag: value for tag, value in exif.get_ifd(deeper).items() if tag not in _OF_THE_FILE}
            inner.pop(ExifTags.IFD.Interop, None)
            if inner:
                made.get_ifd(deeper).update(inner)
    return made.tobytes() if len(made) or made._ifds else None
