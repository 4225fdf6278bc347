"""AVIF and HEIC, which are files of ISO 23008-12: what they say of their pixels and Pillow does not."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO

from dreamsr.errors import ImageError

SUFFIXES = (".heic", ".heif", ".hif")
"""Of HEIC, which is read and not written."""
HEAD = 64
"""Bytes that `is_heic` wants to see."""
_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"))
"""Of files whose pixels are HEVC's."""
_AV1_BITS = {0b00: 8, 0b10: 10, 0b11: 12}
"""By the flags high_bitdepth and twelve_bit of av1C."""
_ORDINARY = ({1, 2}, {1, 2, 6, 13})
"""Code points of ITU-T H.273 that mean sRGB or nothing: primaries of BT.709; transfer of BT.709, BT.601 or sRGB."""


def is_heic(head: bytes) -> bool:
    """Whether a file that begins with `head` is HEIC; AVIF shares the form, and some of the brands."""
    size = int.from_bytes(head[:4], "big")
    brands = (head[8:12], *(head[i : i + 4] for i in range(16, min(size, len(head)), 4)))
    return head[4:8] == b"ftyp" and not _BRANDS.isdisjoint(brands)


def enable_heic(path: Path) -> None:
    """Teaches Pillow to read HEIC; raises ImageError where that is not installed."""
    try:
        import pillow_heif
    except ImportError:
        raise ImageError(f"{path} is HEIC, which needs pillow-heif", "pip install 'dreamsr[heic]'") from None
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)


def remarks(file: IO[bytes], profile: bytes) -> tuple[str, ...]:
    """What of depth and colours is lost when the pixels are taken as 8 bits of `profile` (b"": of sRGB)."""
    properties = list(_properties(file))
    bits = next((_bits(kind, content) for kind, content in properties if kind in (b"av1C", b"hvcC")), 8)
    colors = next((content for kind, content in properties if kind == b"colr" and content[:4] == b"nclx"), b"")
    points = [int.from_bytes(colors[i : i + 2], "big") for i in (4, 6, 8)] if len(colors) >= 10 else []
    odd = bool(points) and not profile and any(p not in good for p, good in zip(points, _ORDINARY, strict=False))
    found = {f"{bits} bits reduced to 8": bits > 8, f"CICP {'-'.join(map(str, points))} is not kept": odd}
    return tuple(text for text, holds in found.items() if holds)


def _bits(kind: bytes, config: bytes) -> int:
    """Bits of a channel, by the decoder's configuration: ISO 14496-15 has that of HEVC."""
    if kind == b"av1C":
        return _AV1_BITS.get(config[2] >> 5 & 0b11, 8) if len(config) > 2 else 8
    return 8 + (config[17] & 0b111) if len(config) > 17 else 8


def _properties(file: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """The properties of the items of a file, in order."""
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    for kind, skipped in ((b"meta", 4), (b"iprp", 0), (b"ipco", 0)):
        content = next((inner[skipped:] for found, inner in _boxes(content) if found == kind), b"")
    yield from _boxes(content)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of the boxes that lie in `data` one behind the other, up to the first that is broken."""
    position = 0
    while position + 8 <= len(data):
        size, start = int.from_bytes(data[position : position + 4], "big"), 8
        if size == 1:
            size, start = int.from_bytes(data[position + 8 : position + 16], "big"), 16
        size = size or len(data) - position
        if size < start:
            return
        yield data[position + 4 : position + 8], data[position + start : position + size]
        position += size
