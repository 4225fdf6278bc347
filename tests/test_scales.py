"""A network of many scales: what it makes at 2.5 or 1.5 has the promises of the model's own scale."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, photo, randomise
from PIL import Image, ImageCms
from programs import Program, load, small
from torch import Tensor

import dreamsr
from dreamsr.config import ModelConfig, NetworkConfig, TrainConfig
from dreamsr.core import enlargement
from dreamsr.core.consistency import Projection
from dreamsr.core.enlargement import Axis, window
from dreamsr.core.networks import PatchUNet
from dreamsr.core.resize import bicubic
from dreamsr.core.size import Size
from dreamsr.data.degrade import reduced
from dreamsr.engine import optimize
from dreamsr.engine import upscaler as upscaling
from dreamsr.engine.evaluator import fitted
from dreamsr.engine.schedule import Settings
from dreamsr.engine.upscaler import Upscaler
from dreamsr.files import checkpoint, images
from dreamsr.files.checkpoint import Model
from dreamsr.files.images import Picture

NETWORK = NetworkConfig(widths=(8,), blocks=1, encoder_blocks=1, scale_embedding=True)
FREE = replace(TINY, name="free", smallest_scale=1.5, network=NETWORK)


@pytest.fixture
def free() -> Model:
    return Model(FREE, randomise(checkpoint.build(FREE)).eval(), {}).to("cpu")


@pytest.fixture
def free_file(free: Model, tmp_path: Path) -> Path:
    path = tmp_path / "free.safetensors"
    checkpoint.save_model(path, free, torch.float32)
    return path


def pictures() -> list[Tensor]:
    return [photo("chelsea")[:, 50:91, 60:123], photo("coffee")[:, 5:6, 7:8], photo("rocket")[:, 100:117, 200:263]]


def grown(upscaler: Upscaler, xs: list[Tensor], factor: float) -> list[Size]:
    return [upscaler.made_size((x.shape[1], x.shape[2]), factor) for x in xs]


@pytest.mark.parametrize(
    ("factor", "expected"), [(None, (28, 44)), (4, (28, 44)), (2.5, (18, 28)), (1.5, (11, 17)), (1.1, (11, 17))]
)
def test_the_size_that_the_network_makes(factor: float | None, expected: Size, free: Model) -> None:
    """floor(factor n + 0.5) down to the smallest scale, and a network of one scale makes no other size."""
    assert Upscaler(free).made_size((7, 11), factor) == expected
    fixed = replace(free, config=replace(FREE, smallest_scale=None))
    assert Upscaler(fixed).made_size((7, 11), factor) == (28, 44)


@pytest.mark.parametrize("factor", [2.5, 1.5])
def test_a_fresh_network_is_bicubic_at_any_scale(factor: float) -> None:
    upscaler = Upscaler(Model(FREE, checkpoint.build(FREE), {}), Settings(steps=2, tile=128))
    sizes = grown(upscaler, pictures(), factor)
    for x, size, out in zip(pictures(), sizes, upscaler(pictures(), sizes), strict=True):
        torch.testing.assert_close(out, bicubic(x[None], size)[0].clamp(-1, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("size", "scale"), [((82, 126), 2), ((164, 252), 4), ((82, 252), 8**0.5)])
def test_the_network_is_told_the_scale(size: Size, scale: float, free: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the whole picture, also where it is solved in blocks; of unequal factors the geometric mean."""
    told: list[Tensor] = []

    def listening(self: PatchUNet, anchor: Tensor, scale: Tensor) -> Tensor:
        told.append(scale)
        return encode(self, anchor, scale)

    encode = PatchUNet.encode
    monkeypatch.setattr(PatchUNet, "encode", listening)
    for block in (4096, 112):
        monkeypatch.setattr(upscaling, "WHOLE", block)
        monkeypatch.setattr(upscaling, "BLOCK", block)
        monkeypatch.setattr(upscaling, "MARGIN", 32)
        Upscaler(free, Settings(steps=1, tile=128))(pictures()[:1], [size])
    assert len(told) > 2
    assert torch.cat(told).tolist() == pytest.approx([scale] * len(told))


def test_what_is_told_changes_what_is_encoded(free: Model) -> None:
    """The same anchor as of x2 and of x4; equal for a network that is not told."""
    anchor = bicubic(pictures()[0][None], (82, 126))
    scales = [torch.tensor([factor]) for factor in (2.0, 4.0)]
    two, four = (free.network.encode(anchor, scale) for scale in scales)
    assert float((two - four).detach().abs().mean()) > 0.01
    config = replace(FREE, network=replace(NETWORK, scale_embedding=False))
    untold = randomise(checkpoint.build(config))
    assert torch.equal(*(untold.encode(anchor, scale) for scale in scales))


def test_a_network_that_is_told_begins_as_one_that_is_not() -> None:
    config = replace(FREE, network=replace(NETWORK, scale_embedding=False))
    untold = Model(config, randomise(checkpoint.build(config)).eval(), {})
    told = Model(FREE, optimize.new_state(TrainConfig(FREE), torch.device("cpu"), untold.network).ema.eval(), {})
    for factor in (4, 2.5):
        sizes = grown(Upscaler(untold), pictures(), factor)
        before, after = (Upscaler(model, Settings(steps=2))(pictures(), sizes) for model in (untold, told))
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("told", [False, True])
def test_a_network_with_a_longer_encoder_begins_as_it_was(told: bool) -> None:
    """Its first blocks are told of the scale what they were; all blocks learn."""
    network = replace(NETWORK, scale_embedding=told)
    config = replace(FREE, network=network)
    longer = TrainConfig(replace(config, network=replace(network, encoder_blocks=3)))
    before = randomise(checkpoint.build(config)).eval()
    state = optimize.new_state(longer, torch.device("cpu"), before)
    anchor = bicubic(pictures()[0][None], (82, 126))
    for factor in (2.0, 4.0):
        scale = torch.tensor([factor])
        assert torch.equal(state.ema.encode(anchor, scale), before.encode(anchor, scale))
    state.network.encode(anchor, torch.tensor([2.0])).square().sum().backward()
    gradients = [p.grad for name, p in state.network.named_parameters() if "encoder" in name and "conv2.weight" in name]
    assert len(gradients) == 3
    assert all(gradient is not None and gradient.any() for gradient in gradients)


@pytest.mark.parametrize("factor", [2.5, 1.5])
def test_company_order_and_batch_do_not_matter(factor: float, free: Model) -> None:
    """Nor does it matter which sizes the others get."""
    upscaler = Upscaler(free, Settings(steps=3, tile=128, sampler="ddpm"))
    xs, sizes = pictures(), grown(upscaler, pictures(), factor)
    sizes[1] = (4, 4)
    together, backward = upscaler(xs, sizes), upscaler(xs[::-1], sizes[::-1])
    batched = replace(upscaler, settings=replace(upscaler.settings, batch=3))(xs, sizes)
    for x, size, a, b, c in zip(xs, sizes, together, reversed(backward), batched, strict=True):
        assert a.shape == (3, *size)
        assert torch.equal(a, b)
        assert torch.equal(a, upscaler([x], [size])[0])
        assert float((a - c).abs().max()) < 1e-4


@pytest.mark.parametrize("factor", [2.5, 1.5])
@pytest.mark.parametrize(("steps", "most"), [(1, 1e-5), (3, 2 / 255)])
def test_tiles_equal_the_whole(factor: float, steps: int, most: float, free: Model) -> None:
    x = photo("astronaut")[:, :181, :143]
    size = Upscaler(free).made_size((181, 143), factor)
    whole = Upscaler(free, Settings(steps=steps, tile=576))([x], [size])[0]
    parts = Upscaler(free, Settings(steps=steps, tile=192))([x], [size])[0]
    assert float((whole - bicubic(x[None], size)[0]).std()) > 0.02
    assert float((whole - parts).abs().max()) <= most


@pytest.mark.parametrize("factor", [3.3, 2.5, 1.5])
def test_blocks_join(factor: float, free: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise and anchors of blocks are those of the whole, wherever between the input's pixels they begin."""
    x = photo("astronaut")[:, :203, :167]
    upscaler = Upscaler(free, Settings(steps=3))
    size = upscaler.made_size((203, 167), factor)
    (whole,) = upscaler([x], [size])
    monkeypatch.setattr(upscaling, "WHOLE", 224)
    monkeypatch.setattr(upscaling, "BLOCK", 320)
    (joined,) = upscaler([x], [size])
    assert joined.shape == whole.shape == (3, *size)
    assert not torch.equal(joined, whole)
    assert float((joined - whole).abs().max()) <= 2 / 255


@pytest.mark.parametrize("size", [(150, 175), (90, 105), (101, 140), (61, 71), (60, 70)])
def test_a_window_of_an_enlargement_is_a_part_of_the_whole(size: Size, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also at its ends, and where rows and columns grow by different factors."""
    monkeypatch.setattr(enlargement, "STRIP", 48)
    x = photo("coffee")[:, :60, :70]
    whole = bicubic(x[None].double(), size)[0].float()
    height, width = size
    for top, bottom in ((0, height), (17, 48), (height - 1, height)):
        for left, right in ((0, 33), (16, width), (50, 51)):
            axes = Axis(60, height, top, bottom), Axis(70, width, left, right)
            part = window(x, *axes, torch.device("cpu"))
            torch.testing.assert_close(part.anchor, whole[:, top:bottom, left:right], rtol=0, atol=1e-5)


def test_a_window_holds_the_pixels_that_lie_in_it() -> None:
    """At 2.5 pixel i covers [2.5 i, 2.5 i + 2.5); all of a whole axis, and of a whole scale those of before."""
    assert Axis(40, 100, 16, 48).held == slice(7, 19)
    assert Axis(40, 100, 0, 100).held == slice(0, 40)
    assert Axis(25, 100, 16, 48).held == slice(4, 12)
    # and sees two more than it touches on either side, as far as there are any
    assert Axis(40, 100, 16, 48).seen == slice(4, 22)
    assert Axis(40, 100, 0, 100).seen == slice(0, 40)


@pytest.mark.parametrize("size", [(200, 125), (117, 73)])
def test_consistency_holds_at_any_scale(size: Size, free: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one piece exactly, over blocks within what they differ by where they meet."""
    x = bicubic(torch.rand(1, 3, 9, 7, generator=torch.Generator().manual_seed(3)) - 0.5, (80, 50))[0]
    upscaler = Upscaler(free, Settings(steps=2, consistency=1, tile=128))
    projection = Projection.of(Axis(80, size[0], 0, size[0]), Axis(50, size[1], 0, size[1]))
    assert float(projection.residual(upscaler([x], [size])[0], x).abs().max()) < 1e-5
    for name, value in (("WHOLE", 64), ("BLOCK", 112), ("MARGIN", 32)):
        monkeypatch.setattr(upscaling, name, value)
    assert float(projection.residual(upscaler([x], [size])[0], x).abs().max()) < 2 / 255


@pytest.mark.parametrize(("scale", "made"), [("2.5", (75, 50)), ("1.5", (45, 30)), ("1.2", (45, 30)), ("4", (120, 80))])
def test_the_program_writes_what_the_network_made(
    scale: str, made: Size, program: Program, free: Model, free_file: Path
) -> None:
    """At --scale where the model knows it; below, its smallest scale reduced as Pillow does."""
    x = images.read(small(Path("a.png"))).color
    code, _, err = program("upscale", "a.png", "b.png", "-s", scale, "-m", free_file, "--steps", 2, "--dtype", "fp32")
    assert code == 0, err
    (whole,) = Upscaler(free, Settings(steps=2))([x], [(made[1], made[0])])
    wanted = images.to_pil(Picture(whole))
    assert wanted.size == made
    if scale == "1.2":
        wanted = wanted.resize((36, 24), Image.Resampling.BICUBIC)
    assert load("b.png").tobytes() == wanted.tobytes()


def test_width_asks_for_a_scale_of_its_own(program: Program, free: Model, free_file: Path) -> None:
    """30x20 to a width of 64: 64x43, solved at that size."""
    x = images.read(small(Path("a.png"))).color
    assert program("upscale", "a.png", "b.png", "--width", 64, "-m", free_file, "--steps", 1, "--dtype", "fp32")[0] == 0
    (whole,) = Upscaler(free, Settings(steps=1))([x], [(43, 64)])
    assert load("b.png").tobytes() == images.to_pil(Picture(whole)).tobytes()


def test_depth_transparency_profile_and_resolution_follow(program: Program, free_file: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    alpha = torch.full((1, 20, 30), -1.0)
    alpha[:, :, 15:] = 1
    images.write(Path("a.png"), Picture(photo("chelsea")[:, :20, :30] * 0.9, alpha, depth=16))
    picture = images.read(Path("a.png"))
    metadata = replace(picture.metadata, icc=profile, dpi=(72.0, 72.0))
    images.write(Path("a.png"), replace(picture, metadata=metadata))
    code, _, err = program("upscale", "a.png", "b.png", "-s", 2.5, "-m", free_file, "--steps", 1)
    assert code == 0, err
    made = images.read(Path("b.png"))
    assert (made.size, made.depth, made.metadata.icc) == ((50, 75), 16, profile)
    assert made.metadata.dpi == pytest.approx((180, 180), abs=0.1)
    assert made.alpha is not None
    assert bool((made.alpha[..., :35] == -1).all())
    assert bool((made.alpha[..., 40:] == 1).all())
    assert np.unique(np.asarray((made.color * 65535).round())).size > 256 * 3
    assert made.metadata.provenance
    assert made.metadata.provenance.scale == 2.5


def test_another_scale_is_another_job(program: Program, free_file: Path) -> None:
    small(Path("in/a.png"))
    job = ("upscale", "in", "out", "-m", free_file, "--steps", 1, "--json")
    for scale, status, width in ((2.5, "done", 75), (2.5, "skipped", 75), (2, "done", 60)):
        _, out, _ = program(*job, "--scale", scale)
        assert json.loads(out.splitlines()[0])["status"] == status
        assert load("out/a.png").width == width


def test_a_dry_run_counts_the_tiles_of_the_scale(program: Program, free_file: Path) -> None:
    """100 pixels of input are one tile of 224 at x2 and four at x4."""
    small(Path("in/a.png"), torch.zeros(3, 100, 100))
    for scale, tiles in ((2, "1 tile"), (4, "4 tiles")):
        job = ("upscale", "in", "out", "-m", free_file, "--steps", 1, "--tile", 256, "--scale", scale, "--dry-run")
        _, _, err = program(*job)
        assert tiles in err


def test_python_makes_what_the_program_makes(program: Program, free_file: Path) -> None:
    small(Path("a.png"))
    model = dreamsr.load(free_file, device="cpu", dtype="fp32")
    assert "x1.5 to x4" in repr(model)
    for scale in (2.5, 1.2):
        job = ("upscale", "a.png", "b.png", "-m", free_file, "--dtype", "fp32", "--overwrite", "--steps", 2)
        assert program(*job, "--scale", scale)[0] == 0
        made = model.upscale(load("a.png"), scale=scale, steps=2)
        assert made.tobytes() == load("b.png").tobytes()
        *_, last = model.steps(load("a.png"), scale=scale, steps=2)
        assert last.tobytes() == made.tobytes()


@pytest.mark.parametrize(
    ("scale", "cut", "reduced"),
    [(2, (62, 82), (31, 41)), (3, (63, 81), (21, 27)), (2.5, (63, 83), (25, 33)), (1.5, (63, 83), (42, 55))],
)
def test_what_is_measured_at_a_scale(scale: float, cut: Size, reduced: Size) -> None:
    hr, size = fitted(torch.zeros(3, 63, 83), scale)
    assert (hr.shape[1:], size) == (cut, reduced)


@pytest.mark.parametrize(("scale", "shown"), [(2, "2"), (2.5, "2.5")])
def test_eval_at_another_scale(scale: float, shown: str, program: Program, free: Model, free_file: Path) -> None:
    """A network whose last layer is zero is bicubic, and measures as bicubic does."""
    checkpoint.save_model(free_file, replace(free, network=checkpoint.build(FREE)), torch.float32)
    small(Path("hr/a.png"), photo("chelsea")[:, 100:163, 100:183])
    code, out, err = program("eval", "-m", free_file, "--data", "hr", "--steps", 1, "--scale", scale, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["protocol"]["downscaling"].startswith(f"by {shown},")
    assert document["protocol"].get("mod_crop") == (2 if scale == 2 else None)
    assert document["protocol"]["y"].endswith("crop 2" if scale == 2 else "crop 3")
    means = document["means"]
    for key in ("psnr_y", "ssim_rgb", "psnr_lr"):
        assert means["1 step"][key] == pytest.approx(means["bicubic"][key], abs=1e-3)


@pytest.mark.parametrize("scale", ["1.2", "2.5"])
def test_eval_measures_what_upscale_writes(scale: str, program: Program, free_file: Path) -> None:
    """Below the smallest scale of the model, too, where what the network makes is reduced."""
    hr = photo("chelsea")[:, 100:160, 100:160]
    side = round(60 / float(scale))
    small(Path("hr/a.png"), hr)
    small(Path("lr/a.png"), reduced(hr[None], (side, side))[0])
    settings = ("-m", free_file, "--steps", 2, "--scale", scale)
    assert program("upscale", "lr", "sr", *settings)[0] == 0
    code, out, err = program("eval", *settings, "--data", "hr", "--against", "sr", "--json")
    assert code == 0, err
    own, written = (json.loads(out)["means"][name] for name in ("2 steps", "sr/"))
    for key in ("psnr_y", "ssim_rgb", "psnr_lr"):
        assert own[key] == pytest.approx(written[key], abs=1e-9)


def test_a_scale_out_of_range_is_one_line(program: Program, free_file: Path) -> None:
    small(Path("hr/a.png"))
    code, out, err = program("eval", "--data", "hr", "--scale", 4.5, "-m", free_file)
    assert (code, out) == (2, "")
    assert "this model makes x1.5 to x4" in err


def test_models_tell_their_scales(program: Program, free_file: Path) -> None:
    assert "scales\tx1.5 to x4" in program("models", "info", free_file)[1].splitlines()
    assert "scales\tx4" in program("models", "info", "bicubic-x4")[1].splitlines()
    assert ModelConfig(smallest_scale=4).scales == "x4"
