"""Detect the media type of a file from its first bytes, and choose its extension. Pure."""

from __future__ import annotations

import codecs
import re
from typing import Final

import msgspec

HEAD: Final = 4096
"""Number of first bytes of a file that :func:`media_type` needs."""

UNKNOWN: Final = "application/octet-stream"

# The fleet's table (queue protocol 6.1) and further formats of its services. Detection returns the first type of an
# extension.
_EXTENSIONS: Final = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "image/gif": "gif",
    "image/avif": "avif",
    "image/heic": "heic",
    "image/bmp": "bmp",
    "image/tiff": "tiff",
    "image/svg+xml": "svg",
    "image/apng": "png",
    "image/vnd.microsoft.icon": "ico",
    "image/x-exr": "exr",
    "image/vnd.radiance": "hdr",
    "image/vnd.adobe.photoshop": "psd",
    "image/jxl": "jxl",
    "image/jp2": "jp2",
    "video/mp4": "mp4",
    "video/webm": "webm",
    "video/x-matroska": "mkv",
    "video/quicktime": "mov",
    "video/x-msvideo": "avi",
    "video/ogg": "ogv",
    "audio/wav": "wav",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg",
    "audio/opus": "opus",
    "audio/flac": "flac",
    "audio/aac": "aac",
    "audio/mp4": "m4a",
    "audio/webm": "weba",
    "audio/x-matroska": "mka",
    "audio/aiff": "aiff",
    "text/plain": "txt",
    "text/html": "html",
    "text/csv": "csv",
    "text/markdown": "md",
    "text/css": "css",
    "text/javascript": "js",
    "text/vtt": "vtt",
    "application/json": "json",
    "application/x-ndjson": "ndjson",
    "application/xml": "xml",
    "application/yaml": "yaml",
    "application/pdf": "pdf",
    "application/zip": "zip",
    "application/gzip": "gz",
    "model/gltf-binary": "glb",
    "model/gltf+json": "gltf",
    "model/obj": "obj",
    "model/stl": "stl",
}
_ALIASES: Final = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "image/x-icon": "image/vnd.microsoft.icon",
    "image/x-ms-bmp": "image/bmp",
    "image/svg": "image/svg+xml",
    "image/aces": "image/x-exr",
    "image/exr": "image/x-exr",
    "image/x-hdr": "image/vnd.radiance",
    "image/psd": "image/vnd.adobe.photoshop",
    "image/x-photoshop": "image/vnd.adobe.photoshop",
    "image/jp2k": "image/jp2",
    "audio/x-aiff": "audio/aiff",
    "audio/wave": "audio/wav",
    "audio/x-wav": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/mp3": "audio/mpeg",
    "audio/x-flac": "audio/flac",
    "audio/m4a": "audio/mp4",
    "audio/x-m4a": "audio/mp4",
    "application/ogg": "audio/ogg",
    "application/x-zip-compressed": "application/zip",
    "application/x-gzip": "application/gzip",
    "application/x-pdf": "application/pdf",
    "text/json": "application/json",
    "text/xml": "application/xml",
    "text/yaml": "application/yaml",
    "binary/octet-stream": UNKNOWN,
}
_SIGNATURES: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"II+\x00", "image/tiff"),
    (b"MM\x00+", "image/tiff"),
    (b"v/1\x01", "image/x-exr"),
    (b"#?RADIANCE", "image/vnd.radiance"),
    (b"#?RGBE", "image/vnd.radiance"),
    (b"8BPS", "image/vnd.adobe.photoshop"),
    (b"\xff\x0a", "image/jxl"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "image/jxl"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "image/jp2"),
    (b"\x00\x00\x01\x00", "image/vnd.microsoft.icon"),
    (b"%PDF-", "application/pdf"),
    (b"fLaC", "audio/flac"),
    (b"glTF", "model/gltf-binary"),
    (b"PK\x03\x04", "application/zip"),
    (b"PK\x05\x06", "application/zip"),
    (b"\x1f\x8b\x08", "application/gzip"),
)
_RIFF: Final = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}
_BRANDS: Final = {  # ISO base media: brand -> type; other brands are MP4
    b"avif": "image/avif",
    b"avis": "image/avif",
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"mif1": "image/heic",
    b"qt  ": "video/quicktime",
    b"M4A ": "audio/mp4",
    b"M4B ": "audio/mp4",
}
_NO_TEXTS: Final = frozenset(
    "png apng jpg jpeg jpe webp gif avif heic heif bmp dib tif tiff ico exr hdr psd psb jxl jp2 dds tga "
    "mp4 m4v webm mkv mov avi ogv mpg mpeg wmv flv 3gp wav mp3 ogg oga opus flac aac m4a weba mka aif aiff aifc "
    "glb".split()
)  # extensions of binary images, videos, sounds and models
_BMP_HEADERS: Final = frozenset((12, 40, 52, 56, 64, 108, 124))  # valid sizes of the second header of a bitmap

# A declared type is preferred if it is more specific than the detected type.
_REFINEMENTS: Final = {
    "image/png": ("image/apng",),
    "video/mp4": ("audio/mp4", "video/x-m4v"),
    "video/webm": ("audio/webm",),
    "video/x-matroska": ("audio/x-matroska",),
    "audio/ogg": ("audio/opus", "video/ogg"),
}
_ZIP_FAMILY: Final = re.compile(r".*\+zip|application/vnd\.(openxmlformats|oasis|ms-).*|application/java-archive")
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")
_NOT_TEXT: Final = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f\ufffe\uffff]")


def media_type(head: bytes, declared: str | None = None) -> str:
    """Return the media type of a file: detected, else declared, else ``application/octet-stream``.

    Args:
        head: first :data:`HEAD` bytes, or all of a shorter file.
        declared: type declared by the source. Parameters, case and obsolete names are normalised; an invalid type is
            ignored.

    Returns:
        a lower-case type without parameters. A more specific declared type (``audio/mp4`` for an MP4) wins over the
        detected one; a declared type whose signature is missing in text (an error page as ``image/png``) is ignored.
    """
    said = _normal(declared)
    shown = _signature(head)
    if shown is not None:
        if said in _REFINEMENTS.get(shown, ()) or (shown == "application/zip" and said and _ZIP_FAMILY.fullmatch(said)):
            return said or shown
        return shown
    text = _text(head)
    if said is not None and said != UNKNOWN and not (text and said in _SIGNED):
        return said
    return text or UNKNOWN


def sniff(head: bytes) -> str | None:
    """Detect the media type from the first bytes of a file; None if unknown."""
    return _signature(head) or _text(head)


def is_text_instead(filename: str, kind: str) -> bool:
    """Return whether a file named as image, video, sound or model is text instead, such as an error page.

    Only detected text counts; unknown bytes are assumed to match the name. The machine's MIME table is not used.

    Args:
        filename: name with extension.
        kind: media type from :func:`media_type`.
    """
    text = kind.startswith("text/") or kind in ("application/json", "application/xml", "application/x-ndjson")
    return text and is_media_name(filename)


def is_media_name(filename: str) -> bool:
    """Return whether the extension is that of an image, video, sound or model."""
    stem, dot, ending = filename.strip().rpartition(".")
    return bool(stem and dot) and ending.lower() in _NO_TEXTS


def extension(media_type: str) -> str:
    """Return the extension for a media type, without a dot; ``bin`` if unknown (queue protocol 6.1)."""
    known = _EXTENSIONS.get(media_type)
    if known is not None:
        return known
    for suffix in ("json", "xml", "zip"):
        if media_type.endswith("+" + suffix):
            return suffix
    return "txt" if media_type.startswith("text/") else "bin"


def _normal(declared: str | None) -> str | None:
    """Normalise a declared type: lower case, no parameters, current name; None if invalid."""
    name = (declared or "").split(";", 1)[0].strip().lower()
    return _ALIASES.get(name, name) if _MEDIA_TYPE.fullmatch(name) else None


def _signature(head: bytes) -> str | None:
    for magic, kind in _SIGNATURES:
        if head.startswith(magic):
            return kind
    if head.startswith((b"RIFF", b"RF64")):
        return _RIFF.get(head[8:12])
    if head.startswith(b"FORM") and head[8:12] in (b"AIFF", b"AIFC"):
        return "audio/aiff"
    if head[4:8] == b"ftyp":
        return _iso_media(head)
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "video/webm" if b"webm" in head[:64] else "video/x-matroska"
    if head.startswith(b"OggS"):
        return "video/ogg" if b"\x80theora" in head[:512] else "audio/ogg"
    if head.startswith(b"BM") and head[6:10] == bytes(4) and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "image/bmp"
    return _mpeg_audio(head)


def _iso_media(head: bytes) -> str:
    """Return the type of an ISO base media file from its major brand, then its compatible brands."""
    length = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, length - 3, 4))]
    if brands[0] in _BRANDS:
        return _BRANDS[brands[0]]
    return next((_BRANDS[b] for b in brands if b in (b"avif", b"heic")), "video/mp4")


def _mpeg_audio(head: bytes) -> str | None:
    """Detect MP3 or AAC without a container from its tag or the first frame header."""
    if head.startswith(b"ID3") and head[3:4] in (b"\x02", b"\x03", b"\x04"):
        return "audio/mpeg"
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    if head[1] & 0xF6 == 0xF0:
        return "audio/aac"
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bitrate, rate = head[2] >> 4, head[2] >> 2 & 3
    return "audio/mpeg" if version != 1 and layer == 1 and bitrate not in (0, 15) and rate != 3 else None


def _text(head: bytes) -> str | None:
    """Return the type of text that starts with ``head``, or None if it is not text."""
    try:
        # Not final: the head may end within a character.
        text = codecs.getincrementaldecoder("utf-8")().decode(head, final=len(head) < HEAD)
    except UnicodeDecodeError:
        return None
    text = text.removeprefix("\ufeff")
    if not text.strip() or _NOT_TEXT.search(text):
        return None
    start = text.lstrip()[:512].lower()
    if start.startswith("<svg") or (start.startswith(("<?xml", "<!--", "<!doctype svg")) and "<svg" in text.lower()):
        return "image/svg+xml"
    if start.startswith(("<!doctype html", "<html")):
        return "text/html"
    if start.startswith("<?xml"):
        return "application/xml"
    return "application/json" if _is_json(text, whole=len(head) < HEAD) else "text/plain"


def _is_json(text: str, *, whole: bool) -> bool:
    """Return whether text is a JSON object or array; for a part, whether it begins like an object."""
    if not text.lstrip().startswith(("{", "[")):
        return False
    if not whole:
        return re.match(r'\s*(\[\s*)*\{\s*"', text) is not None
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return False
    return True


_SIGNED: Final = frozenset(
    {kind for _, kind in _SIGNATURES}
    | {*_RIFF.values(), *_BRANDS.values(), *_REFINEMENTS}
    | {"video/ogg", "image/bmp", "audio/aac", "audio/mpeg", "audio/aiff"}
)
"""Types with a signature."""
