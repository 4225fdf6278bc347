"""Pictures of every kind in files of every format, and what is refused."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import photo
from PIL import Image
from pngs import chunk, noise

from dreamsr.errors import ImageError
from dreamsr.files import images
from dreamsr.files.heif import remarks
from dreamsr.files.images import Picture

LOSSLESS = [(suffix, depth) for suffix in ("png", "tif", "tiff") for depth in (8, 16)] + [("webp", 8), ("bmp", 8)]


def picture(gray: bool = False, alpha: bool = False, depth: int = 8, size: tuple[int, int] = (18, 23)) -> Picture:
    """Noise over the whole range, at whole levels."""
    levels = torch.randint(0, 2**depth, (4, *size), generator=torch.Generator().manual_seed(0))
    levels[:, -1, -1], levels[:, 0, 0] = 2**depth - 1, 0
    levels[3, 0, 0] = 100  # alpha that is 255 everywhere is none to WebP
    x = (levels.double() / (2**depth - 1) * 2 - 1).float()
    return Picture(x[:1].expand(3, -1, -1) if gray else x[:3], x[3:] if alpha else None, gray, depth=depth)


@pytest.mark.parametrize(("suffix", "depth"), LOSSLESS)
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("size", [(18, 23), (1, 1), (1, 40), (40, 1)])
def test_lossless_formats_give_back_what_they_got(
    suffix: str, depth: int, gray: bool, alpha: bool, size: tuple[int, int], tmp_path: Path
) -> None:
    if alpha and suffix == "bmp":
        return
    given = picture(gray, alpha, depth, size)
    images.write(tmp_path / f"a.{suffix}", given)
    got = images.read(tmp_path / f"a.{suffix}")
    assert got.depth == depth
    assert got.lossless
    assert got.gray == (gray and suffix != "webp")  # which knows no gray
    half_a_level = 0.5 / (2**depth - 1)
    assert (got.color - given.color).abs().max() < half_a_level
    if given.alpha is not None:
        assert got.alpha is not None
        assert (got.alpha - given.alpha).abs().max() < half_a_level
    header = images.probe(tmp_path / f"a.{suffix}")
    assert (header.size, header.depth, header.alpha) == (size, depth, alpha)
    assert header.format == {"tif": "TIFF", "tiff": "TIFF"}.get(suffix, suffix.upper())


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("depth", [8, 16])
def test_tiff_is_what_other_programs_read(gray: bool, depth: int, tmp_path: Path) -> None:
    given = picture(gray, False, depth, (700, 900))  # several strips
    images.write(tmp_path / "a.tif", given)
    with Image.open(tmp_path / "a.tif") as image:
        assert image.mode == ("RGB" if not gray else "L" if depth == 8 else "I;16")
        # of 16-bit colour Pillow keeps the upper half
        pixels = np.asarray(image).reshape(700, 900, -1) >> (8 if image.mode == "I;16" else 0)
    expected = ((given.color[: pixels.shape[2]].double() + 1) / 2 * (2**depth - 1)).round().long() >> (depth - 8)
    assert np.array_equal(pixels, expected.permute(1, 2, 0))


@pytest.mark.parametrize("alpha", [False, True])
def test_16_bit_png_is_what_other_programs_read(alpha: bool, tmp_path: Path) -> None:
    given = picture(False, alpha, 16, (70, 90))
    images.write(tmp_path / "a.png", given)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == ("RGBA" if alpha else "RGB")
        pixels = np.asarray(image)[..., :3]
    assert np.array_equal(pixels, (((given.color.double() + 1) / 2 * 65535).round().long() >> 8).permute(1, 2, 0))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 2}, {"optimize": True}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg(options: dict[str, Any], mode: str, tmp_path: Path) -> None:
    image = images.to_pil(Picture(photo("chelsea")[:, :41, :62])).convert(mode)
    image.save(tmp_path / "a.jpg", quality=98, **options)
    got = images.read(tmp_path / "a.jpg")
    assert (got.gray, got.lossless) == (mode == "L", False)
    assert np.abs(np.asarray(images.to_pil(got), int) - np.asarray(image, int)).mean() < 2


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
def test_webp_stays_lossy_or_lossless(lossless: bool, alpha: bool, tmp_path: Path) -> None:
    image = images.to_pil(Picture(photo("chelsea")[:, :40, :60], torch.zeros(1, 40, 60) if alpha else None))
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    image.save(tmp_path / "a.webp", lossless=lossless, exif=exif, icc_profile=b"of an odd length.")
    got = images.read(tmp_path / "a.webp")
    assert got.lossless == lossless
    images.write(tmp_path / "b.webp", got)
    images.write(tmp_path / "c.webp", got, quality=50)
    assert images.read(tmp_path / "b.webp").lossless == lossless
    assert not images.read(tmp_path / "c.webp").lossless
    assert (tmp_path / "c.webp").stat().st_size < (tmp_path / "b.webp").stat().st_size


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
def test_avif(gray: bool, alpha: bool, tmp_path: Path) -> None:
    """Lossy in colours, nearly not in alpha; grays stay grays, beside alpha as colours that are equal."""
    color = photo("chelsea")[:, :41, :62]
    ramp = torch.linspace(-1, 1, 62).expand(1, 41, 62)
    given = Picture(color.mean(0).expand(3, -1, -1) if gray else color, ramp if alpha else None, gray)
    images.write(tmp_path / "a.avif", given)
    got = images.read(tmp_path / "a.avif")
    assert (got.gray, got.lossless, got.remarks) == (gray and not alpha, False, ())
    assert (got.color - given.color).abs().mean() * 127.5 < 2
    if gray:
        assert torch.equal(got.color[0], got.color[2])
    if alpha:
        assert got.alpha is not None
        assert (got.alpha - ramp).abs().max() * 127.5 < 4
    images.write(tmp_path / "b.avif", given, quality=40)
    assert (tmp_path / "b.avif").stat().st_size < (tmp_path / "a.avif").stat().st_size * 0.6


def avif(depth: int = 8, points: tuple[int, int, int] = (1, 13, 6)) -> bytes:
    """A file of 8 bits whose boxes say something else of its depth and its colours."""
    buffer = io.BytesIO()
    images.to_pil(Picture(photo("chelsea")[:, :41, :62])).save(buffer, "AVIF")
    data = buffer.getvalue()
    place = data.index(b"av1C") + 6
    flags = data[place] | {8: 0, 10: 0x40, 12: 0x60}[depth]
    data = data[:place] + bytes([flags]) + data[place + 1 :]
    return data.replace(b"nclx\0\1\0\x0d\0\6", b"nclx" + struct.pack(">3H", *points))


@pytest.mark.parametrize(
    ("depth", "points", "expected"),
    [
        (8, (1, 13, 6), ()),
        (8, (2, 2, 2), ()),
        (8, (1, 1, 1), ()),
        (8, (9, 16, 9), ("CICP 9-16-9 is not kept",)),
        (10, (12, 13, 6), ("10 bits reduced to 8", "CICP 12-13-6 is not kept")),
        (12, (1, 13, 6), ("12 bits reduced to 8",)),
    ],
)
def test_what_avif_holds_and_is_not_kept_is_said(
    depth: int, points: tuple[int, int, int], expected: tuple[str, ...]
) -> None:
    assert remarks(io.BytesIO(avif(depth, points)), b"") == expected
    assert remarks(io.BytesIO(avif(depth, points)), b"a profile") == tuple(x for x in expected if "bits" in x)


def test_boxes_that_are_cut_say_nothing() -> None:
    data = avif(10)
    flags = data.index(b"av1C") + 6
    assert remarks(io.BytesIO(data[: flags + 1]), b"") == ("10 bits reduced to 8",)
    for end in range(flags + 1):
        assert remarks(io.BytesIO(data[:end]), b"") == (), end


def test_a_box_without_a_size_is_the_last() -> None:
    data = avif(10)
    start = data.index(b"meta") - 4
    assert remarks(io.BytesIO(data[:start] + bytes(4) + data[start + 4 :]), b"") == ("10 bits reduced to 8",)
    size = int.from_bytes(data[start : start + 4], "big")
    wide = struct.pack(">I4sQ", 1, b"meta", size + 8)
    assert remarks(io.BytesIO(data[:start] + wide + data[start + 8 :]), b"") == ("10 bits reduced to 8",)
    assert remarks(io.BytesIO(data[:start] + struct.pack(">I", 5) + data[start + 4 :]), b"") == ()


def test_quality_is_that_of_jpeg_too(tmp_path: Path) -> None:
    given = Picture(photo("chelsea")[:, :64, :64])
    for quality in (None, 95, 30):
        images.write(tmp_path / f"{quality}.jpg", given, quality)
    assert (tmp_path / "None.jpg").read_bytes() == (tmp_path / "95.jpg").read_bytes()
    assert (tmp_path / "30.jpg").stat().st_size < (tmp_path / "95.jpg").stat().st_size / 2


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "packbits", "tiff_adobe_deflate"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_tiff_of_other_programs(compression: str | None, mode: str, tmp_path: Path) -> None:
    image = images.to_pil(picture(alpha=True)).convert(mode)
    image.save(tmp_path / "a.tif", compression=compression)
    got = images.read(tmp_path / "a.tif")
    expected = image.convert({"1": "L", "P": "RGB"}.get(mode, mode))
    assert np.array_equal(np.asarray(images.to_pil(got)), np.asarray(expected))
    assert got.remarks == ()
    assert images.probe(tmp_path / "a.tif").mode == mode


def test_jpeg_in_tiff_is_lossy(tmp_path: Path) -> None:
    images.to_pil(picture()).save(tmp_path / "a.tif", compression="jpeg")
    assert not images.read(tmp_path / "a.tif").lossless


def tiff(pixels: np.typing.NDArray[np.generic], **tags: Any) -> bytes:
    """A file of scikit-image's own writer, which knows all kinds."""
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **tags)
    return buffer.getvalue()


SIXTEEN = np.random.default_rng(0).integers(0, 65536, (12, 15, 4), np.uint16)


@pytest.mark.parametrize(
    ("photometric", "mode", "depth"),
    [("separated", "CMYK", 8), ("separated", "CMYK", 16), ("rgb", "RGB", 8), ("minisblack", "L", 16)],
)
def test_channels_that_are_not_kept_are_said(photometric: str, mode: str, depth: int, tmp_path: Path) -> None:
    pixels = np.dstack([SIXTEEN, SIXTEEN])[..., : len(mode) + 1] >> (16 - depth)
    extra = {"photometric": photometric, "planarconfig": "contig", "extrasamples": ["unspecified"]}
    (tmp_path / "a.tif").write_bytes(tiff(pixels.astype(f"u{depth // 8}"), **extra))
    got = images.read(tmp_path / "a.tif")
    assert f"channels beyond {mode} are left out" in got.remarks
    assert got.depth == (8 if mode == "CMYK" else depth)  # inks become colours of 8 bits


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_16_bit_tiff_of_other_programs(
    byteorder: str, planar: str, big: bool, compression: str | None, tmp_path: Path
) -> None:
    pixels = SIXTEEN[..., :3] if planar == "contig" else np.moveaxis(SIXTEEN[..., :3], 2, 0).copy()
    options: dict[str, Any] = {"photometric": "rgb", "planarconfig": planar, "byteorder": byteorder, "bigtiff": big}
    (tmp_path / "a.tif").write_bytes(tiff(pixels, **options, compression=compression))
    if big and byteorder == ">":
        with pytest.raises(ImageError, match="is a big-endian BigTIFF"):
            images.read(tmp_path / "a.tif")
        return
    got = images.read(tmp_path / "a.tif")
    assert got.depth == 16
    assert np.array_equal(levels(got), SIXTEEN[..., :3])


def levels(got: Picture) -> np.typing.NDArray[np.int64]:
    """16-bit colour (H, W, 3)."""
    return np.asarray(((got.color.double() + 1) / 2 * 65535).round().long().permute(1, 2, 0))


def test_16_bit_gray_may_be_white_at_zero(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(SIXTEEN[..., 0], photometric="miniswhite"))
    assert np.array_equal(levels(images.read(tmp_path / "a.tif"))[..., 0], 65535 - SIXTEEN[..., 0].astype(int))


def test_premultiplied_alpha_is_divided_out(tmp_path: Path) -> None:
    alpha = np.full((12, 15, 1), 32768, np.uint16)
    pixels = np.concatenate([SIXTEEN[..., :3] // 2, alpha], 2)
    (tmp_path / "a.tif").write_bytes(tiff(pixels, photometric="rgb", extrasamples=["assocalpha"]))
    assert np.abs(levels(images.read(tmp_path / "a.tif")) - SIXTEEN[..., :3]).max() <= 2


def test_a_fourth_channel_that_is_no_alpha_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(SIXTEEN, photometric="rgb", extrasamples=["unspecified"]))
    got = images.read(tmp_path / "a.tif")
    assert got.alpha is None
    assert np.array_equal(levels(got), SIXTEEN[..., :3])


def test_a_reduced_copy_is_no_second_page(tmp_path: Path) -> None:
    import tifffile

    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(SIXTEEN[..., :3], photometric="rgb")
        file.write(SIXTEEN[::2, ::2, :3].copy(), photometric="rgb", subfiletype=1)
    assert np.array_equal(levels(images.read(tmp_path / "a.tif")), SIXTEEN[..., :3])


def animated(kind: str) -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


REFUSED = {
    "animated.png": (animated("PNG"), "is animated"),
    "animated.webp": (animated("WEBP"), "is animated"),
    "animated.avif": (animated("AVIF"), "is animated"),
    "pages.tif": (animated("TIFF"), "has 2 pages"),
    "float.tif": (tiff(SIXTEEN.astype(np.float32)[..., 0]), "32-bit float samples of L"),
    "half.tif": (tiff(SIXTEEN[..., :3].astype(np.float16), photometric="rgb"), "16-bit float samples of RGB"),
    "signed.tif": (tiff(SIXTEEN.astype(np.int16)[..., 0]), "16-bit signed samples of L"),
    "long.tif": (tiff(SIXTEEN.astype(np.uint32)[..., 0]), "32-bit integer samples of L"),
    "lab.tif": (tiff(SIXTEEN[..., :3].astype(np.uint8), photometric="cielab"), "samples of other colours"),
    "a.gif": (b"GIF89a" + bytes(100), "is not a PNG, JPEG, WebP, AVIF, HEIC, TIFF or BMP picture"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_upscaled_is_told_why(name: str, tmp_path: Path) -> None:
    data, words = REFUSED[name]
    (tmp_path / name).write_bytes(data)
    for function in (images.read, images.probe):
        with pytest.raises(ImageError, match=words) as raised:
            function(tmp_path / name)
        assert "\n" not in raised.value.message


def test_an_animation_of_one_frame_is_a_picture(tmp_path: Path) -> None:
    frame = struct.pack(">5I2H2B", 0, 11, 9, 0, 0, 1, 1, 0, 0)
    control = chunk(b"acTL", struct.pack(">2I", 1, 0)) + chunk(b"fcTL", frame)
    data = noise(2, 8).encode()
    (tmp_path / "a.png").write_bytes(data[:33] + control + data[33:])
    assert images.read(tmp_path / "a.png").size == (9, 11)


@pytest.mark.parametrize(
    ("suffix", "size", "alpha", "depth", "words"),
    [
        (".png", (70_000, 9), True, 16, ""),
        (".tif", (70_000, 9), True, 16, ""),
        (".JPG", (65_500, 65_500), False, 8, ""),
        (".jpg", (9, 65_501), False, 8, "JPEG holds at most 65500 pixels a side"),
        (".jpeg", (9, 9), True, 8, "JPEG has no transparency"),
        (".jpg", (9, 9), False, 16, "JPEG holds 8 bits"),
        (".webp", (16_383, 9), True, 8, ""),
        (".webp", (16_384, 9), True, 8, "WebP holds at most 16383 pixels a side"),
        (".webp", (9, 9), False, 16, "WebP holds 8 bits"),
        (".avif", (32_768, 8_192), True, 8, ""),
        (".avif", (32_769, 9), True, 8, "AVIF holds at most 32768 pixels a side"),
        (".avif", (20_000, 20_000), True, 8, "AVIF holds at most 268 megapixels"),
        (".avif", (9, 9), False, 16, "AVIF holds 8 bits"),
        (".bmp", (9, 9), True, 8, "BMP has no transparency"),
        (".tiff", (40_000, 40_000), False, 16, "TIFF holds at most 4 GiB"),
        (".tiff", (2**31, 1), False, 8, "TIFF holds at most 2147483647 pixels a side"),
        (".bmp", (1, 2**31 - 1), False, 8, ""),
        (".bmp", (1, 2**31), False, 8, "BMP holds at most 2147483647 pixels a side"),
        (".png", (2**31 - 1, 1), True, 16, ""),
        (".png", (2**31, 1), True, 16, "PNG holds at most 2147483647 pixels a side"),
    ],
)
def test_what_a_format_can_hold(suffix: str, size: tuple[int, int], alpha: bool, depth: int, words: str) -> None:
    assert images.obstacle(suffix, size, alpha, depth) == words


def test_the_limits_are_those_of_the_encoders(tmp_path: Path) -> None:
    for suffix, side in ((".jpg", 65_500), (".webp", 16_383), (".avif", 32_768)):
        images.write(tmp_path / f"a{suffix}", Picture(torch.zeros(3, 1, side), lossless=False))
        assert images.probe(tmp_path / f"a{suffix}").size == (1, side)
        with pytest.raises(ImageError, match="holds at most"):
            images.write(tmp_path / f"b{suffix}", Picture(torch.zeros(3, 1, side + 1)))
    assert not list(tmp_path.glob("b*"))


@pytest.mark.parametrize("suffix", ["jpg", "webp", "avif", "bmp"])
def test_16_bits_in_8_are_said(suffix: str, tmp_path: Path) -> None:
    assert images.write(tmp_path / f"a.{suffix}", picture(depth=16)) == ("16 bits reduced to 8",)
    assert images.read(tmp_path / f"a.{suffix}").depth == 8


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("gray", [False, True])
def test_16_bits_are_reduced_in_16(alpha: bool, gray: bool) -> None:
    ramp = torch.linspace(-1, 1, 256).expand(3, 64, 256)
    large = Picture(ramp, ramp[:1] if alpha else None, gray, depth=16)
    small = images.resize(large, (16, 64))
    assert (small.color[0, 8, 4:-4] - ramp[0, 0].view(64, 4).mean(1)[4:-4]).abs().max() < 1 / 65535
    assert len(small.color[0, 8].unique()) == 64
    assert (small.alpha is not None) == alpha


NAMES = [
    "größe.png",
    "日本語.tif",
    "a b [1](2).png",
    "x[strip=true].tif",
    "emoji\U0001f600.jpg",
    "UPPER.TIFF",
    "dot.dot.webp",
    "n" * 251 + ".png",
    "名" * 83 + ".tif",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_all_kinds(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "Ordner mit Ümlaut"
    deep = picture(depth=16 if Path(name).suffix.lower() in (".png", ".tif", ".tiff") else 8)
    images.write(folder / name, deep)
    assert images.read(folder / name).depth == deep.depth
    assert images.find(folder) == [folder / name]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_the_content_counts_and_not_the_name(kind: str, suffix: str, tmp_path: Path) -> None:
    images.to_pil(picture()).save(tmp_path / f"a.{suffix}", kind)
    assert images.probe(tmp_path / f"a.{suffix}").format == kind
    assert images.read(tmp_path / f"a.{suffix}").size == (18, 23)


def test_a_file_can_be_replaced_after_it_was_read(tmp_path: Path) -> None:
    """Nothing is kept open or remembered."""
    for value in (0.0, 0.5):
        images.write(tmp_path / "a.tif", Picture(torch.full((3, 8, 8), value), depth=16))
        assert images.read(tmp_path / "a.tif").color.mean() == pytest.approx(value, abs=1e-4)


def test_a_folder_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ImageError, match="cannot be read"):
        images.read(tmp_path / "a.png")


@pytest.mark.parametrize(("suffix", "depth"), [("png", 8), ("png", 16), ("jpg", 8), ("tif", 16), ("bmp", 8)])
def test_the_header_is_enough_for_a_probe(suffix: str, depth: int, tmp_path: Path) -> None:
    """Of a file that has lost its pixels, all but the pixels can be told."""
    path = tmp_path / f"a.{suffix}"
    images.write(path, picture(depth=depth, size=(90, 110)))
    path.write_bytes(path.read_bytes()[:1500])
    header = images.probe(path)
    assert (header.size, header.depth, header.mode, header.alpha) == ((90, 110), depth, "RGB", False)
    with pytest.raises(ImageError, match="cannot be read"):
        images.read(path)
