"""The whole way through the bundled model: colours, depth, transparency and names of the files people have."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import photo
from PIL import Image
from programs import Program, visible
from torch import Tensor

from dreamsr.engine.schedule import Settings
from dreamsr.engine.upscaler import Upscaler
from dreamsr.files import checkpoint, hub, images
from dreamsr.files.images import Picture

FLAT = [(v, v, v) for v in (0, 1, 127, 254, 255)] + [(255, 0, 0), (0, 255, 254), (1, 127, 254)]


def means(path: Path, channels: int = 3) -> Tensor:
    """Of every channel, in levels of 8 bits."""
    return (images.read(path).color[:channels].double().mean((1, 2)) + 1) * 127.5


@pytest.fixture(scope="module")
def upscaler() -> Upscaler:
    return Upscaler(checkpoint.load_model(hub.resolve("bicubic-x4")).to("cpu"), Settings(steps=1, tile=224))


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket"])
@pytest.mark.parametrize(("suffix", "depth"), [("png", 8), ("tif", 16), ("webp", 8)])
def test_photos_keep_their_mean(name: str, suffix: str, depth: int, upscaler: Upscaler, tmp_path: Path) -> None:
    images.write(tmp_path / f"a.{suffix}", Picture(photo(name)[:, 100:132, 120:152], depth=depth))
    picture = images.read(tmp_path / f"a.{suffix}")
    images.write(tmp_path / f"b.{suffix}", images.enlarged(picture, upscaler([picture.color])[0]))
    assert (means(tmp_path / f"b.{suffix}") - means(tmp_path / f"a.{suffix}")).abs().max() < 0.5


@pytest.mark.parametrize("levels", FLAT)
def test_flat_colours_keep_their_mean(levels: tuple[int, int, int], upscaler: Upscaler, tmp_path: Path) -> None:
    Image.new("RGB", (16, 12), levels).save(tmp_path / "a.png")
    color = images.read(tmp_path / "a.png").color
    images.write(tmp_path / "b.png", Picture(upscaler([color])[0]))
    assert (means(tmp_path / "b.png") - torch.tensor(levels)).abs().max() < 0.5


def test_a_folder_of_all_kinds(program: Program, tmp_path: Path) -> None:
    """Every file comes out in its own format, as deep, as gray and as transparent as it was.

    By the model that agrees with its input: what the default one takes for noise is up to a level of so small a mean.
    """
    folder = tmp_path / "in" / "größe"
    color, alpha = photo("chelsea")[:, 60:76, 60:80], torch.linspace(-1, 1, 20).expand(1, 16, 20).clone()
    for suffix, depths in {"png": (8, 16), "tif": (8, 16), "webp": (8,), "jpg": (8,), "bmp": (8,)}.items():
        for depth in depths:
            for gray in (False, True):
                for transparent in (False, True) if suffix not in ("jpg", "bmp") else (False,):
                    plain = color.mean(0, keepdim=True).expand(3, -1, -1) if gray else color
                    picture = Picture(plain, alpha if transparent else None, gray, depth=depth)
                    images.write(folder / f"{depth}{'g' * gray}{'a' * transparent}.{suffix}", picture)
    code, _, err = program("upscale", "in", "out", "-m", "bicubic-x4", "--steps", 1, "--tile", 224)
    assert code == 0, err
    made = [Path("out") / name for name in visible("out")]
    assert [p.name for p in made] == sorted(p.name for p in folder.iterdir())
    for path in made:
        before, after = images.read(folder / path.name), images.read(path)
        assert after.size == (64, 80), path
        assert (after.depth, after.gray, after.lossless) == (before.depth, before.gray, before.lossless), path
        assert (after.alpha is None) == (before.alpha is None), path
        assert (means(path) - means(folder / path.name)).abs().max() < (0.5 if before.alpha is None else 3), path
        if after.depth == 16:
            levels = ((after.color.double() + 1) / 2 * 65535).round().long()
            assert (levels % 257 != 0).float().mean() > 0.9, "8 bits stretched over 16"
        if after.alpha is not None:
            assert after.alpha.min() == -1
            assert after.alpha.max() == 1


def test_what_is_lost_is_said(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    Image.new("CMYK", (9, 9), (255, 0, 0, 0)).save(tmp_path / "a.jpg")
    code, _, err = program("upscale", "a.jpg", "b.jpg", "-m", tiny_file, "--steps", 1)
    assert code == 0
    assert "CMYK without a usable profile converted to RGB" in err
    images.write(tmp_path / "deep.png", Picture(torch.zeros(3, 9, 9), depth=16))
    code, _, err = program("upscale", "deep.png", "deep.webp", "-m", tiny_file, "--steps", 1)
    assert code == 0
    assert "16 bits reduced to 8" in err


@pytest.mark.parametrize("mode", ["P", "1"])
def test_palette_and_bilevel_become_full(mode: str, program: Program, tiny_file: Path, tmp_path: Path) -> None:
    images.to_pil(Picture(photo("chelsea")[:, :20, :30])).convert(mode).save(tmp_path / "a.png")
    assert program("upscale", "a.png", "b.png", "-m", tiny_file, "--steps", 1)[0] == 0
    with Image.open("b.png") as image:
        assert image.mode == ("RGB" if mode == "P" else "L")


def test_a_large_picture_is_written_in_strips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are converted apart are those that are converted together."""
    picture = Picture(photo("coffee"), torch.rand(1, 400, 600) * 2 - 1)
    whole = np.asarray(images.to_pil(picture))
    monkeypatch.setattr("dreamsr.files.picture._STRIP", 1000)
    assert np.array_equal(np.asarray(images.to_pil(picture)), whole)
