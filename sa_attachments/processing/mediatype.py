"""Media types: one name for each, the extensions they go by, which contain which, and which a browser would run.

>>> canonical("IMAGE/JPG; q=1"), canonical("audio/x-wav"), canonical("nonsense")
('image/jpeg', 'audio/wav', None)
>>> of_filename("Photo.JPG"), of_filename("a.tar.gz"), of_filename("README"), sorted(extensions("image/jpeg"))
('image/jpeg', 'application/gzip', None, ['.jfif', '.jpe', '.jpeg', '.jpg'])
>>> is_kind_of("application/epub+zip", "application/zip"), is_active("image/svg+xml"), is_textual("text/csv")
(True, True, True)

Names are those of IANA where it has one, else those that ``mimetypes`` or shared-mime-info use.
"""

from __future__ import annotations

import mimetypes
import re
from fnmatch import fnmatchcase
from functools import lru_cache

from ..filename import extension

UNKNOWN = "application/octet-stream"
"""Bytes that nobody knows more about."""

_NAME = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}", re.ASCII)  # RFC 6838 §4.2

_ALIASES = {
    "application/excel": "application/vnd.ms-excel",
    "application/font-woff": "font/woff",
    "application/gzip-compressed": "application/gzip",
    "application/ico": "image/vnd.microsoft.icon",
    "application/java": "application/java-vm",
    "application/javascript": "text/javascript",
    "application/mspowerpoint": "application/vnd.ms-powerpoint",
    "application/powerpoint": "application/vnd.ms-powerpoint",
    "application/wordperfect": "application/vnd.wordperfect",
    "application/x-bzip": "application/x-bzip2",
    "application/x-dosexec": "application/vnd.microsoft.portable-executable",
    "application/x-ecmascript": "text/javascript",
    "application/x-font-otf": "font/otf",
    "application/x-font-ttf": "font/ttf",
    "application/x-font-woff": "font/woff",
    "application/x-gzip": "application/gzip",
    "application/x-javascript": "text/javascript",
    "application/x-msdownload": "application/vnd.microsoft.portable-executable",
    "application/x-pdf": "application/pdf",
    "application/x-python-bytecode": "application/x-python-code",
    "application/x-rar": "application/vnd.rar",
    "application/x-rar-compressed": "application/vnd.rar",
    "application/x-sit": "application/x-stuffit",
    "application/x-sqlite3": "application/vnd.sqlite3",
    "application/x-visio": "application/vnd.visio",
    "application/x-yaml": "application/yaml",
    "application/x-zip": "application/zip",
    "application/x-zip-compressed": "application/zip",
    "application/zstd-compressed": "application/zstd",
    "audio/aacp": "audio/aac",
    "audio/m4a": "audio/mp4",
    "audio/mid": "audio/midi",
    "audio/mp3": "audio/mpeg",
    "audio/vnd.wave": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/x-aac": "audio/aac",
    "audio/x-au": "audio/basic",
    "audio/x-aiff": "audio/aiff",
    "audio/x-flac": "audio/flac",
    "audio/x-m4a": "audio/mp4",
    "audio/x-midi": "audio/midi",
    "audio/x-mp3": "audio/mpeg",
    "audio/x-mpeg": "audio/mpeg",
    "audio/x-pn-wav": "audio/wav",
    "audio/x-wav": "audio/wav",
    "image/jp": "image/jpeg",
    "image/jpe": "image/jpeg",
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/svg": "image/svg+xml",
    "image/tif": "image/tiff",
    "image/x-bmp": "image/bmp",
    "image/x-cmu-raster": "image/x-sun-raster",
    "image/x-citrix-jpeg": "image/jpeg",
    "image/x-citrix-png": "image/png",
    "image/x-eps": "application/postscript",
    "image/x-icon": "image/vnd.microsoft.icon",
    "image/x-ms-bmp": "image/bmp",
    "image/x-photoshop": "image/vnd.adobe.photoshop",
    "image/x-png": "image/png",
    "image/x-psd": "image/vnd.adobe.photoshop",
    "image/x-tiff": "image/tiff",
    "text/comma-separated-values": "text/csv",
    "text/ecmascript": "text/javascript",
    "text/json": "application/json",
    "text/rtf": "application/rtf",
    "text/x-csv": "text/csv",
    "text/x-markdown": "text/markdown",
    "text/x-vcard": "text/vcard",
    "text/x-yaml": "application/yaml",
    "text/xml": "application/xml",
    "text/yaml": "application/yaml",
    "video/avi": "video/x-msvideo",
    "video/msvideo": "video/x-msvideo",
    "windows/metafile": "image/wmf",
}

# A type, and patterns of the types whose files are files of that type too.
_KINDS = {
    "application/gzip": ("*+gzip", "application/x-compressed-tar"),
    "application/ogg": ("*+ogg", "audio/ogg", "video/ogg", "audio/opus", "*/annodex"),
    "application/pdf": ("application/illustrator",),
    "application/postscript": ("application/illustrator",),
    "application/vnd.rar": ("application/vnd.comicbook-rar",),
    "application/vnd.sqlite3": ("*+sqlite3",),
    "application/x-lz4": ("application/x-lz4-compressed-tar",),
    "application/x-ole-storage": (
        "application/msword",
        "application/vnd.ms-excel",
        "application/vnd.ms-outlook",
        "application/vnd.ms-powerpoint",
        "application/vnd.ms-project",
        "application/vnd.ms-publisher",
        "application/vnd.ms-works",
        "application/vnd.visio",
        "application/x-msi",
    ),
    "application/xml": ("*+xml",),
    "application/zip": (
        "*+zip",
        "application/java-archive",
        "application/oxps",
        "application/vnd.android.package-archive",
        "application/vnd.apple.keynote",
        "application/vnd.apple.numbers",
        "application/vnd.apple.pages",
        "application/vnd.google-earth.kmz",
        "application/vnd.ms-excel.*",
        "application/vnd.ms-powerpoint.*",
        "application/vnd.ms-visio.*",
        "application/vnd.ms-word.*",
        "application/vnd.ms-xpsdocument",
        "application/vnd.oasis.opendocument.*",
        "application/vnd.openxmlformats-officedocument.*",
        "application/vnd.sun.xml.*",
        "application/x-xpinstall",
        "model/3mf",
    ),
    "application/zstd": ("application/x-zstd-compressed-tar",),
    "image/heif": ("image/heic",),
    "image/tiff": (
        "image/x-adobe-dng",
        "image/x-canon-cr2",
        "image/x-epson-erf",
        "image/x-nikon-nef",
        "image/x-nikon-nrw",
        "image/x-pentax-pef",
        "image/x-sony-arw",
    ),
    "image/x-portable-anymap": ("image/x-portable-*map",),
    "text/html": ("application/xhtml+xml",),
    "video/3gpp": ("audio/3gpp",),
    "video/3gpp2": ("audio/3gpp2",),
    "video/mp4": ("audio/mp4", "video/x-m4v"),
    "video/x-matroska": ("audio/x-matroska", "audio/webm", "video/webm", "application/x-matroska"),
    "video/x-ms-asf": ("video/x-ms-wmv", "audio/x-ms-wma", "application/vnd.ms-asf"),
}

# What a browser runs, or applies to the page that asks for it; and all that is XML.
_ACTIVE = {
    "application/hta",
    "application/x-shockwave-flash",
    "application/xml",
    "multipart/related",
    "multipart/x-mixed-replace",
    "text/cache-manifest",
    "text/css",
    "text/html",
    "text/javascript",
    "text/xsl",
    "text/xul",
}

_TEXTUAL = {
    "application/json",
    "application/n-quads",
    "application/n-triples",
    "application/sql",
    "application/toml",
    "application/trig",
    "application/vnd.apple.mpegurl",
    "application/x-csh",
    "application/x-ndjson",
    "application/x-sh",
    "application/x-subrip",
    "application/x-tex",
    "application/yaml",
    "message/rfc822",
}

# What Python 3.11 does not know, or knows by a name that means something else.
_EXTENSIONS = {
    ".3g2": "video/3gpp2",
    ".3gp": "video/3gpp",
    ".7z": "application/x-7z-compressed",
    ".ai": "application/illustrator",
    ".apk": "application/vnd.android.package-archive",
    ".arw": "image/x-sony-arw",
    ".bz2": "application/x-bzip2",
    ".cr2": "image/x-canon-cr2",
    ".dll": "application/vnd.microsoft.portable-executable",
    ".dng": "image/x-adobe-dng",
    ".docm": "application/vnd.ms-word.document.macroenabled.12",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".dotm": "application/vnd.ms-word.template.macroenabled.12",
    ".dotx": "application/vnd.openxmlformats-officedocument.wordprocessingml.template",
    ".epub": "application/epub+zip",
    ".exe": "application/vnd.microsoft.portable-executable",
    ".flac": "audio/flac",
    ".flv": "video/x-flv",
    ".geojson": "application/geo+json",
    ".gpx": "application/gpx+xml",
    ".gz": "application/gzip",
    ".heic": "image/heic",
    ".heif": "image/heif",
    ".ics": "text/calendar",
    ".jar": "application/java-archive",
    ".jfif": "image/jpeg",
    ".jp2": "image/jp2",
    ".jpg": "image/jpeg",
    ".jxl": "image/jxl",
    ".kmz": "application/vnd.google-earth.kmz",
    ".log": "text/plain",
    ".m4a": "audio/mp4",
    ".m4v": "video/x-m4v",
    ".markdown": "text/markdown",
    ".md": "text/markdown",
    ".mid": "audio/midi",
    ".midi": "audio/midi",
    ".mka": "audio/x-matroska",
    ".mkv": "video/x-matroska",
    ".msg": "application/vnd.ms-outlook",
    ".msi": "application/x-msi",
    ".ndjson": "application/x-ndjson",
    ".nef": "image/x-nikon-nef",
    ".odg": "application/vnd.oasis.opendocument.graphics",
    ".odp": "application/vnd.oasis.opendocument.presentation",
    ".ods": "application/vnd.oasis.opendocument.spreadsheet",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".ogv": "video/ogg",
    ".opus": "audio/ogg",
    ".otf": "font/otf",
    ".potm": "application/vnd.ms-powerpoint.template.macroenabled.12",
    ".potx": "application/vnd.openxmlformats-officedocument.presentationml.template",
    ".ppsm": "application/vnd.ms-powerpoint.slideshow.macroenabled.12",
    ".ppsx": "application/vnd.openxmlformats-officedocument.presentationml.slideshow",
    ".pptm": "application/vnd.ms-powerpoint.presentation.macroenabled.12",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".psd": "image/vnd.adobe.photoshop",
    ".pub": "application/vnd.ms-publisher",
    ".rar": "application/vnd.rar",
    ".rtf": "application/rtf",
    ".sql": "application/sql",
    ".sqlite": "application/vnd.sqlite3",
    ".tgz": "application/gzip",
    ".toml": "application/toml",
    ".ttc": "font/collection",
    ".ttf": "font/ttf",
    ".tzst": "application/zstd",
    ".vcf": "text/vcard",
    ".vsd": "application/vnd.visio",
    ".webp": "image/webp",
    ".wma": "audio/x-ms-wma",
    ".wmv": "video/x-ms-wmv",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xhtml": "application/xhtml+xml",
    ".xlam": "application/vnd.ms-excel.addin.macroenabled.12",
    ".xlsb": "application/vnd.ms-excel.sheet.binary.macroenabled.12",
    ".xlsm": "application/vnd.ms-excel.sheet.macroenabled.12",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".xltm": "application/vnd.ms-excel.template.macroenabled.12",
    ".xltx": "application/vnd.openxmlformats-officedocument.spreadsheetml.template",
    ".xz": "application/x-xz",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".zst": "application/zstd",
}


@lru_cache(maxsize=1024)
def canonical(name: str | None) -> str | None:
    """The one name of a type, without parameters; None if ``name`` is none."""
    bare = (name or "").partition(";")[0].strip().lower()
    return _ALIASES.get(bare, bare) if _NAME.fullmatch(bare) else None


def of_filename(filename: str | None) -> str | None:
    """The type that the extension of a filename stands for, the same on every machine; None if it has none known."""
    return _types().get(extension(filename))


@lru_cache(maxsize=256)
def extensions(name: str) -> frozenset[str]:
    """The extensions that stand for a type."""
    return frozenset(suffix for suffix, each in _types().items() if each == name)


@lru_cache(maxsize=1024)
def is_kind_of(name: str, kind: str) -> bool:
    """Whether files of a type are files of ``kind`` too, as all DOCX are ZIP; every type is a kind of itself."""
    return name == kind or any(fnmatchcase(name, pattern) for pattern in _KINDS.get(kind, ()))


@lru_cache(maxsize=256)
def is_active(name: str) -> bool:
    """Whether a browser runs files of a type with the rights of the page that they come from."""
    return name in _ACTIVE or name.endswith("+xml")


@lru_cache(maxsize=256)
def is_textual(name: str) -> bool:
    """Whether files of a type are text that nothing runs."""
    return (name.startswith("text/") or name.endswith("+json") or name in _TEXTUAL) and not is_active(name)


@lru_cache(maxsize=1)
def _types() -> dict[str, str]:
    # An instance of one's own is not touched by the machine's mime.types.
    known = mimetypes.MimeTypes().types_map[True]
    return {suffix: canonical(name) or name for suffix, name in {**known, **_EXTENSIONS}.items()}
