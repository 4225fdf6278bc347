"""What files say about their pixels, on its way to a larger picture."""

import io
import struct
import time
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import photo
from PIL import ExifTags, Image, ImageCms, TiffTags
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import IFDRational

from dreamsr.files import images, metadata, provenance
from dreamsr.files.images import Metadata, Picture

EXIF, GPS, THUMBNAIL = ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.IFD1
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    b'xmlns:exif="http://ns.adobe.com/exif/1.0/" tiff:Orientation="6" exif:PixelXDimension="24" tiff:Make="Cam">'
    b"<tiff:ImageWidth>24</tiff:ImageWidth><exif:PixelYDimension>18</exif:PixelYDimension></rdf:Description>"
    b"</rdf:RDF></x:xmpmeta>"
)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
KINDS = [("png", 8), ("png", 16), ("tif", 8), ("tif", 16), ("jpg", 8), ("webp", 8), ("avif", 8)]


def exif(orientation: int = 1) -> Image.Exif:
    """As a camera writes it, with a thumbnail."""
    block = Image.Exif()
    block[0x0100], block[0x0101], block[0x0112], block[0x010F] = 24, 18, orientation, "a camera"
    block[0x013B] = "Zoë".encode()
    block.get_ifd(EXIF).update({0x9003: "2026:01:02 03:04:05", 0xA002: 24, 0xA003: 18, 0x829A: IFDRational(1, 250)})
    block.get_ifd(EXIF).update({0xA005: {1: "R98"}, 0xA430: "owner"})
    block.get_ifd(GPS).update({1: "N", 2: (52.0, 31.0, 12.5), 0x12: "Zoë".encode()})
    return block


def with_thumbnail(block: bytes) -> bytes:
    """EXIF with a second directory, which holds a JPEG."""
    body = bytearray(block[6:])
    assert body[:4] == b"MM\0*"
    count = int.from_bytes(body[8:10], "big")
    end = 10 + 12 * count
    body[end : end + 4] = len(body).to_bytes(4, "big")
    start = len(body) + 2 + 2 * 12 + 4
    body += (2).to_bytes(2, "big")
    body += b"\x02\x01\0\4\0\0\0\1" + start.to_bytes(4, "big") + b"\x02\x02\0\4\0\0\0\1" + (14).to_bytes(4, "big")
    return block[:6] + bytes(body) + bytes(4) + b"\xff\xd8a thumbnail\xff\xd9"[:14]


def pixels(depth: int = 8) -> Picture:
    return Picture(photo("chelsea")[:, 100:118, 100:124], depth=depth)


def opened(path: Path) -> Image.Image:
    image = Image.open(io.BytesIO(path.read_bytes()))
    image.load()
    return image


def test_the_thumbnail_of_these_tests_is_one() -> None:
    block = Image.Exif()
    block.load(with_thumbnail(exif().tobytes()))
    assert block.get_ifd(THUMBNAIL)[0x0202] == 14


@pytest.mark.parametrize(("suffix", "depth"), KINDS)
def test_everything_follows_the_picture(suffix: str, depth: int, tmp_path: Path) -> None:
    """Written, read, made four times as large, written and read by Pillow."""
    path = tmp_path / f"a.{suffix}"
    written = exif().tobytes().replace(b"owner", "Zoë!".encode())  # as cameras do, in UTF-8 by the name of ASCII
    block = Metadata(PROFILE, with_thumbnail(written), XMP.replace(b'"6"', b'"1"'), (300, 150))
    images.write(path, Picture(pixels().color, metadata=block, depth=depth))
    picture = images.read(path)
    assert picture.depth == depth
    large = images.enlarged(picture, torch.zeros(3, 72, 96))
    remarks = images.write(tmp_path / f"b.{suffix}", large)
    assert (picture.remarks, remarks) == ((), ())
    result = opened(tmp_path / f"b.{suffix}")
    assert result.size == (96, 72)
    assert result.info["icc_profile"] == PROFILE
    got = result.getexif()
    assert (got[0x0100], got[0x0101], got.get(0x0112, 1)) == (96, 72, 1)
    assert got[0x010F] == "a camera"
    inner = got.get_ifd(EXIF)
    for text in (got[0x013B], got.get_ifd(GPS)[0x12]):
        assert text.encode("latin-1") == "Zoë".encode()
    assert inner[0xA430].encode("latin-1") == "Zoë!".encode()
    assert (inner[0xA002], inner[0xA003], inner[0x9003]) == (96, 72, "2026:01:02 03:04:05")
    assert inner[0x829A] == IFDRational(1, 250)
    assert got.get_ifd(0xA005)[1] == "R98"
    assert got.get_ifd(GPS)[2] == (52.0, 31.0, 12.5)
    assert got.get_ifd(THUMBNAIL) == {}
    assert b"a thumbnail" not in (tmp_path / f"b.{suffix}").read_bytes()
    xmp = result.info["xmp"]
    assert b'PixelXDimension="96"' in xmp
    assert b"<tiff:ImageWidth>96<" in xmp
    assert b"<exif:PixelYDimension>72<" in xmp
    assert b'tiff:Make="Cam"' in xmp
    assert images.read(tmp_path / f"b.{suffix}").metadata.dpi == pytest.approx((1200, 600), abs=0.06)


@pytest.mark.parametrize(("suffix", "depth"), KINDS[1:])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_every_format(suffix: str, depth: int, orientation: int, tmp_path: Path) -> None:
    base = pixels(depth)
    images.write(tmp_path / "a.png", base)
    block = Metadata(exif=exif(orientation).tobytes(), dpi=(300, 150))
    images.write(tmp_path / f"b.{suffix}", Picture(base.color, depth=depth, metadata=block))
    picture = images.read(tmp_path / f"b.{suffix}")
    turned = [base.color, base.color.flip(2), base.color.flip(1, 2), base.color.flip(1)]
    turned += [x.transpose(1, 2) for x in (turned[0], turned[3], turned[2], turned[1])]
    expected = turned[orientation - 1]
    assert picture.size == images.probe(tmp_path / f"b.{suffix}").size == tuple(expected.shape[1:])
    assert (picture.color - expected).abs().max() < (0.5 if suffix in ("jpg", "avif") else 0.01)
    assert picture.metadata.dpi == pytest.approx((150, 300) if orientation > 4 else (300, 150), abs=0.02)
    images.write(tmp_path / "c.png", picture)
    assert opened(tmp_path / "c.png").getexif().get(0x0112, 1) == 1


def test_orientation_that_only_xmp_knows_is_applied_once(tmp_path: Path) -> None:
    image = images.to_pil(pixels())
    image.save(tmp_path / "a.jpg", xmp=XMP, quality=95)
    picture = images.read(tmp_path / "a.jpg")
    assert picture.size == (24, 18)
    images.write(tmp_path / "b.jpg", picture)
    assert b'tiff:Orientation="1"' in opened(tmp_path / "b.jpg").info["xmp"]
    assert images.read(tmp_path / "b.jpg").size == (24, 18)


@pytest.mark.parametrize("depth", [8, 16])
def test_png_has_the_nearest_whole_dots_per_metre(depth: int, tmp_path: Path) -> None:
    """72 an inch are 2834.6."""
    images.write(tmp_path / "a.png", Picture(pixels().color, metadata=Metadata(dpi=(72, 72)), depth=depth))
    assert images.read(tmp_path / "a.png").metadata.dpi == pytest.approx((2835 * 0.0254,) * 2)


@pytest.mark.parametrize("scale", [2, 4])
def test_dots_per_inch_follow_reductions_too(scale: int, tmp_path: Path) -> None:
    images.write(tmp_path / "a.jpg", Picture(pixels().color, metadata=Metadata(dpi=(72, 72))))
    large = images.enlarged(images.read(tmp_path / "a.jpg"), torch.zeros(3, 72, 96))
    images.write(tmp_path / "b.jpg", images.resize(large, (18 * scale, 24 * scale)))
    assert opened(tmp_path / "b.jpg").info["dpi"] == (72 * scale, 72 * scale)


@pytest.mark.parametrize(("suffix", "depth"), [*KINDS, ("bmp", 8)])
def test_no_dots_per_inch_stay_none(suffix: str, depth: int, tmp_path: Path) -> None:
    block = Image.Exif()
    block[0x010F] = "a camera"
    images.write(
        tmp_path / f"a.{suffix}", Picture(pixels().color, depth=depth, metadata=Metadata(exif=block.tobytes()))
    )
    assert images.read(tmp_path / f"a.{suffix}").metadata.dpi is None


@pytest.mark.parametrize("dpi", [(0.0, 300.0), (1e9, 1e9), (float("nan"), 1.0)])
def test_senseless_dots_per_inch_are_left_out(dpi: tuple[float, float], tmp_path: Path) -> None:
    block = Image.Exif()
    block[0x011A], block[0x011B], block[0x0128] = *((x if x == x else 0.0) for x in dpi), 2
    images.to_pil(pixels()).save(tmp_path / "a.png", exif=block)
    picture = images.read(tmp_path / "a.png")
    assert picture.metadata.dpi is None
    huge = Picture(torch.zeros(3, 2, 2), metadata=Metadata(dpi=(60_000, 60_000)))
    for suffix in ("png", "jpg", "tif", "bmp"):
        images.write(tmp_path / f"b.{suffix}", images.enlarged(huge, torch.zeros(3, 8, 8)))


@pytest.mark.parametrize(("suffix", "depth"), KINDS)
def test_stripped_pictures_keep_their_profile_alone(suffix: str, depth: int, tmp_path: Path) -> None:
    block = Metadata(PROFILE, exif().tobytes(), XMP, (300, 300))
    picture = Picture(pixels().color, metadata=block.stripped(), depth=depth)
    images.write(tmp_path / f"a.{suffix}", picture)
    data = (tmp_path / f"a.{suffix}").read_bytes()
    for word in (b"camera", b"Cam", b"2026", b"Zo"):
        assert word not in data
    assert images.read(tmp_path / f"a.{suffix}").metadata == Metadata(icc=PROFILE)


def test_what_jpeg_cannot_hold_is_said(tmp_path: Path) -> None:
    large = Image.Exif()
    large[0x010E] = "x" * 70_000
    xmp = XMP.replace(b"Cam", b"y" * 70_000)
    remarks = images.write(
        tmp_path / "a.jpg", Picture(pixels().color, metadata=Metadata(exif=large.tobytes(), xmp=xmp))
    )
    assert remarks == ("EXIF is too long for JPEG and left out", "XMP is too long for JPEG and left out")
    assert images.read(tmp_path / "a.jpg").metadata == Metadata()
    assert (
        images.write(tmp_path / "a.png", Picture(pixels().color, metadata=Metadata(exif=large.tobytes(), xmp=xmp)))
        == ()
    )
    assert len(images.read(tmp_path / "a.png").metadata.xmp) > 70_000


def test_bmp_says_what_it_cannot_hold(tmp_path: Path) -> None:
    block = Metadata(PROFILE, exif().tobytes(), XMP, (300, 300))
    assert images.write(tmp_path / "a.bmp", Picture(pixels().color, metadata=block)) == ("BMP holds no ICC, EXIF, XMP",)
    assert images.read(tmp_path / "a.bmp").metadata.kinds == ("DPI",)


def test_what_belongs_to_the_old_pixels_is_left_behind(tmp_path: Path) -> None:
    """Photoshop's layers, and where on Earth a pixel of a GeoTIFF lies and how large it is."""
    block = exif()
    block[37724], block[33550], block[34737] = b"Adobe Photoshop Document Data Block", (0.5, 0.5, 0.0), "WGS 84"
    images.write(tmp_path / "a.tif", Picture(pixels().color, metadata=Metadata(exif=block.tobytes())))
    images.write(tmp_path / "b.tif", images.read(tmp_path / "a.tif"))
    with Image.open(tmp_path / "b.tif") as image:
        assert not {37724, 33550, 34737} & set(image.getexif())
        assert image.getexif()[0x010F] == "a camera"


def test_of_the_tags_of_tiff_those_that_describe_the_picture_are_kept() -> None:
    """Of TIFF 6.0's, but for those of a page and its place."""
    block = Image.Exif()
    for tag in {tag for tag in TiffTags.TAGS_V2 if tag <= 532} - {285, 286, 287}:
        block[tag] = "words"
    kept = Image.Exif()
    kept.load(metadata.clean(block, of_tiff=True) or b"")
    described = "DocumentName ImageDescription Make Model Software DateTime Artist HostComputer"
    assert {TiffTags.lookup(tag).name for tag in kept} == set(described.split())


def test_xmp_speaks_of_the_picture_alone(tmp_path: Path) -> None:
    """Films and gain maps that phones put behind the pixels do not come along; a panorama keeps what it shows."""
    packet = (
        b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        b'xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" '
        b'xmlns:Container="http://ns.google.com/photos/1.0/container/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
        b'xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" hdrgm:Version="1.0" GCamera:MotionPhoto="1" '
        b'GCamera:MicroVideoOffset="12345" GPano:FullPanoWidthPixels="24" GPano:CroppedAreaTopPixels="3" '
        b'GPano:ProjectionType="equirectangular" xmp:Rating="5">'
        b"<GPano:FullPanoHeightPixels>18</GPano:FullPanoHeightPixels>"
        b"<GCamera:MotionPhotoVersion>1</GCamera:MotionPhotoVersion><Container:Directory><rdf:Seq><rdf:li>"
        b'<Container:Item Item:Length="9"/></rdf:li></rdf:Seq></Container:Directory><xmp:Label>kept</xmp:Label>'
        b'</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).replace(b"xmlns:xmp=", b'xmlns:Item="http://ns.google.com/photos/1.0/container/item/" xmlns:xmp=')
    images.to_pil(pixels()).save(tmp_path / "a.jpg", xmp=packet)
    xmp = images.read(tmp_path / "a.jpg").metadata.scaled(4, 2).xmp
    for gone in (b"MotionPhoto", b"MicroVideo", b"hdrgm:Version"):
        assert gone not in xmp
    for kept in (b'FullPanoWidthPixels="96"', b'CroppedAreaTopPixels="6"', b"FullPanoHeightPixels>36<"):
        assert kept in xmp
    for kept in (b'GPano:ProjectionType="equirectangular"', b'xmp:Rating="5"', b"<xmp:Label>kept</xmp:Label>"):
        assert kept in xmp
    assert provenance.is_packet(xmp)


@pytest.mark.parametrize(
    "odd", [b'GPano:FullPanoWidthPixels="' + b"9" * 5000 + b'"', b" " * 200_000, b"<GCamera:A>" * 5000]
)
def test_hostile_xmp_takes_no_time(odd: bytes) -> None:
    xmp = b'<a xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" ' + odd + b"/>"
    start = time.perf_counter()
    assert metadata.alone(Metadata(xmp=xmp).scaled(4, 4).xmp) == xmp
    assert time.perf_counter() - start < 2  # seconds; quadratic would be a minute


@pytest.mark.parametrize("unit", [0, 1, 7])
def test_a_senseless_unit_of_resolution_spoils_no_tiff(unit: int, tmp_path: Path) -> None:
    block = exif()
    block[0x011A], block[0x011B], block[0x0128] = 72.0, 72.0, unit
    images.to_pil(pixels()).save(tmp_path / "a.png", exif=block)
    images.write(tmp_path / "b.tif", images.read(tmp_path / "a.png"))
    picture = images.read(tmp_path / "b.tif")
    assert picture.metadata.dpi is None
    with Image.open(tmp_path / "b.tif") as image:
        assert image.getexif()[0x010F] == "a camera"


@pytest.mark.parametrize("place", ["first", "last", "raw"])
def test_planning_sees_the_orientation_of_a_png(place: str, tmp_path: Path) -> None:
    block = Image.Exif()
    block[0x0112] = 6
    data = block.tobytes()
    info = PngInfo()
    if place == "raw":  # as ImageMagick writes it
        info.add_text("Raw profile type exif", f"\nexif\n{len(data):8}\n{data.hex()}\n")
    image = images.to_pil(pixels())
    image.save(tmp_path / "a.png", pnginfo=info, exif=block if place == "first" else b"")
    if place == "last":
        whole, body = (tmp_path / "a.png").read_bytes(), b"eXIf" + data.removeprefix(b"Exif\0\0")
        chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
        (tmp_path / "a.png").write_bytes(whole[:-12] + chunk + whole[-12:])
    assert images.probe(tmp_path / "a.png").size == images.read(tmp_path / "a.png").size == image.size


def test_webp_keeps_no_profile_of_grays(tmp_path: Path) -> None:
    gray = PROFILE[:16] + b"GRAY" + PROFILE[20:]
    picture = Picture(pixels().color[:1].expand(3, -1, -1), gray=True, metadata=Metadata(icc=gray))
    assert images.write(tmp_path / "a.webp", picture) == ("WebP holds no profile of grays",)
    assert images.read(tmp_path / "a.webp").metadata.icc == b""
    for suffix in ("png", "avif"):
        assert images.write(tmp_path / f"a.{suffix}", picture) == ()
        assert images.read(tmp_path / f"a.{suffix}").metadata.icc == gray
    veiled = replace(picture, alpha=torch.zeros(1, 18, 24))  # which Pillow writes as RGBA
    assert images.write(tmp_path / "b.avif", veiled) == ("AVIF holds no profile of grays",)
    assert images.read(tmp_path / "b.avif").metadata.icc == b""


def test_malformed_blocks_cost_themselves_and_are_said(tmp_path: Path) -> None:
    images.to_pil(pixels()).save(tmp_path / "a.jpg", exif=b"Exif\0\0no header at all", xmp=b"<x:xmpmeta")
    picture = images.read(tmp_path / "a.jpg")
    assert picture.remarks == ("EXIF is malformed and left out", "XMP is malformed and left out")
    assert picture.metadata == Metadata()


def inks() -> bytes:
    """A profile of inks in which cyan prints the red of sRGB, and all else nothing: Lab through a table of 2^4."""
    white, red = (255, 128, 128), (136, 208, 195)  # Lab (53.2, 80.1, 67.2)
    table = b"".join(bytes(red if corner & 8 else white) for corner in range(16))
    matrix = b"".join((65536 * (i % 4 == 0)).to_bytes(4, "big") for i in range(9))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + bytes(range(256)) * 4 + table + bytes(range(256)) * 3
    start = 128 + 4 + 12
    header = bytearray(128)
    header[0:4] = (start + len(lut)).to_bytes(4, "big")
    header[8:12], header[12:24], header[36:40] = b"\2\x10\0\0", b"prtrCMYKLab ", b"acsp"
    header[68:80] = b"\0\0\xf6\xd6\0\1\0\0\0\0\xd3\x2d"
    return (
        bytes(header) + (1).to_bytes(4, "big") + b"A2B0" + start.to_bytes(4, "big") + len(lut).to_bytes(4, "big") + lut
    )


def pale_inks() -> bytes:
    """A profile whose darkest colour, all inks, is a dark gray: Lab (25, 0, 0)."""
    ramp, start = bytes(range(256)), 128 + 4 + 2 * 12
    matrix = b"".join((65536 * (i % 4 == 0)).to_bytes(4, "big") for i in range(9))
    to_lab = b"".join(bytes((64 if corner == 15 else 255, 128, 128)) for corner in range(16))
    to_inks = b"".join(bytes(4 * [0 if corner & 4 else 255]) for corner in range(8))
    luts = [
        b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + to_lab + ramp * 3,
        b"mft1" + bytes(4) + bytes([3, 4, 2, 0]) + matrix + ramp * 3 + to_inks + ramp * 4,
    ]
    tags = struct.pack(">I", 2)
    for name, place, lut in zip((b"A2B0", b"B2A0"), (start, start + len(luts[0])), luts, strict=True):
        tags += name + struct.pack(">II", place, len(lut))
    profile = bytearray(inks()[:128]) + tags + b"".join(luts)
    profile[0:4] = struct.pack(">I", len(profile))
    return bytes(profile)


def test_the_darkest_inks_become_black(tmp_path: Path) -> None:
    """Black point compensation."""
    Image.new("CMYK", (16, 16), (255,) * 4).save(tmp_path / "a.tif", icc_profile=pale_inks())
    picture = images.read(tmp_path / "a.tif")
    assert picture.remarks == ("CMYK converted to sRGB",)
    assert images.to_bytes(picture.color)[:, 8, 8].tolist() == pytest.approx((0, 0, 0), abs=3)


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
@pytest.mark.parametrize("profile", [True, False])
def test_inks_become_colours(suffix: str, profile: bool, tmp_path: Path) -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    cyan.save(tmp_path / f"a.{suffix}", quality=100, icc_profile=inks() if profile else None)
    assert images.probe(tmp_path / f"a.{suffix}").mode == "CMYK"
    picture = images.read(tmp_path / f"a.{suffix}")
    expected = (255, 0, 0) if profile else (0, 255, 255)
    assert images.to_bytes(picture.color)[:, 8, 8].tolist() == pytest.approx(expected, abs=10)
    words = "CMYK converted to sRGB" if profile else "CMYK without a usable profile converted to RGB"
    assert picture.remarks == (words,)
    assert picture.metadata.icc == b""


def test_a_profile_that_is_none_does_not_cost_the_picture(tmp_path: Path) -> None:
    Image.new("CMYK", (9, 9)).save(tmp_path / "a.jpg", icc_profile=b"no profile")
    assert images.read(tmp_path / "a.jpg").remarks == ("CMYK without a usable profile converted to RGB",)


def test_long_profiles_and_packets_in_png(tmp_path: Path) -> None:
    """Pillow's own limit of 1 MiB of text would refuse the picture."""
    noise = np.random.default_rng(0).bytes(2**20).hex().encode()
    images.write(
        tmp_path / "a.png", Picture(pixels().color, metadata=Metadata(icc=noise, xmp=XMP.replace(b"Cam", noise)))
    )
    block = images.read(tmp_path / "a.png").metadata
    assert block.icc == noise
    assert noise in block.xmp


def test_the_first_picture_of_a_phones_file_is_read(tmp_path: Path) -> None:
    """Phones put a depth or gain map behind the photo: that is no animation."""
    first, second = images.to_pil(pixels()), Image.new("RGB", (6, 4))
    buffer = io.BytesIO()
    first.save(buffer, "MPO", save_all=True, append_images=[second], quality=100)
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    picture = images.read(tmp_path / "a.jpg")
    assert picture.size == (18, 24)
    assert picture.remarks == ("only the first of 2 pictures in it",)
