"""Media types: what the bytes show comes first, what was declared second."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import emp_trio
from emp_trio.assets.media import HEAD, extension, is_text_instead, media_type, sniff
from emp_trio.testing.png import make_png

FILES = {
    "png": (make_png(4, 4), "image/png"),
    "jpg": (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", "image/jpeg"),
    "gif": (b"GIF89a\x01\x00\x01\x00", "image/gif"),
    "webp": (b"RIFF\x24\x00\x00\x00WEBPVP8 ", "image/webp"),
    "avif": (b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00mif1avif", "image/avif"),
    "avif by brand": (b"\x00\x00\x00\x1cftypmif2\x00\x00\x00\x00mif2avif", "image/avif"),
    "heic": (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "image/heic"),
    "bmp": (b"BM" + struct.pack("<IHHII", 70, 0, 0, 54, 40) + bytes(40), "image/bmp"),
    "tiff": (b"II*\x00\x08\x00\x00\x00", "image/tiff"),
    "svg": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "image/svg+xml"),
    "bare svg": (b"\n <svg viewBox='0 0 1 1'/>", "image/svg+xml"),
    "mp4": (b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41", "video/mp4"),
    "mov": (b"\x00\x00\x00\x14ftypqt  \x00\x00\x02\x00qt  ", "video/quicktime"),
    "m4a": (b"\x00\x00\x00\x18ftypM4A \x00\x00\x02\x00isomM4A ", "audio/mp4"),
    "webm": (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm", "video/webm"),
    "mkv": (b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81\x01\x42\x82\x88matroska", "video/x-matroska"),
    "avi": (b"RIFF\x24\x00\x00\x00AVI LIST", "video/x-msvideo"),
    "wav": (b"RIFF\x24\x00\x00\x00WAVEfmt ", "audio/wav"),
    "mp3 with a tag": (b"ID3\x04\x00\x00\x00\x00\x00\x00", "audio/mpeg"),
    "mp3": (b"\xff\xfb\x90\x64\x00", "audio/mpeg"),
    "aac": (b"\xff\xf1\x50\x80", "audio/aac"),
    "ogg": (b"OggS\x00\x02" + bytes(22) + b"\x01vorbis", "audio/ogg"),
    "ogv": (b"OggS\x00\x02" + bytes(22) + b"\x80theora", "video/ogg"),
    "flac": (b"fLaC\x00\x00\x00\x22", "audio/flac"),
    "exr": (b"v/1\x01\x02\x00\x00\x00channels", "image/x-exr"),
    "hdr": (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 1\n", "image/vnd.radiance"),
    "hdr of others": (b"#?RGBE\n\n", "image/vnd.radiance"),
    "psd": (b"8BPS\x00\x01" + bytes(6), "image/vnd.adobe.photoshop"),
    "jxl": (b"\xff\x0a\xfa\x1f\x40", "image/jxl"),
    "jxl in a box": (b"\x00\x00\x00\x0cJXL \r\n\x87\n\x00\x00\x00\x14ftypjxl ", "image/jxl"),
    "jp2": (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "image/jp2"),
    "large tiff": (b"II+\x00\x08\x00\x00\x00", "image/tiff"),
    "aiff": (b"FORM\x00\x00\x00\x24AIFFCOMM", "audio/aiff"),
    "aifc": (b"FORM\x00\x00\x00\x24AIFCFVER", "audio/aiff"),
    "large wav": (b"RF64\xff\xff\xff\xffWAVEds64", "audio/wav"),
    "pdf": (b"%PDF-1.7\n", "application/pdf"),
    "glb": (b"glTF\x02\x00\x00\x00", "model/gltf-binary"),
    "zip": (b"PK\x03\x04\x14\x00", "application/zip"),
    "gzip": (b"\x1f\x8b\x08\x00", "application/gzip"),
    "json object": (b'{"a": [1, 2]}\n', "application/json"),
    "json array": (b"[1, 2]", "application/json"),
    "long json": (b'{"a": "' + b"x" * (2 * HEAD), "application/json"),
    "text": ("Ein Löwe.\n".encode(), "text/plain"),
    "text cut in a character": (("x" + "ö" * HEAD).encode()[:HEAD], "text/plain"),
    "text with brackets": (b"[1] is a reference", "text/plain"),
    "text that begins like a bitmap": (b"BMW builds cars", "text/plain"),
    "text that begins like a tag": (b"ID3 is a tag", "text/plain"),
    "html": (b"<!DOCTYPE html><html></html>", "text/html"),
}


@pytest.mark.parametrize(("head", "kind"), FILES.values(), ids=FILES.keys())
def test_content_shows_its_type(head: bytes, kind: str) -> None:
    assert sniff(head[:HEAD]) == kind
    assert media_type(head[:HEAD]) == kind


@pytest.mark.parametrize(
    ("head", "declared", "kind"),
    [
        (FILES["jpg"][0], "image/png", "image/jpeg"),  # what it is beats what it is called
        (FILES["png"][0], None, "image/png"),
        (FILES["mp4"][0], "audio/x-m4a", "audio/mp4"),  # the same bytes, named more exactly
        (FILES["webm"][0], "audio/webm", "audio/webm"),
        (FILES["zip"][0], "model/vnd.usdz+zip", "model/vnd.usdz+zip"),
        (FILES["zip"][0], "image/png", "application/zip"),
        (b"\x93\x94\x95", "image/png", "image/png"),  # unknown bytes: the source is believed
        (b"\x93\x94\x95", " IMAGE/JPG ; charset=binary", "image/jpeg"),
        (b"\x93\x94\x95", "audio/mp3", "audio/mpeg"),
        (b"\x93\x94\x95", None, "application/octet-stream"),
        (b"\x93\x94\x95", "no type", "application/octet-stream"),
        (b"\x93\x94\x95", "image/png\r\nx-evil: 1", "application/octet-stream"),
        (b"a,b\n1,2\n", "text/csv", "text/csv"),
        (b'{"error": "no image"}', "image/png", "application/json"),  # an error page is no image
        (b"o cube\nv 0 0 0\n", "model/obj", "model/obj"),
        (b"hello", "application/octet-stream", "text/plain"),
        (b'{"a": 1}', "text/plain", "text/plain"),
        (b"", "text/plain", "text/plain"),
    ],
)
def test_declared_type_is_second(head: bytes, declared: str | None, kind: str) -> None:
    assert media_type(head, declared) == kind


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        # the fleet's table, queue protocol 6.1
        ("image/png", "png"),
        ("image/jpeg", "jpg"),
        ("image/webp", "webp"),
        ("image/gif", "gif"),
        ("video/mp4", "mp4"),
        ("video/webm", "webm"),
        ("audio/wav", "wav"),
        ("audio/mpeg", "mp3"),
        ("text/plain", "txt"),
        ("application/json", "json"),
        ("application/octet-stream", "bin"),
        # and beyond
        ("video/x-matroska", "mkv"),
        ("model/gltf-binary", "glb"),
        ("application/ld+json", "json"),
        ("text/x-odd", "txt"),
        ("image/x-odd", "bin"),
    ],
)
def test_extension(kind: str, suffix: str) -> None:
    assert extension(kind) == suffix


@given(head=st.binary(max_size=200), declared=st.none() | st.text(max_size=60))
def test_any_bytes_get_a_proper_type_and_extension(head: bytes, declared: str | None) -> None:
    kind = media_type(head, declared)
    assert re.fullmatch(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*", kind)
    assert re.fullmatch(r"[a-z0-9]+", extension(kind))


@given(st.sampled_from([f for f in FILES.values() if not f[1].startswith("text/")]), st.text(max_size=40))
def test_what_is_declared_never_hides_a_signature(file: tuple[bytes, str], declared: str) -> None:
    head, kind = file
    if kind not in ("application/json", "image/svg+xml"):
        assert media_type(head, declared) == kind


@pytest.mark.parametrize(
    ("filename", "kind", "instead"),
    [
        ("a.png", "text/html", True),
        ("a.EXR", "application/json", True),
        ("a.mp4", "text/plain", True),
        ("a.glb", "application/xml", True),
        ("a.png", "image/jpeg", False),
        ("a.exr", "application/octet-stream", False),
        ("a.psd", "application/octet-stream", False),
        ("a.png", "application/octet-stream", False),
        ("a.hdr", "image/vnd.radiance", False),
        ("a.svg", "text/plain", False),
        ("a.txt", "text/plain", False),
        ("a.latent", "text/plain", False),
        ("", "text/plain", False),
    ],
)
def test_only_a_text_in_place_of_a_image_is_no_image(filename: str, kind: str, instead: bool) -> None:
    assert is_text_instead(filename, kind) is instead


def test_no_table_of_the_machine_has_a_say() -> None:
    used = [path for path in Path(emp_trio.__file__).parent.rglob("*.py") if "mimetypes" in path.read_text()]
    assert used == []
