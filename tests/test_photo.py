"""The degradation of everyday pictures: JPEG against Pillow, blur and noise against their moments."""

import io
import math
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
import torch
from conftest import SHARED
from conftest import photo as picture
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from dreamsr.config import ModelConfig, PhotoConfig
from dreamsr.core.resize import bicubic
from dreamsr.data import photo
from dreamsr.data.dataset import generator
from dreamsr.data.degrade import degraded, examples, quantize, reduced
from dreamsr.data.jpeg import jpeg
from dreamsr.engine.evaluator import Sampled, benchmark
from dreamsr.engine.measure import Measure, load_lpips
from dreamsr.engine.schedule import Settings
from dreamsr.engine.statistics import means
from dreamsr.engine.upscaler import Upscaler
from dreamsr.files import checkpoint, hub, images
from dreamsr.files.checkpoint import Model

NOTHING = PhotoConfig(blur_share=0, gauss_share=0, poisson_share=0, jpeg_share=0)


def levels(name: str, height: int, width: int) -> Tensor:
    return images.to_bytes(picture(name))[None, :, :height, :width].float()


def pillows(x: Tensor, quality: int, subsampled: bool) -> Tensor:
    file = io.BytesIO()
    image = Image.fromarray(x[0].permute(1, 2, 0).to(torch.uint8).numpy())
    image.save(file, "JPEG", quality=quality, subsampling="4:2:0" if subsampled else "4:4:4")
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None].float()


@pytest.mark.parametrize("subsampled", [False, True])
@pytest.mark.parametrize("quality", [5, 35, 50, 75, 90, 95, 100])
@pytest.mark.parametrize(("name", "height", "width"), [("astronaut", 187, 243), ("coffee", 320, 336), ("cat", 64, 63)])
def test_jpeg_is_pillows(name: str, height: int, width: int, quality: int, subsampled: bool) -> None:
    x = levels("chelsea" if name == "cat" else name, height, width)
    found = jpeg(x, torch.tensor([quality]), torch.tensor([subsampled]))
    difference = (found - pillows(x, quality, subsampled)).abs()
    assert float(difference.max()) <= 2
    assert float((difference > 0).float().mean()) < 0.01


def test_jpeg_of_a_batch_is_that_of_every_picture() -> None:
    x = torch.cat([levels("astronaut", 96, 80), levels("coffee", 96, 80)])
    quality, subsampled = torch.tensor([30, 90]), torch.tensor([True, False])
    both = jpeg(x, quality, subsampled)
    for i in range(2):
        assert torch.equal(both[i : i + 1], jpeg(x[i : i + 1], quality[i : i + 1], subsampled[i : i + 1]))


def test_jpeg_keeps_flat_greys() -> None:
    x = torch.arange(256.0)[:, None, None, None].expand(-1, 3, 16, 16)
    assert torch.equal(jpeg(x, torch.full((256,), 100), torch.ones(256, dtype=torch.bool)), x)


def test_gaussians_have_the_moments_that_they_are_asked_for() -> None:
    first, second, angle = torch.tensor([3.0, 2.0]), torch.tensor([1.5, 2.0]), torch.tensor([0.6, 1.0])
    kernels = photo.gaussians(first, second, angle, 5.0)
    place = torch.arange(kernels.shape[-1]) - kernels.shape[-1] // 2
    xy = torch.stack(torch.meshgrid(place, place, indexing="xy")).float()
    found = torch.einsum("bij,cij,dij->bcd", kernels, xy, xy)
    axes = torch.stack([torch.stack([angle.cos(), angle.sin()]), torch.stack([-angle.sin(), angle.cos()])])
    expected = torch.einsum("kb,kcb,kdb->bcd", torch.stack([first, second]).square(), axes, axes)
    torch.testing.assert_close(kernels.sum((1, 2)), torch.ones(2))
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0.01)


def test_blur_depends_on_the_size_of_the_reduced_picture_alone() -> None:
    """A blur of one reduced pixel is s pixels wide at scale s."""
    config = replace(NOTHING, blur_share=1, blur=(1, 1))
    point = torch.zeros(1, 3, 65, 65)
    point[..., 32, 32] = 1
    for scale in (2.0, 4.0):
        row = photo.blurred(point, config, scale, lambda: torch.rand(1))[0, 0].sum(0)
        place = torch.arange(65) - 32
        assert math.sqrt(float((row * place**2).sum())) == pytest.approx(scale, rel=0.03)


@pytest.mark.parametrize("is_round", [0, 1])
def test_round_blurs_are_the_same_in_all_directions(is_round: int) -> None:
    config = replace(NOTHING, blur_share=1, blur=(0.3, 1.5), round_share=is_round)
    point = torch.zeros(1, 3, 33, 33)
    point[..., 16, 16] = 1
    draws = iter((0.5, 0.5, 0.1, 0.9, 0.0))  # whether, whether round, two widths, no turn
    blurred = photo.blurred(point, config, 2.0, lambda: torch.tensor([next(draws)]))
    assert torch.allclose(blurred, blurred.mT, atol=1e-6) == bool(is_round)


def test_a_blur_of_no_width_changes_nothing() -> None:
    x = picture("astronaut")[None, :, :64, :96]
    for blur in ((0, 0), (0, 0.9)):
        config = replace(NOTHING, blur_share=1, blur=blur)
        assert torch.equal(photo.blurred(x, config, 4.0, lambda: torch.zeros(1)), x)


def test_nothing_happens_but_one_of_three_reductions() -> None:
    hr = picture("astronaut")[None, :, :96, :128].expand(40, -1, -1, -1).contiguous()
    found = photo.photo(hr, (24, 32), NOTHING, generator(0, 0))
    linear = F.interpolate(hr[:1], (24, 32), mode="bilinear", antialias=True)
    ways = [quantize(x)[0] for x in (bicubic(hr[:1], (24, 32)), linear, F.avg_pool2d(hr[:1], 4))]
    counts = [sum(torch.allclose(x, way, atol=1e-6) for x in found) for way in ways]
    assert sum(counts) == 40
    assert min(counts) >= 5


@pytest.mark.parametrize("grey", [0, 1])
def test_gaussian_noise(grey: int) -> None:
    config = replace(NOTHING, gauss_share=1, gauss=(5, 5), grey_share=grey)
    noise = photo.gaussian_noise(torch.full((2, 3, 200, 200), 99.0), config, generator(0, 1), lambda: torch.rand(2))
    assert float(noise.std()) == pytest.approx(5, rel=0.02)
    assert abs(float(noise.mean())) < 0.1
    assert torch.equal(noise[:, 0], noise[:, 1]) == bool(grey)


def test_grain_is_as_strong_as_other_noise_and_alike_in_neighbouring_pixels() -> None:
    """White noise that a Gaussian of deviation s has smoothed correlates by exp(-d^2 / 4 s^2) at a distance of d."""
    config = replace(NOTHING, gauss_share=1, gauss=(5, 5), grain_share=1, grain=(1, 1), grey_share=0)
    noise = photo.gaussian_noise(torch.full((2, 3, 200, 200), 99.0), config, generator(0, 1), lambda: torch.rand(2))
    assert float(noise.std()) == pytest.approx(5, rel=0.03)
    for distance in (1, 2):
        for moved in (noise.roll(distance, 2), noise.roll(distance, 3)):
            assert float((noise * moved).mean()) / 25 == pytest.approx(math.exp(-(distance**2) / 4), abs=0.03)


@pytest.mark.parametrize("grey", [0, 1])
@pytest.mark.parametrize("level", [0.0, 51.0, 255.0])
def test_poisson_noise_grows_with_the_light(grey: int, level: float) -> None:
    config = replace(NOTHING, poisson_share=1, poisson=(4, 4), grey_share=grey)
    noise = photo.poisson_noise(torch.full((2, 3, 200, 200), level), config, generator(0, 1), lambda: torch.rand(2))
    assert float(noise.std()) == pytest.approx(4 * math.sqrt(level / 255), rel=0.02)
    assert abs(float(noise.mean())) < 0.1
    assert torch.equal(noise[:, 0], noise[:, 1]) == (bool(grey) or level == 0)


def test_as_many_numbers_are_drawn_for_every_picture() -> None:
    """Else the last bit of a level, which machines compute differently, would give all that follows another fate."""
    states = []
    for hr in (picture("coffee")[None, :, :96, :128], torch.zeros(1, 3, 96, 128), torch.ones(1, 3, 96, 128)):
        random = generator(0, 4)
        photo.photo(hr, (24, 32), PhotoConfig(poisson_share=1, grain_share=1), random)
        states.append(random.get_state())
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


def test_grey_poisson_noise_is_that_of_the_mean_of_the_channels() -> None:
    """Of red light it is that of a third of white."""
    config = replace(NOTHING, poisson_share=1, poisson=(4, 4), grey_share=1)
    red = torch.tensor([255.0, 0, 0]).view(1, 3, 1, 1).expand(2, 3, 200, 200)
    noise = photo.poisson_noise(red, config, generator(0, 1), lambda: torch.rand(2))
    assert float(noise.std()) == pytest.approx(4 / math.sqrt(3), rel=0.02)
    assert torch.equal(noise[:, 0], noise[:, 2])


def test_the_share_of_what_happens() -> None:
    """Of 400 flat pictures a quarter gets noise."""
    config = replace(NOTHING, gauss_share=0.25, gauss=(9, 9))
    noisy = photo.photo(torch.zeros(400, 3, 32, 32), (8, 8), config, generator(0, 2)).flatten(1).std(1) > 0.01
    assert float(noisy.float().mean()) == pytest.approx(0.25, abs=0.07)


def test_blocks_of_jpeg_begin_anywhere() -> None:
    """At quality 1 a block is flat: the first edge between two of them lies at every column."""
    x = torch.linspace(0, 255, 64).round().expand(200, 3, 64, 64)
    config = replace(NOTHING, jpeg_share=1, jpeg=(1, 1), subsampled_share=0)
    random = generator(0, 3)
    found = photo.compressed(x, config, lambda: torch.rand(200, generator=random))
    edges = (found[:, 0, 0].diff(dim=1) != 0).long().argmax(1)
    assert set((edges % 8).tolist()) == set(range(8))


def test_jpeg_has_whole_qualities_and_moves_nothing() -> None:
    x = levels("astronaut", 48, 56)

    def compressed(quality: float) -> Tensor:
        config = replace(NOTHING, jpeg_share=1, jpeg=(quality, quality), subsampled_share=0)
        random = generator(0, 3)
        return photo.compressed(x, config, lambda: torch.rand(1, generator=random))

    assert torch.equal(compressed(10.4), compressed(10))
    assert float((compressed(100) - x).abs().mean()) < 1


def test_a_degraded_picture_depends_on_its_draw_alone() -> None:
    hr = picture("coffee")[None, :, :96, :128]
    blind = ModelConfig(degradation="photo")
    first = degraded(hr, (24, 32), blind, (0, 7))
    torch.manual_seed(5)
    assert torch.equal(degraded(hr, (24, 32), blind, (0, 7)), first)
    assert not torch.equal(degraded(hr, (24, 32), blind, (0, 8)), first)
    assert torch.equal(images.to_unit(images.to_bytes(first)), first)
    assert torch.equal(degraded(hr, (24, 32), ModelConfig(), (0, 7)), reduced(hr, (24, 32)))


def bundled(name: str = hub.DEFAULT_MODEL) -> Model:
    return checkpoint.load_model(hub.resolve(name)).to("cpu")


def test_every_example_has_a_fate_of_its_own() -> None:
    hr = picture("coffee")[:, :96, :128]
    first, second = examples([hr, hr], ModelConfig(degradation="photo"))
    assert not torch.equal(first, second)


def test_the_default_model_is_for_everyday_pictures() -> None:
    """Noise and JPEG: 1 step has more PSNR than bicubic and the model for clean inputs; 4 steps are another picture."""
    blind, clean, measure = bundled(), bundled("bicubic-x4"), Measure()
    assert blind.config.degradation == "photo"
    worn = replace(blind.config, photo=PhotoConfig(gauss_share=1, gauss=(4, 4), jpeg_share=1, jpeg=(50, 60)))
    for name in ("chelsea", "coffee", "astronaut"):
        hr = picture(name)[:, 40:296, 40:296]
        lrs = [degraded(hr[None], (64, 64), worn, (1, i))[0] for i in range(3)]
        one, four, other = (
            Upscaler(model, Settings(steps=steps))(lrs) for model, steps in ((blind, 1), (blind, 4), (clean, 1))
        )
        usual = [bicubic(lr[None], (256, 256))[0] for lr in lrs]
        scores = [mean(measure(x, hr)["psnr_y"] for x in made) for made in (one, usual, other)]
        assert scores[0] > max(scores[1:]) + 0.2, name
        assert all(float((a - b).abs().mean()) > 1 / 255 for a, b in zip(one, four, strict=True)), name


def test_the_default_model_makes_twice_the_size_itself() -> None:
    """Not four times with a reduction behind it; with noise and JPEG in the input it has more PSNR than bicubic."""
    upscaler, measure, gains = Upscaler(bundled(), Settings(steps=1)), Measure(), []
    assert upscaler.made_size((64, 64), 2) == upscaler.made_size((64, 64), 1.5) == (128, 128)
    worn = replace(upscaler.model.config, photo=PhotoConfig(gauss_share=1, gauss=(4, 4), jpeg_share=1, jpeg=(50, 60)))
    for i, name in enumerate(("chelsea", "coffee", "astronaut")):
        height, width = picture(name).shape[1:]
        sharp = reduced(picture(name)[None], (height // 2, width // 2))[0]
        hr = sharp[:, 20:148, 60:188]
        lr = degraded(hr[None], (64, 64), worn, (1, i))[0]
        usual = measure(bicubic(lr[None], (128, 128))[0], hr)["psnr_y"]
        gains.append(measure(upscaler([lr], [(128, 128)])[0], hr)["psnr_y"] - usual)
    assert sum(gains) / len(gains) > 0.3


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("steps", [1, 4])
def test_the_default_model_leaves_no_tint_and_no_speckle(steps: int, scale: int) -> None:
    upscaler = Upscaler(bundled(), Settings(steps=steps))
    colors = [(0, 0, 0), (127, 127, 127), (255, 255, 255), (200, 40, 40), (30, 90, 160)]
    for color in colors:
        flat = torch.tensor(color).reshape(3, 1, 1).expand(3, 40, 40) / 127.5 - 1
        out = upscaler([flat], [(40 * scale, 40 * scale)])[0]
        assert float((out.mean((1, 2)) - flat[:, 0, 0]).abs().max()) * 127.5 < 1, color
        assert float(out.std((1, 2)).max()) * 127.5 < 2, color


@pytest.mark.slow
def test_the_bar_of_the_default_model(shared_metrics: Path) -> None:
    """Set14 with everyday inputs, 4 steps: LPIPS at most two thirds of bicubic's."""
    model, measure = bundled(), Measure(lpips=load_lpips(shared_metrics / "lpips-alex.safetensors"))
    contender = Sampled("4 steps", Upscaler(model, Settings(steps=4)))
    found, _ = benchmark(SHARED / "data" / "eval" / "Set14", [contender], measure, 4, model.config)
    scores = means(list(found.rows()))
    assert scores["4 steps"]["lpips"].value <= scores["bicubic"]["lpips"].value * 2 / 3
