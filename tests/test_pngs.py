"""PNG files of every kind, good ones and broken ones; and damaged files of every format."""

import io
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from pngs import CHANNELS, DEPTHS, SIGNATURE, Png, Samples, chunk, mutated, noise

from dreamsr.errors import ImageError
from dreamsr.files import images, provenance
from dreamsr.files.images import Provenance

KINDS = [(color, depth) for color in CHANNELS for depth in DEPTHS[color]]


def seen(png: Png) -> Samples:
    """What the samples mean, as whole numbers of 8 bits, or of 16 where the file has them."""
    if png.color == 3:
        return np.array(png.palette)[png.samples[..., 0]]
    return png.samples * (255 // (2**png.depth - 1)) if png.depth < 8 else png.samples


def read(folder: Path, data: bytes) -> images.Picture:
    (folder / "a.png").write_bytes(data)
    return images.read(folder / "a.png")


def samples(picture: images.Picture) -> Samples:
    """Whole numbers (H, W, C) of the picture's depth."""
    planes = [picture.color[:1] if picture.gray else picture.color]
    planes += [] if picture.alpha is None else [picture.alpha]
    whole = ((torch.cat(planes).double() + 1) / 2 * (2**picture.depth - 1)).round().long()
    return np.asarray(whole.permute(1, 2, 0))


@pytest.mark.parametrize(("color", "depth"), KINDS)
@pytest.mark.parametrize("interlaced", [False, True])
def test_every_colour_type_and_depth(color: int, depth: int, interlaced: bool, tmp_path: Path) -> None:
    png = replace(noise(color, depth), interlaced=interlaced, filter=5)
    picture = read(tmp_path, png.encode())
    assert np.array_equal(samples(picture), seen(png))
    assert picture.depth == max(8, depth)
    assert picture.gray == (color in (0, 4))
    assert (picture.alpha is not None) == (color in (4, 6))
    header = images.probe(tmp_path / "a.png")
    assert (header.format, header.size, header.depth) == ("PNG", (9, 11), max(8, depth))
    assert header.alpha == (color in (4, 6))


@pytest.mark.parametrize("filter", range(5))
@pytest.mark.parametrize(("color", "depth"), [(0, 8), (2, 16)])
def test_every_filter(filter: int, color: int, depth: int, tmp_path: Path) -> None:
    png = replace(noise(color, depth), filter=filter)
    assert np.array_equal(samples(read(tmp_path, png.encode())), seen(png))


@pytest.mark.parametrize(("color", "depth"), [(3, 4), (0, 1), (6, 16)])
@pytest.mark.parametrize("interlaced", [False, True])
def test_every_small_size(color: int, depth: int, interlaced: bool, tmp_path: Path) -> None:
    for side in range(1, 41):
        png = replace(noise(color, depth, (side, 41 - side)), interlaced=interlaced)
        assert np.array_equal(samples(read(tmp_path, png.encode())), seen(png)), side


@pytest.mark.parametrize("level", [0, 1, 3, 6, 9])
@pytest.mark.parametrize("split", [0, 1, 7])
def test_compression_and_pieces(level: int, split: int, tmp_path: Path) -> None:
    png = replace(noise(2, 8), level=level, split=split)
    assert np.array_equal(samples(read(tmp_path, png.encode())), seen(png))


@pytest.mark.parametrize(("color", "depth"), [(c, d) for c, d in KINDS if c in (0, 2)])
def test_a_transparent_colour(color: int, depth: int, tmp_path: Path) -> None:
    png = noise(color, depth)
    chosen = png.samples[3, 4]
    png = replace(png, chunks=((b"tRNS", chosen.astype(">u2").tobytes()),))
    picture = read(tmp_path, png.encode())
    got = samples(picture)
    assert picture.alpha is not None
    assert images.probe(tmp_path / "a.png").alpha
    assert np.array_equal(got[..., :-1], seen(png))
    hidden = (png.samples == chosen).all(-1)
    assert np.array_equal(got[..., -1], np.where(hidden, 0, 2**picture.depth - 1))


@pytest.mark.parametrize("depth", DEPTHS[3])
def test_a_palette_with_transparency(depth: int, tmp_path: Path) -> None:
    png = noise(3, depth)
    alphas = np.arange(2**depth) * 255 // (2**depth - 1)
    given = alphas[: len(alphas) // 2]  # the rest is opaque
    picture = read(tmp_path, replace(png, chunks=((b"tRNS", given.astype(np.uint8).tobytes()),)).encode())
    expected = np.concatenate([given, np.full(len(alphas) - len(given), 255)])[png.samples[..., 0]]
    assert np.array_equal(samples(picture)[..., 3], expected)
    assert np.array_equal(samples(picture)[..., :3], seen(png))


ODD = (
    (b"gAMA", struct.pack(">I", 45455)),
    (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
    (b"sBIT", b"\5\5\5"),
    (b"bKGD", b"\0\1\0\2\0\3"),
    (b"tIME", struct.pack(">HBBBBB", 2026, 2, 28, 23, 59, 60)),
    (b"pHYs", struct.pack(">IIB", 11811, 11811, 1)),
    (b"sPLT", b"six-cube\0\x08" + bytes(6)),
    (b"tEXt", b"Title\0PngSuite"),
    (b"zTXt", b"Copyright\0\0" + zlib.compress(b"nobody")),
    (b"iTXt", "Comment\0\0\0de\0Kommentar\0größer".encode()),
    (b"prVt", b"nobody knows what this is"),
)


@pytest.mark.parametrize("kind", ODD, ids=lambda kind: kind[0].decode())
@pytest.mark.parametrize("depth", [8, 16])
def test_chunks_of_all_kinds_do_no_harm(kind: tuple[bytes, bytes], depth: int, tmp_path: Path) -> None:
    png = noise(2, depth)
    for changed in (replace(png, chunks=(kind,)), replace(png, trailing=(kind,))):
        picture = read(tmp_path, changed.encode())
        assert np.array_equal(samples(picture), seen(png))
        assert picture.remarks == ()


def test_the_printed_size_and_the_gamma_are_seen(tmp_path: Path) -> None:
    linear = replace(noise(2, 8), chunks=((b"gAMA", struct.pack(">I", 100000)), ODD[5]))
    picture = read(tmp_path, linear.encode())
    assert picture.metadata.dpi == pytest.approx((300, 300), abs=0.01)
    assert picture.remarks == ("the gamma of 1 is not kept",)
    known = replace(linear, chunks=(*linear.chunks, (b"sRGB", b"\0")))  # which is to be taken in place of the gamma
    assert read(tmp_path, known.encode()).remarks == ()


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize(
    ("points", "remarks"),
    [(b"\x09\x10\x00\x01", ("cICP 9-16-0-1 is not kept",)), (b"\x01\x0d\x00\x01", ()), (b"", ())],
    ids=["BT.2100 PQ", "sRGB", "empty"],
)
def test_code_points_are_said(depth: int, points: bytes, remarks: tuple[str, ...], tmp_path: Path) -> None:
    png = noise(2, depth)
    for chunks in (((b"cICP", points), ODD[5]), (ODD[5], (b"cICP", points))):
        picture = read(tmp_path, replace(png, chunks=chunks).encode())
        assert np.array_equal(samples(picture), seen(png))
        assert picture.remarks == remarks


def broken() -> dict[str, bytes]:
    """What PngSuite's x files have, and more."""
    png = noise(2, 8)
    good = png.encode()
    parts = dict(png.parts())

    def with_header(*values: int) -> bytes:
        return good.replace(chunk(b"IHDR", parts[b"IHDR"]), chunk(b"IHDR", struct.pack(">IIBBBBB", *values)))

    names = {
        "signature begins with another byte": b"\x88" + good[1:],
        "signature is lower case": good.replace(b"PNG", b"png", 1),
        "line ends were changed": good.replace(b"\r\n", b"\n", 1),
        "line feeds were changed": good.replace(b"\n", b"\r", 1),
        "crc of the header": good[:29] + b"\0\0\0\0" + good[33:],
        "no pixels": good.replace(chunk(b"IDAT", parts[b"IDAT"]), b""),
        "no header": SIGNATURE + good[33:],
        "pixels are no zlib stream": good.replace(chunk(b"IDAT", parts[b"IDAT"]), chunk(b"IDAT", b"not compressed")),
        "too few pixels": good.replace(
            chunk(b"IDAT", parts[b"IDAT"]), chunk(b"IDAT", zlib.compress(png.raw()[: len(png.raw()) // 2]))
        ),
        "an unknown filter": good.replace(
            chunk(b"IDAT", parts[b"IDAT"]), chunk(b"IDAT", zlib.compress(b"\7" + png.raw()[1:]))
        ),
    }
    for depth in (0, 3, 99):
        names[f"a depth of {depth}"] = with_header(11, 9, depth, 2, 0, 0, 0)
    for color in (1, 5, 9):
        names[f"colour type {color}"] = with_header(11, 9, 8, color, 0, 0, 0)
    for size in ((0, 9), (11, 0), (2**31 - 1, 2**31 - 1), (2**32 - 1, 1), (20_000, 20_000), (60_000, 60_000)):
        names[f"a size of {size[0]}x{size[1]}"] = with_header(*size, 8, 2, 0, 0, 0)
    for length in (1, 8, 20, 33, 60, len(good) // 2, len(good) - 60):
        names[f"cut after {length}"] = good[:length]
    deep = noise(6, 16).encode()
    for length in (60, len(deep) // 2, len(deep) - 20):
        names[f"16 bits cut after {length}"] = deep[:length]
    names["16 bits, crc"] = deep[:100] + bytes([deep[100] ^ 255]) + deep[101:]
    names["no palette"] = replace(noise(3, 4), palette=[]).encode()
    return names


BROKEN = broken()


@pytest.mark.parametrize("level", [0, 6])
@pytest.mark.parametrize("depth", [8, 16])
def test_a_changed_pixel_is_noticed(level: int, depth: int, tmp_path: Path) -> None:
    """By the checksum of the compressed data, even if that of the chunk was made again."""
    png = replace(noise(2, depth), level=level)
    data = next(data for kind, data in png.parts() if kind == b"IDAT")
    changed = data[:40] + bytes([data[40] ^ 1]) + data[41:]
    with pytest.raises(ImageError, match="cannot be read"):
        read(tmp_path, png.encode().replace(chunk(b"IDAT", data), chunk(b"IDAT", changed)))


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_one_clear_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"a\.png") as raised:
        read(tmp_path, BROKEN[name])
    assert "\n" not in raised.value.message
    assert len(raised.value.message) < 400


def test_a_file_that_claims_too_much_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="60000x60000, more than 500 megapixels") as raised:
        read(tmp_path, BROKEN["a size of 60000x60000"])
    assert "cut it into parts" in raised.value.hint
    with pytest.raises(ImageError, match="bytes are too few for 20000x20000 pixels"):
        images.probe(tmp_path / "a.png") if read(tmp_path, BROKEN["a size of 20000x20000"]) else None


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_a_tiff_that_claims_too_much(compression: str, tmp_path: Path) -> None:
    Image.new("L", (16, 16)).save(tmp_path / "a.tif", compression=compression)
    data = (tmp_path / "a.tif").read_bytes()
    for tag in (256, 257):  # width and height: a short of 16
        entry = struct.pack("<HHII", tag, 4, 1, 16), struct.pack("<HHII", tag, 3, 1, 16)
        data = data.replace(entry[0], struct.pack("<HHII", tag, 4, 1, 20000))
        data = data.replace(entry[1], struct.pack("<HHII", tag, 4, 1, 20000))
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(ImageError, match="bytes are too few for 20000x20000 pixels"):
        images.probe(tmp_path / "a.tif")


def whole() -> list[tuple[str, bytes]]:
    """One good file of every kind."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 31, 4), np.uint8))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    files = []
    for suffix, mode, options in (
        ("jpg", "RGB", {"exif": exif, "dpi": (300, 300)}),
        ("jpg", "L", {"progressive": True}),
        ("jpg", "CMYK", {}),
        ("webp", "RGBA", {"lossless": True, "exif": exif}),
        ("webp", "RGB", {}),
        ("bmp", "RGB", {}),
        ("bmp", "P", {}),
        ("tif", "RGB", {"compression": "tiff_lzw"}),
        ("tif", "1", {"compression": "group4"}),
        ("tif", "RGBA", {"exif": exif}),
        ("tif", "L", {"compression": "packbits"}),
    ):
        buffer = io.BytesIO()
        image.convert(mode).save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix), **options)
        files.append((suffix, buffer.getvalue()))
    files += [("png", replace(noise(*kind), filter=5, chunks=ODD[:1]).encode()) for kind in KINDS]
    return files


EXIF = Image.Exif()
EXIF.update({0x0112: 6, 0x010F: "a camera", 0x011A: 300.0, 0x011B: 300.0, 0x0128: 2, 0x0100: 11, 0x013B: "Zoë"})
EXIF[0x8769] = {0x9003: "2026:01:02 03:04:05", 0xA002: 11, 0xA003: 9, 0x927C: bytes(40), 0x829A: 0.01}
EXIF[0x8825] = {1: "N", 2: (52.0, 31.0, 12.5)}
XMP = provenance.embed(b"", Provenance("d", "m", "0", "ddim", "auto", "", 1, 0.0, 1, 0.0, 1, 4.0, 416, "fp32", "a.png"))
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
CHECK = """
import sys
from pathlib import Path
from dreamsr.errors import ImageError
from dreamsr.files import images, limits

limits.lift()
read = 0
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        images.probe(path)
        picture = images.read(path)
        read += 1
        for suffix in ("png", "tif", "webp", "bmp" if picture.alpha is None else "png"):
            images.write(Path(sys.argv[1]).parent / f"out.{suffix}", picture)
    except ImageError as error:
        assert chr(10) not in error.message, error.message
print(read)
"""


@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_damaged_files_are_read_or_refused(count: int, tmp_path: Path) -> None:
    """In a process of its own: no crash, no hang, and nothing but the answer on stdout and stderr."""
    (tmp_path / "in").mkdir()
    good = [*whole(), *sixteen_bit_tiffs(tmp_path)]
    for i in range(count):
        suffix, data = good[i % len(good)]
        (tmp_path / "in" / f"{i:04}.{suffix}").write_bytes(mutated(data, i))
    assert 0 < read_in_a_process(tmp_path / "in", 20 + count / 10) < count


@pytest.mark.parametrize("count", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_damaged_metadata_does_not_cost_the_picture(count: int, tmp_path: Path) -> None:
    """Whole pixels with odd blocks beside them are read, and written again in every format."""
    (tmp_path / "in").mkdir()
    pixels = Image.fromarray(np.zeros((9, 11, 3), np.uint8))
    for i in range(count):
        options: dict[str, Any] = {
            "exif": mutated(EXIF.tobytes(), i),
            "xmp": mutated(XMP, i),
            "icc_profile": mutated(PROFILE, i),
        }
        chosen = dict([sorted(options.items())[i % 3]])
        pixels.save(tmp_path / "in" / f"{i:04}.{'jpg' if i % 2 else 'webp'}", **chosen)
    assert read_in_a_process(tmp_path / "in", 20 + count / 10) == count


def read_in_a_process(folder: Path, seconds: float) -> int:
    """How many files below `folder` could be read and written again."""
    command = [sys.executable, "-c", CHECK, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return int(done.stdout)


def sixteen_bit_tiffs(folder: Path) -> list[tuple[str, bytes]]:
    files = []
    for gray, alpha in ((True, False), (True, True), (False, False), (False, True)):
        x = torch.rand(4, 24, 31) * 2 - 1
        images.write(folder / "a.tif", images.Picture(x[:3], x[3:] if alpha else None, gray, depth=16))
        files.append(("tif", (folder / "a.tif").read_bytes()))
    return files
