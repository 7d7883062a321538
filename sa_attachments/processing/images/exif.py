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

from collections.abc import Collection

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


def kept(exif: Image.Exif, parts: Collection[str]) -> bytes | None:
    """EXIF with the wanted parts only; None if nothing is left."""
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
