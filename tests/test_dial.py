"""Fidelity, samples with their uncertainty, and consistency with the input."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED, TINY, photo
from PIL import Image
from programs import Program
from torch import Tensor

from dreamsr.core.consistency import Projection
from dreamsr.core.enlargement import Axis, whole
from dreamsr.core.resize import bicubic
from dreamsr.data.degrade import degrade
from dreamsr.engine import upscaler as upscaling
from dreamsr.engine.measure import load_lpips
from dreamsr.engine.schedule import Settings
from dreamsr.engine.upscaler import Upscaler
from dreamsr.errors import UsageError
from dreamsr.files import checkpoint, hub, images, uncertainty
from dreamsr.files.checkpoint import Model
from dreamsr.files.manifest import Manifest
from dreamsr.metrics import luma, psnr


@pytest.fixture
def picture() -> Tensor:
    return torch.rand(3, 33, 26, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8


@pytest.fixture(scope="module")
def bundled() -> Model:
    return checkpoint.load_model(hub.resolve("bicubic-x4")).to("cpu")


def made(model: Model, picture: Tensor, **settings: float) -> Tensor:
    return Upscaler(model, Settings(steps=3, **settings))([picture])[0]  # type: ignore[arg-type]


def test_the_dial_is_a_straight_line_from_the_sample_to_the_first_estimate(tiny_model: Model, picture: Tensor) -> None:
    zero, half, most = (made(tiny_model, picture, fidelity=f) for f in (0.0, 0.5, 1 - 1e-7))
    torch.testing.assert_close(half, (zero + most) / 2, rtol=0, atol=1e-5)
    assert float((zero - most).abs().max()) > 1e-3


def test_full_fidelity_is_the_picture_of_one_step(tiny_model: Model, picture: Tensor) -> None:
    assert torch.equal(made(tiny_model, picture, fidelity=1), Upscaler(tiny_model, Settings(steps=1))([picture])[0])


def test_the_models_own_fidelity_is_the_default(tiny_model: Model, picture: Tensor) -> None:
    own = replace(tiny_model.config, sampling=replace(tiny_model.config.sampling, fidelity=0.4))
    assert torch.equal(made(replace(tiny_model, config=own), picture), made(tiny_model, picture, fidelity=0.4))
    assert not torch.equal(made(tiny_model, picture), made(tiny_model, picture, fidelity=0.4))


def test_the_mean_and_the_deviation_of_samples(tiny_model: Model, picture: Tensor) -> None:
    (found,) = Upscaler(tiny_model, Settings(steps=2, samples=3)).enlarge([picture])
    upscaler = Upscaler(tiny_model, Settings(steps=2))
    with torch.inference_mode():
        parts = [whole(picture, (132, 104), torch.device("cpu"))]
        layout, packed = upscaler._packed(parts)
        ends = [list(upscaler._estimates(layout, packed, parts, number))[-1] for number in range(3)]
        each = [packed + u_0 / TINY.process.k for u_0 in ends]
    stack = torch.stack([layout.unpack(x)[0] for x in each])
    torch.testing.assert_close(found.color, stack.mean(0), rtol=0, atol=1e-6)
    assert found.deviation is not None
    torch.testing.assert_close(found.deviation, (stack.var(0).mean(0)).sqrt() / 2, rtol=0, atol=1e-6)
    assert torch.equal(stack[0], upscaler([picture])[0])


def test_company_does_not_change_samples(tiny_model: Model, picture: Tensor) -> None:
    upscaler = Upscaler(tiny_model, Settings(steps=2, samples=2, consistency=1, fidelity=0.2))
    other = torch.zeros(3, 40, 20)
    alone, together = upscaler.enlarge([picture])[0], upscaler.enlarge([other, picture])[1]
    assert torch.equal(alone.color, together.color)
    assert alone.deviation is not None
    assert together.deviation is not None
    assert torch.equal(alone.deviation, together.deviation)


def projection_of(size: tuple[int, int], small: tuple[int, int]) -> Projection:
    """Of whole pictures."""
    rows, columns = (Axis(length, large, 0, large) for length, large in zip(small, size, strict=True))
    return Projection.of(rows, columns)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(24, 36), (120, 12)])
def test_the_reduction_is_a_matrix(scale: int, size: tuple[int, int]) -> None:
    x = torch.rand(1, 3, *size, dtype=torch.float64)
    rows, columns = (Axis(length // scale, length, 0, length).reduction() for length in size)
    small = bicubic(x, (size[0] // scale, size[1] // scale))
    torch.testing.assert_close(rows @ x @ columns.T, small)


def test_projection() -> None:
    """The reduction of what is corrected is the input; correcting again does nothing; it is the shortest way."""
    size = (48, 64)
    projection = projection_of(size, (12, 16))
    x, y = torch.rand(3, *size), torch.rand(3, 12, 16)
    moved = x + projection.correction(x, y)
    assert float(projection.residual(moved, y).abs().max()) < 1e-6
    assert float(projection.correction(moved, y).abs().max()) < 1e-6
    # any other picture with this reduction differs by something that A maps to 0
    other = torch.rand(3, *size)
    other = other + projection.correction(other, y)
    assert abs(float(((moved - x) * (other - moved)).sum())) < 1e-3


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_consistency_leaves_its_share_of_the_residual(weight: float, tiny_model: Model) -> None:
    smooth = bicubic(torch.rand(1, 3, 6, 5, generator=torch.Generator().manual_seed(2)) - 0.5, (33, 26))[0]
    out = made(tiny_model, smooth, consistency=weight, fidelity=1.0)
    plain = made(tiny_model, smooth, fidelity=1.0)
    projection = projection_of((132, 104), (33, 26))
    before, after = projection.residual(plain, smooth), projection.residual(out, smooth)
    torch.testing.assert_close(after, (1 - weight) * before, rtol=0, atol=1e-5)


def test_consistency_holds_over_blocks_and_samples(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a large picture is solved in blocks, whose inputs are windows."""
    picture = bicubic(torch.rand(1, 3, 9, 7) - 0.5, (80, 50))[0]
    upscaler = Upscaler(tiny_model, Settings(steps=2, samples=2, consistency=1, tile=128))
    (entire,) = upscaler.enlarge([picture])
    for name, value in (("WHOLE", 128), ("BLOCK", 192), ("MARGIN", 64)):
        monkeypatch.setattr(upscaling, name, value)
    (found,) = upscaler.enlarge([picture])
    residual = projection_of((320, 200), (80, 50)).residual(found.color, picture)
    assert float(residual.abs().max()) < 2 / 255
    assert found.deviation is not None
    assert entire.deviation is not None
    assert float((found.deviation - entire.deviation).abs().max()) < 1e-3 < float(entire.deviation.min())


def test_consistency_needs_a_known_reduction(tiny_model: Model) -> None:
    blind = replace(tiny_model, config=replace(TINY, degradation="photo"))
    with pytest.raises(UsageError, match="--consistency needs a model of bicubic reduction; this one is for photo"):
        Upscaler(blind, Settings(consistency=0.5))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fidelity": 1.5}, "--fidelity is 1.5"),
        ({"consistency": -0.1}, "--consistency is -0.1"),
        ({"samples": 0}, "--samples is 0"),
    ],
)
def test_wrong_settings(change: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Settings(**change)  # type: ignore[arg-type]


def test_maps(tmp_path: Path) -> None:
    deviation = torch.tensor([[0.0, uncertainty.FULL / 4], [uncertainty.FULL, 0.5]])
    uncertainty.write(tmp_path / "a.png", tmp_path / "b.png", deviation)
    numbers, colours = (np.asarray(Image.open(tmp_path / name)) for name in ("a.png", "b.png"))
    assert numbers.dtype == np.uint16
    assert numbers.tolist() == [[0, round(65535 * uncertainty.FULL / 4)], [round(65535 * uncertainty.FULL), 32768]]
    assert colours[0, 0].tolist() == [0, 0, 4]
    assert colours[0, 1].tolist() == [87, 16, 110]
    assert colours[1].tolist() == [[252, 255, 164]] * 2


def test_samples_of_the_command(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    Image.effect_noise((20, 16), 60).convert("RGB").save(tmp_path / "a.png")
    options = ["-m", tiny_file, "--steps", 2, "--samples", 2, "--uncertainty", "-s", 3]
    code, _, err = program("upscale", "a.png", "out", *options)
    assert code == 0, err
    names = {p.name for p in (tmp_path / "out").iterdir() if p.suffix == ".png"}
    assert names == {"a.png", "a_uncertainty.png", "a_uncertainty_preview.png"}
    with Image.open(tmp_path / "out" / "a_uncertainty.png") as numbers:
        assert (numbers.mode, numbers.size) == ("I;16", (60, 48))


def test_uncertainty_needs_samples(program: Program, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    code, _, err = program("upscale", "a.png", "--uncertainty")
    assert code == 2
    assert "--uncertainty compares samples, --samples is 1" in err


def test_the_report_names_the_agreement(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    """With consistency the output, reduced again, is within rounding of the input: 1/255 is 48 dB."""
    ramp = Image.linear_gradient("L").resize((24, 20)).convert("RGB")
    (tmp_path / "in").mkdir()
    ramp.point(lambda v: 60 + v // 2).save(tmp_path / "in" / "a.png")
    code, _, err = program("upscale", "in", "out", "-m", tiny_file, "--consistency", 1, "--steps", 2)
    assert code == 0
    agreement = err.split("LR-PSNR ")[1].split()[0]
    assert float(agreement) > 20 * math.log10(255)
    assert f"{Manifest(tmp_path / 'out').entries[0].agreement:.1f}" == agreement


def test_the_dial_of_the_bundled_model_trades_psnr_for_texture(bundled: Model) -> None:
    """From 1 to 0 PSNR falls and LPIPS gets better, on a picture that it never saw."""
    hr = photo("chelsea")[:, 90:218, 120:248]
    lr = degrade(hr[None], 4)[0]
    made = [Upscaler(bundled, Settings(fidelity=f))([lr])[0] for f in (1.0, 0.75, 0.5, 0.25, 0.0)]
    fidelity = [psnr(luma(images.to_bytes(x)), luma(images.to_bytes(hr)), 4) for x in made]
    assert fidelity == sorted(fidelity, reverse=True)
    weights = SHARED / "metrics" / "lpips-alex.safetensors"
    if not weights.is_file():
        pytest.skip("PSNR was checked; the LPIPS weights are not part of the repository")
    lpips = load_lpips(weights)
    assert lpips
    distances = [lpips(images.to_unit(images.to_bytes(x)), hr) for x in made]
    assert distances == sorted(distances, reverse=True)


def test_the_bundled_model_agrees_with_its_input_where_asked(bundled: Model) -> None:
    """Mean and 99.9th percentile of what is left before rounding are below one level."""
    hr = photo("astronaut")[:, 20:180, 140:300]
    lr = degrade(hr[None], 4)[0]
    out = Upscaler(bundled, Settings(consistency=1))([lr])[0]
    residual = projection_of((160, 160), (40, 40)).residual(out.clamp(-1, 1), lr).abs() / 2
    assert float(residual.mean()) < 1 / 255
    assert float(residual.flatten().quantile(0.999)) < 1 / 255
