"""Degradation against Pillow, and crops as a function of (seed, step)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import photo
from PIL import Image

from dreamsr.core.resize import bicubic
from dreamsr.data import dataset
from dreamsr.data.degrade import degrade
from dreamsr.errors import UsageError
from dreamsr.files import images
from dreamsr.files.images import Picture


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_degradation_is_pillows_within_a_level(name: str, scale: int) -> None:
    hr = photo(name)
    hr = hr[:, : hr.shape[1] // scale * scale, : hr.shape[2] // scale * scale]
    ours = images.to_bytes(degrade(hr[None], scale)[0]).int()
    size = (hr.shape[2] // scale, hr.shape[1] // scale)
    pillow = np.asarray(images.to_pil(Picture(hr)).resize(size, Image.Resampling.BICUBIC)).astype(np.int32)
    difference = (ours - torch.from_numpy(pillow).permute(2, 0, 1)).abs()
    assert int(difference.max()) <= 1
    assert float((difference > 0).float().mean()) < 0.2


def test_anchor_is_pillows_bicubic() -> None:
    lr = degrade(photo("chelsea")[None, :, :200, :200], 4)
    anchor = images.to_bytes(bicubic(lr, (200, 200))[0]).int()
    pillow = np.asarray(images.to_pil(Picture(lr[0])).resize((200, 200), Image.Resampling.BICUBIC)).astype(np.int32)
    assert int((anchor - torch.from_numpy(pillow).permute(2, 0, 1)).abs().max()) <= 1


def test_degraded_pictures_have_256_levels() -> None:
    lr = degrade(photo("coffee")[None, :, :400, :600], 4)
    assert torch.equal(images.to_unit(images.to_bytes(lr)), lr)


@pytest.fixture
def loaded(photos: Path, tmp_path: Path) -> dataset.Photos:
    return dataset.load(images.find(photos), 64, tmp_path / "cache.u8")[0]


def test_crops_depend_on_seed_and_step_alone(loaded: dataset.Photos) -> None:
    first = dataset.crops(loaded, 0, 5, 8, 64)
    dataset.crops(loaded, 0, 6, 8, 64)
    torch.manual_seed(99)
    assert torch.equal(dataset.crops(loaded, 0, 5, 8, 64), first)
    assert not torch.equal(dataset.crops(loaded, 0, 6, 8, 64), first)
    assert not torch.equal(dataset.crops(loaded, 1, 5, 8, 64), first)


def test_every_crop_is_a_turned_window_of_a_photo(loaded: dataset.Photos, photos: Path) -> None:
    """Every crop, turned back in one of 8 ways, is found in one of the photos."""
    windows = {
        (x[:, i : i + 64, j : j + 64].numpy().tobytes())
        for path in images.find(photos)
        for x in [images.to_bytes(images.read(path).color)]
        for i in range(33)
        for j in range(33)
    }
    crops = images.to_bytes(dataset.crops(loaded, 3, 0, 40, 64))
    ways = set()
    for crop in crops:
        turned = [torch.rot90(v, k, (1, 2)) for v in (crop, crop.flip(2)) for k in range(4)]
        hits = [i for i, v in enumerate(turned) if v.contiguous().numpy().tobytes() in windows]
        assert len(hits) == 1
        ways.add(hits[0])
    assert len(ways) >= 7


def test_all_photos_are_used(loaded: dataset.Photos) -> None:
    means = [
        float(loaded.flat[o : o + h * w * 3].float().mean())
        for o, (h, w) in zip(loaded.offsets[:, 0].tolist(), loaded.sizes[:, 0].tolist(), strict=True)
    ]
    assert len(means) == 4
    crops = dataset.crops(loaded, 0, 0, 64, 64)
    nearest = {min(range(4), key=lambda i: abs(float((c.mean() + 1) * 127.5) - means[i])) for c in crops}
    assert nearest == {0, 1, 2, 3}


def test_larger_crops_come_from_photos_that_have_room(tmp_path: Path) -> None:
    """Small ones are still drawn where they have room, and no less often."""
    for name, size, value in (("small", (40, 70), -1.0), ("large", (90, 80), 1.0)):
        images.write(tmp_path / f"{name}.png", Picture(torch.full((3, *size), value)))
    loaded, _ = dataset.load(images.find(tmp_path), 32, tmp_path / "cache.u8")
    assert loaded.room == 80
    means = {side: float(dataset.crops(loaded, 0, 0, 400, side).mean()) for side in (32, 40, 41, 80)}
    assert (means[41], means[80]) == (1, 1)
    assert means[32] == means[40] == pytest.approx(0, abs=0.15)


@pytest.fixture
def partners(photos: Path, tmp_path: Path) -> dataset.Partners:
    """Of photos that consist of blocks of 4 x 4 equal pixels: one pixel for every block."""
    files = {}
    for path in images.find(photos):
        small = images.read(path).color[:, ::4, ::4]
        images.write(path, Picture(small.repeat_interleave(4, 1).repeat_interleave(4, 2)))
        files[path] = tmp_path / "low" / path.name
        images.write(files[path], Picture(small))
    return dataset.Partners(files, 4)


def test_crops_of_partners_are_of_the_same_part(photos: Path, partners: dataset.Partners, tmp_path: Path) -> None:
    loaded, skipped = dataset.load(images.find(photos), 32, tmp_path / "cache.u8", partners)
    assert (len(loaded), loaded.paired, skipped) == (4, True, [])
    high = dataset.crops(loaded, 0, 5, 200, 32, align=4)
    low = dataset.crops(loaded, 0, 5, 200, 8, partner=True)
    assert low.shape == (200, 3, 8, 8)
    for i in range(4):
        assert torch.equal(high[:, :, i::4, ::4], low)
    assert len({x.numpy().tobytes() for x in low}) > 150


@pytest.mark.parametrize(("h", "w"), [(20, 24), (24, 20)])
def test_partners_that_do_not_fit_are_named(
    photos: Path, partners: dataset.Partners, h: int, w: int, tmp_path: Path
) -> None:
    first, second, third, *_ = images.find(photos)
    images.write(partners.files[first], Picture(torch.zeros(3, h, w)))
    partners.files[second].write_bytes(b"no picture")
    some = dataset.Partners({path: low for path, low in partners.files.items() if path != third}, 4)
    loaded, skipped = dataset.load(images.find(photos), 32, tmp_path / "cache.u8", some)
    assert len(loaded) == 1
    height, width = images.probe(first).size
    assert skipped[0] == f"{first} is {width}x{height}, not 4 times {partners.files[first]}, which is {w}x{h}"
    assert "is not a PNG" in skipped[1]
    assert skipped[2] == f"{third} has no partner"


def test_small_and_broken_photos_are_named(photos: Path, tmp_path: Path) -> None:
    images.write(photos / "small.png", Picture(torch.zeros(3, 20, 90)))
    (photos / "broken.png").write_bytes(b"no picture")
    loaded, skipped = dataset.load(images.find(photos), 64, tmp_path / "cache.u8")
    assert len(loaded) == 4
    assert any("small.png is 90x20, smaller than the crop of 64" in line for line in skipped)
    assert any("broken.png is not a PNG" in line for line in skipped)


def test_a_photo_of_the_size_of_the_crop_is_trained_on(photos: Path, tmp_path: Path) -> None:
    loaded, skipped = dataset.load(images.find(photos), 96, tmp_path / "cache.u8")
    assert (len(loaded), skipped) == (4, [])


def test_no_photo_is_large_enough(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"none of 4 photos can be trained on, in crops of 128x128; the first: .* smaller than"
    ):
        dataset.load(images.find(photos), 128, tmp_path / "cache.u8")
    assert not list(tmp_path.glob("*.u8"))


def test_hold_out_is_disjoint_and_leaves_photos_to_train_on() -> None:
    paths = [Path(f"{i:03}.png") for i in range(100)]
    training, held_out = dataset.hold_out(paths)
    assert len(held_out) == 5
    assert sorted(training + held_out) == paths
    assert dataset.hold_out(paths[:4]) == (paths[:4], [])
    assert len(dataset.hold_out([Path(f"{i}.png") for i in range(10_000)])[1]) == 8
