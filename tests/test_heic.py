"""HEIC, as phones write it: read through pillow-heif, written as JPEG."""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from conftest import photo
from PIL import Image, ImageCms

from dreamsr.engine import planning
from dreamsr.engine.outputs import Naming, Sizing
from dreamsr.errors import ImageError, UsageError
from dreamsr.files import heif, images
from dreamsr.files.images import Picture

CAT = images.to_pil(Picture(photo("chelsea")[:, :48, :72]))
ORIENTATION, MAKE = 0x0112, 0x010F


@pytest.fixture(autouse=True)
def _heic_for_pillow() -> None:
    pillow_heif.register_heif_opener()


def heic(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "HEIF", **{"quality": 95, "chroma": 444} | options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[ORIENTATION], block[MAKE] = orientation, "a phone"
    return block.tobytes()


def close(got: Picture, expected: Image.Image) -> bool:
    """Within what the compression loses."""
    difference = np.asarray(images.to_pil(got), int) - np.asarray(expected, int)
    return bool(np.abs(difference).mean() < 2)


@pytest.mark.parametrize("suffix", heif.SUFFIXES)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_a_picture_and_its_header(mode: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    given = CAT.convert(mode)
    if mode == "RGBA":
        given.putalpha(Image.linear_gradient("L").resize(CAT.size))
    path.write_bytes(heic(given))
    got, header = images.read(path), images.probe(path)
    assert (header.format, header.size, header.depth, header.alpha) == ("HEIC", (48, 72), 8, mode == "RGBA")
    assert (got.gray, got.lossless, got.depth, got.remarks) == (mode == "L", False, 8, ())
    assert close(got, given)
    assert images.find(tmp_path) == [path]
    assert not images.others(tmp_path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_once(orientation: int, tmp_path: Path) -> None:
    """The file says twice how it lies: in its own properties, which the decoder follows, and in EXIF."""
    CAT.save(tmp_path / "a.jpg", quality=100, subsampling=0, exif=exif(orientation))
    (tmp_path / "a.heic").write_bytes(heic(CAT, exif=exif(orientation)))
    upright, got = images.read(tmp_path / "a.jpg"), images.read(tmp_path / "a.heic")
    assert images.probe(tmp_path / "a.heic").size == got.size == upright.size
    assert (got.color - upright.color).abs().mean() * 127.5 < 2
    images.write(tmp_path / "b.jpg", got)
    with Image.open(tmp_path / "b.jpg") as image:
        assert dict(image.getexif()) == {ORIENTATION: 1, MAKE: "a phone"}


def test_profile_and_xmp_are_carried_over(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" dc:format="a cat"/></rdf:RDF></x:xmpmeta>'
    )
    (tmp_path / "a.heic").write_bytes(heic(CAT, icc_profile=profile, xmp=xmp))
    got = images.read(tmp_path / "a.heic")
    assert got.metadata.icc == profile
    assert b'dc:format="a cat"' in got.metadata.xmp


def test_of_several_pictures_the_main_one_is_taken(tmp_path: Path) -> None:
    others = [CAT.transpose(Image.Transpose.ROTATE_90), CAT.convert("L").convert("RGB")]
    (tmp_path / "a.heic").write_bytes(heic(CAT, save_all=True, append_images=others, primary_index=1))
    got = images.read(tmp_path / "a.heic")
    assert got.remarks == ("only the main one of 3 pictures in it",)
    assert close(got, others[0])


def test_ten_bits_become_eight_and_it_is_said(tmp_path: Path) -> None:
    samples = np.asarray(CAT).astype(np.uint16) * 257
    pillow_heif.from_bytes("RGB;16", CAT.size, samples.tobytes()).save(tmp_path / "a.heic", quality=95, chroma=444)
    got = images.read(tmp_path / "a.heic")
    assert got.remarks == ("10 bits reduced to 8",)
    assert close(got, CAT)
    data = (tmp_path / "a.heic").read_bytes()
    depth = data.index(b"hvcC") + 4 + 17
    assert heif.remarks(io.BytesIO(data[:depth]), b"") == ()  # cut before it is said


def test_colours_other_than_srgb_without_a_profile_are_said() -> None:
    data = heic(CAT, color_primaries=9, transfer_characteristics=16, matrix_coefficients=9, full_range_flag=1)
    assert heif.remarks(io.BytesIO(data), b"") == ("CICP 9-16-9 is not kept",)
    assert heif.remarks(io.BytesIO(data), b"a profile") == ()


def test_avif_is_no_heic(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    CAT.save(buffer, "AVIF")
    avif = buffer.getvalue()
    assert not heif.is_heic(avif[: heif.HEAD])
    assert heif.is_heic(b"\0\0\0\x14ftypmif1\0\0\0\0heic")
    assert not heif.is_heic((avif[:8] + b"mif1" + avif[12:])[: heif.HEAD])
    data = heic(CAT)
    assert heif.is_heic(data[: heif.HEAD])
    assert heif.is_heic((data[:8] + b"mif1" + data[12:])[: heif.HEAD])
    assert not any(heif.is_heic(data[:size]) for size in range(12))


@pytest.mark.parametrize("name", ["a.heic", "a.jpg"])
def test_without_the_library_the_way_to_it_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes(heic(CAT))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for function in (images.read, images.probe):
        with pytest.raises(ImageError, match=f"{name} is HEIC, which needs pillow-heif") as raised:
            function(tmp_path / name)
        assert raised.value.hint == "pip install 'dreamsr[heic]'"


def test_a_file_that_is_cut_is_one_line(tmp_path: Path) -> None:
    data = heic(CAT)
    for size in (heif.HEAD, len(data) // 2, len(data) - 20):
        (tmp_path / "a.heic").write_bytes(data[:size])
        with pytest.raises(ImageError) as raised:
            images.read(tmp_path / "a.heic")
        assert "\n" not in raised.value.message


def test_it_becomes_jpeg_and_png_where_it_is_transparent(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.HEIC").write_bytes(heic(CAT))
    clear = CAT.copy()
    clear.putalpha(0)
    (folder / "b.heic").write_bytes(heic(clear))
    tasks = planning.plan([folder], tmp_path / "out", Sizing(), 4)
    assert [(task.output, task.problem) for task in tasks] == [("a.jpg", ""), ("b.png", "")]
    assert tasks[1].remarks == ("written as PNG: JPEG has no transparency",)
    assert [t.output for t in planning.plan([folder / "a.HEIC"], None, Sizing(), 4)] == ["a_x4.png"]
    formats = planning.plan([folder], tmp_path / "out", Sizing(), 4, Naming("webp"))
    assert [task.output for task in formats] == ["a.webp", "b.webp"]
    with pytest.raises(UsageError, match=r"b\.heic has no suffix that is written"):
        planning.plan([folder / "a.HEIC"], folder / "b.heic", Sizing(), 4)
