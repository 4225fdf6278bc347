"""Real files through read and write."""

import io
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import photo
from PIL import Image, ImageCms

from dreamsr.errors import DreamSRError, ImageError
from dreamsr.files import images
from dreamsr.files.atomic import atomic
from dreamsr.files.images import Metadata, Picture


def pil(mode: str, size: tuple[int, int] = (24, 18)) -> Image.Image:
    data = images.to_bytes(photo("chelsea")[:, 100 : 100 + size[1], 100 : 100 + size[0]])
    image = Image.frombytes("RGB", size, data.permute(1, 2, 0).contiguous().numpy().tobytes())
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.linear_gradient("L").resize(size))
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_lossless_round_trip(mode: str, suffix: str, tmp_path: Path) -> None:
    image = pil(mode)
    image.save(tmp_path / f"a{suffix}", lossless=True)
    picture = images.read(tmp_path / f"a{suffix}")
    assert picture.color.shape == (3, 18, 24)
    assert (picture.alpha is not None) == (mode in ("LA", "RGBA"))
    images.write(tmp_path / f"b{suffix}", Picture(picture.color, picture.alpha, picture.gray))
    # WebP has no gray: it is stored as colour and comes back as colour
    expected = image.convert("RGBA" if picture.alpha is not None else "RGB")
    assert load(tmp_path / f"b{suffix}").convert(expected.mode).tobytes() == expected.tobytes()


def test_gray_stays_gray(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        pil("L").save(tmp_path / name)
        images.write(tmp_path / f"out_{name}", images.read(tmp_path / name))
        assert load(tmp_path / f"out_{name}").mode == "L"


@pytest.mark.parametrize("mode", ["P", "1"])
def test_palette_and_bilevel(mode: str, tmp_path: Path) -> None:
    image = pil(mode)
    image.save(tmp_path / "a.png")
    expected = image.convert("RGB").tobytes()
    got = images.to_pil(Picture(images.read(tmp_path / "a.png").color))
    assert got.tobytes() == expected


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = pil("P")
    image.save(tmp_path / "a.png", transparency=0)
    assert images.read(tmp_path / "a.png").alpha is not None


def test_16_bit_gray_is_read_over_its_whole_range(tmp_path: Path) -> None:
    image = Image.frombytes("I;16", (3, 1), b"\x00\x00\x00\x80\xff\xff")
    image.save(tmp_path / "a.png")
    picture = images.read(tmp_path / "a.png")
    assert picture.gray
    assert images.to_bytes(picture.color)[0, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_baked_in_once(orientation: int, tmp_path: Path) -> None:
    image = pil("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a camera"
    image.save(tmp_path / "a.png", exif=exif)
    turned = {
        1: image,
        2: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: image.transpose(Image.Transpose.ROTATE_180),
        4: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: image.transpose(Image.Transpose.TRANSPOSE),
        6: image.transpose(Image.Transpose.ROTATE_270),
        7: image.transpose(Image.Transpose.TRANSVERSE),
        8: image.transpose(Image.Transpose.ROTATE_90),
    }[orientation]
    images.write(tmp_path / "b.png", images.read(tmp_path / "a.png"))
    result = load(tmp_path / "b.png")
    assert result.tobytes() == turned.tobytes()
    assert result.getexif()[0x0112] == 1
    assert result.getexif()[0x010F] == "a camera"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_profile_and_exif_are_carried_over(suffix: str, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x9003] = "2026:01:02 03:04:05"
    pil("RGB").save(tmp_path / f"a{suffix}", icc_profile=profile, exif=exif)
    images.write(tmp_path / f"b{suffix}", images.read(tmp_path / f"a{suffix}"))
    result = load(tmp_path / f"b{suffix}")
    assert result.info["icc_profile"] == profile
    assert result.getexif()[0x9003] == "2026:01:02 03:04:05"


def load(path: Path) -> Image.Image:
    """A file as Pillow sees it, closed again."""
    with Image.open(path) as image:
        image.load()
        return image


def png_bytes() -> bytes:
    buffer = io.BytesIO()
    pil("RGB").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"these are words", "is not a PNG, JPEG, WebP, AVIF, HEIC, TIFF or BMP picture"),
        (b"GIF89a" + bytes(100), "is not a PNG, JPEG, WebP, AVIF, HEIC, TIFF or BMP picture"),
        (png_bytes()[:200], "cannot be read"),
        (png_bytes()[:-60], "cannot be read"),
    ],
)
def test_broken_files_say_what_they_are(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=words) as raised:
        images.read(path)
    assert str(path) in raised.value.message
    assert "\n" not in raised.value.message


def test_odd_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    """Pillow cannot write back what some cameras wrote: the pixels are read all the same."""
    pil("RGB").save(
        tmp_path / "a.png",
        exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x0b\x00\x01\x00\x00\x00\x00\x00\xc0?",
    )
    pil("RGB").save(tmp_path / "b.jpg", exif=b"Exif\x00\x00no header at all")
    for name in ("a.png", "b.jpg"):
        picture = images.read(tmp_path / name)
        assert picture.size == (18, 24)
        images.write(tmp_path / "out.png", picture)


def test_exif_that_jpeg_cannot_hold_is_left_out(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "x" * 70_000
    images.write(tmp_path / "a.jpg", Picture(torch.zeros(3, 8, 8), metadata=Metadata(exif=exif.tobytes())))
    assert load(tmp_path / "a.jpg").size == (8, 8)


def test_cmyk_comes_as_rgb_without_the_profile_of_its_inks(tmp_path: Path) -> None:
    pil("RGB").convert("CMYK").save(tmp_path / "a.jpg", icc_profile=b"a profile of inks")
    assert images.read(tmp_path / "a.jpg").metadata == Metadata()


def test_animation_is_refused(tmp_path: Path) -> None:
    pil("RGB").save(tmp_path / "a.webp", save_all=True, append_images=[pil("L").convert("RGB")])
    with pytest.raises(ImageError, match="animated"):
        images.read(tmp_path / "a.webp")


def test_nothing_half_written(tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"before")
    with pytest.raises(RuntimeError), atomic(target) as temporary:  # noqa: PT012
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_bytes_are_on_the_disk_before_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power failure leaves the old file or the new one, and never an empty one."""
    done: list[tuple[str, int, int]] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        done.append(("fsync", os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size))

    def renamed(self: Path, target: Path) -> Path:
        done.append(("rename", self.stat().st_ino, self.stat().st_size))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    with atomic(tmp_path / "a.png") as temporary:
        temporary.write_bytes(b"whole")
    inode = (tmp_path / "a.png").stat().st_ino
    assert done == [("fsync", inode, 5), ("rename", inode, 5)]


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DreamSRError, match="cannot be written"), atomic(tmp_path / "file" / "a.png"):
        pass


def test_bytes_and_units_are_inverse() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(images.to_bytes(images.to_unit(values)), values)
    assert images.to_bytes(torch.tensor([-7.0, 7.0])).tolist() == [0, 255]


def test_reduction_is_pillows(tmp_path: Path) -> None:
    image = pil("RGB", (40, 32))
    image.save(tmp_path / "a.png")
    small = images.resize(images.read(tmp_path / "a.png"), (16, 20))
    assert images.to_pil(small).tobytes() == image.resize((20, 16), Image.Resampling.BICUBIC).tobytes()


def test_find_is_sorted_recursive_and_leaves_hidden_files_alone(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "sub/c.webp", ".hidden.png", ".dir/d.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [p.relative_to(tmp_path).as_posix() for p in images.find(tmp_path)] == ["a.JPG", "b.png", "sub/c.webp"]


def test_what_else_lies_in_a_folder_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("in/b.png", "in/sub/c.webp", "in/.dir/d.txt", "in/notes.TXT", "in/sub/README", "other/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "other")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "file.png").symlink_to(tmp_path / "other" / "e.png")
    (tmp_path / "in" / "nowhere.png").symlink_to(tmp_path / "gone.png")
    assert [path.name for path in images.find(tmp_path / "in")] == ["b.png", "file.png", "c.webp"]
    assert not images.others(tmp_path / "in" / "b.png")
    expected = {".txt": 1, "without a suffix": 1, "linked folder": 2, "broken link": 1}
    assert images.others(tmp_path / "in") == expected
    scandir = os.scandir

    def closed(path: str) -> Any:  # permissions do not stop everyone who runs tests
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert images.others(tmp_path / "in")["folder that cannot be read"] == 1
