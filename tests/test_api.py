"""dreamsr in Python gives what the program gives, in the form that came in."""

import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import photo
from PIL import Image
from programs import Program, load

import dreamsr
from dreamsr.core.resize import bicubic
from dreamsr.files import images
from dreamsr.files.images import Picture

ROOT = Path(__file__).resolve().parents[1]
ALPHA = torch.linspace(-1, 1, 20).expand(1, 14, 20)


@pytest.fixture
def model(tiny_file: Path) -> dreamsr.Model:
    return dreamsr.load(tiny_file, device="cpu", dtype="fp32")


def cat(mode: str = "RGB") -> Image.Image:
    """A small photo of some colours."""
    picture = Picture(photo("chelsea")[:, 90:104, 120:140], ALPHA if mode.endswith("A") else None, mode[0] == "L")
    return images.to_pil(picture)


def cut_off() -> Image.Image:
    """An image whose file ends too early, which Pillow notices late."""
    data = io.BytesIO()
    cat().save(data, "PNG")
    return Image.open(io.BytesIO(data.getvalue()[:-200]))


def test_the_public_names() -> None:
    assert dreamsr.__all__ == ["DreamSRError", "Model", "UsageError", "__version__", "load"]
    assert all(getattr(dreamsr, name) for name in dreamsr.__all__)
    with pytest.raises(AttributeError, match="'dreamsr' has no attribute 'upscale'"):
        dreamsr.upscale  # noqa: B018


def test_import_is_fast() -> None:
    code = "import sys, dreamsr; assert not {'torch', 'numpy', 'PIL'} & set(sys.modules); dreamsr.load"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, []),
        ({"scale": 2.5, "steps": 2, "seed": 3}, ["--scale", 2.5, "--steps", 2, "--seed", 3]),
        ({"sampler": "ddpm", "tile": 128}, ["--sampler", "ddpm", "--tile", 128]),
        ({"grid": "karras"}, ["--grid", "karras"]),
        ({"grid": (-3, np.float32(-0.5), 1e-5, 1.25)}, ["--grid=-3,-.5,1e-5,1.25"]),
    ],
)
def test_pixels_are_those_of_the_program(
    mode: str, options: dict[str, Any], words: list[object], model: dreamsr.Model, program: Program, tiny_file: Path
) -> None:
    image = cat(mode)
    image.save("in.png")
    assert program("upscale", "in.png", "out.png", "-m", tiny_file, "--dtype", "fp32", *words)[0] == 0
    wanted = load("out.png")
    made = model.upscale(image, **options)
    assert (made.mode, made.size) == (mode, wanted.size)
    assert made.tobytes() == wanted.tobytes()
    array = np.asarray(image)
    assert np.array_equal(model.upscale(array, **options), np.asarray(wanted))


def test_16_bits_are_those_of_the_program(model: dreamsr.Model, program: Program, tiny_file: Path) -> None:
    picture = Picture(photo("coffee")[:, 90:104, 120:140] * 0.9, depth=16)
    images.write(Path("in.png"), picture)
    assert program("upscale", "in.png", "out.png", "-m", tiny_file, "--dtype", "fp32", "--steps", 1)[0] == 0
    array = np.round((picture.color.permute(1, 2, 0).numpy() + 1) * (65535 / 2)).astype(np.uint16)
    made = model.upscale(array, steps=1)
    wanted = (images.read(Path("out.png")).color.permute(1, 2, 0).double() + 1) * (65535 / 2)
    assert made.dtype == np.uint16
    assert float(np.abs(made - wanted.numpy()).max()) < 0.1


def test_the_order_of_bytes_makes_no_difference(model: dreamsr.Model) -> None:
    array = np.random.default_rng(0).integers(0, 65536, (9, 12, 3)).astype(np.uint16)
    made, swapped = model.upscale(array, steps=1), model.upscale(array.astype(">u2"), steps=1)
    assert swapped.dtype == np.dtype(">u2")
    assert np.array_equal(made, swapped)


@pytest.mark.parametrize("channels", [0, 1, 2, 3, 4])
@pytest.mark.parametrize(("dtype", "rounding"), [(np.float16, 0.25), (np.float32, 1e-3), (np.float64, 1e-3)])
def test_floating_arrays_are_bytes_before_rounding(
    channels: int, dtype: type, rounding: float, model: dreamsr.Model
) -> None:
    planes: Any = {0: 0, 1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[channels]
    array: npt.NDArray[Any] = np.asarray(cat("RGBA"))[..., planes]
    made, wanted = model.upscale((array / 255).astype(dtype), steps=1), model.upscale(array, steps=1)
    assert made.dtype == dtype
    assert made.shape == wanted.shape == (56, 80, *array.shape[2:])
    assert float(np.abs(255 * made.astype(np.float64) - wanted).max()) < 0.5 + rounding


def test_floating_arrays_are_reduced_without_rounding(model: dreamsr.Model) -> None:
    array = np.asarray(cat()) / 255
    whole, half = (torch.from_numpy(model.upscale(array, steps=1, scale=scale)).permute(2, 0, 1) for scale in (4, 2))
    torch.testing.assert_close(half, bicubic(whole[None], (28, 40))[0].clamp(0, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_tensors(dtype: torch.dtype, model: dreamsr.Model) -> None:
    pixels = np.asarray(cat())
    one = torch.from_numpy(pixels.copy()).permute(2, 0, 1).to(dtype) / 255
    made = model.upscale(one)
    assert (made.shape, made.dtype, made.requires_grad) == ((3, 56, 80), dtype, False)
    wanted = torch.from_numpy(model.upscale(pixels)).permute(2, 0, 1)
    assert float((255 * made - wanted).abs().max()) < 0.7
    batch = model.upscale(torch.stack([one.flip(2), one, one.flip(1)]))
    assert batch.shape == (3, 3, 56, 80)
    assert torch.equal(batch[1], made)
    assert not torch.equal(batch[0], made)


@pytest.mark.parametrize("scale", [4, 3])
def test_previews_end_with_the_result(scale: int, model: dreamsr.Model) -> None:
    image = cat("RGBA")
    previews = list(model.steps(image, steps=3, scale=scale))
    assert [(p.mode, p.size) for p in previews] == [("RGBA", (20 * scale, 14 * scale))] * 3
    assert previews[-1].tobytes() == model.upscale(image, steps=3, scale=scale).tobytes()
    assert len({p.tobytes() for p in previews}) == 3
    batch = torch.rand(2, 3, 5, 6)
    *_, last = model.steps(batch, steps=2)
    assert torch.equal(last, model.upscale(batch, steps=2))


def test_the_profile_is_kept(model: dreamsr.Model) -> None:
    image = cat()
    image.info |= {"icc_profile": b"colours", "dpi": (72, 72)}
    assert model.upscale(image, steps=1).info == {"icc_profile": b"colours"}


def test_a_palette_is_looked_up(model: dreamsr.Model) -> None:
    image = cat().quantize(16)
    assert model.upscale(image, steps=1).tobytes() == model.upscale(image.convert("RGB"), steps=1).tobytes()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("photo.jpg", "str is no picture"),
        (Image.new("CMYK", (3, 3)), "mode CMYK"),
        (Image.new("I;16", (3, 3)), "mode I;16"),
        (Image.new("RGB", (0, 3)), "a picture of 0x3 pixels"),
        (np.zeros((3, 3, 3), np.int64), "an array of int64"),
        (np.zeros((3, 3), bool), "an array of bool"),
        (np.zeros((3, 3), np.uint8).view(np.matrix), "matrix is no picture"),
        (np.ma.masked_equal(np.zeros((3, 3), np.uint8), 1), "MaskedArray is no picture"),
        (torch.zeros(3, 9, 9, device="meta"), "on meta"),
        (torch.zeros(3, 9, 9).to_sparse(), "layout torch.sparse_coo"),
        (cut_off(), "the Pillow image cannot be read"),
        (np.zeros((3, 3, 5), np.uint8), "an array of shape (3, 3, 5)"),
        (np.zeros((1, 3, 3, 3), np.uint8), "an array of shape (1, 3, 3, 3)"),
        (np.zeros((0, 3, 3), np.uint8), "a picture of 3x0 pixels"),
        (np.full((3, 3, 3), 255.0), "values from 255 to 255; expected 0 to 1"),
        (np.full((3, 3), -0.1), "values from -0.1 to -0.1"),
        (torch.full((3, 3, 3), float("nan")), "values from nan to nan"),
        (torch.zeros(3, 3, 3, dtype=torch.uint8), "a tensor of torch.uint8"),
        (torch.zeros(1, 9, 9), "a tensor of shape (1, 9, 9)"),
        (torch.zeros(9, 9, 3), "a tensor of shape (9, 9, 3)"),
        (torch.zeros(0, 3, 9, 9), "a tensor of shape (0, 3, 9, 9)"),
        (torch.zeros(3, 0, 9), "a picture of 9x0 pixels"),
    ],
)
def test_other_pictures_are_refused(image: Any, words: str, model: dreamsr.Model) -> None:
    for call in (model.upscale, model.steps):
        with pytest.raises(dreamsr.UsageError) as raised:
            call(image)
        assert words in raised.value.message
        assert "\n" not in raised.value.message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": 5}, "scale is 5; this model makes 1 to 4"),
        ({"steps": 0}, "steps is 0"),
        ({"sampler": "euler"}, "sampler 'euler' is unknown"),
        ({"tile": 100}, "tile is 100"),
        ({"grid": [-4.0, 0.0], "steps": 3}, "grid names 2 levels, --steps is 3"),
        ({"grid": "-4,zero"}, "grid '-4,zero' is unknown"),
        ({"grid": None}, "grid is None; expected a name or a list of levels"),
        ({"steps": "4"}, "steps is '4'; expected a whole number"),
        ({"samples": 1.5}, "samples is 1.5; expected a whole number"),
        ({"scale": "2"}, "scale is '2'; expected a number"),
        ({"seed": -1}, "seed is -1; expected a whole number from 0"),
        ({"colour": "red"}, "option 'colour' is unknown"),
        ({"batch": 2}, "option 'batch' is unknown"),
    ],
)
def test_other_options_are_refused(options: dict[str, Any], words: str, model: dreamsr.Model) -> None:
    for call in (model.upscale, model.steps):
        with pytest.raises(dreamsr.UsageError, match=words):
            call(cat(), **options)
    numbers: Any = {"steps": np.int64(1), "scale": np.float32(2)}
    assert model.upscale(cat(), **numbers).size == (2 * cat().width, 2 * cat().height)


def test_previews_say_at_once_what_is_wrong_and_when_memory_runs_out(
    model: dreamsr.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(dreamsr.UsageError, match="there are no previews of 2 samples"):
        model.steps(cat(), samples=2)

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("dreamsr.core.noise.normal", full)
    with pytest.raises(dreamsr.DreamSRError, match="the device has too little memory"):
        list(model.steps(cat()))


def test_a_path_is_no_name(tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run folder that is called as a bundled model."""
    (tmp_path / "bicubic-x4").mkdir()
    tiny_file.rename(tmp_path / "bicubic-x4" / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    assert dreamsr.load(Path("bicubic-x4"), device="cpu").name == "tiny"
    assert dreamsr.load("./bicubic-x4", device="cpu").name == "tiny"
    assert dreamsr.load("bicubic-x4", device="cpu").name == "bicubic-x4"
    assert dreamsr.load(Path("photo-x4"), device="cpu").name == "photo-x4"


def test_previews_of_what_is_made_in_parts(model: dreamsr.Model) -> None:
    with pytest.raises(dreamsr.UsageError, match=r"an output of 4 x 4100 pixels is made in parts"):
        next(model.steps(np.zeros((1, 1025, 3), np.uint8), steps=1))


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(dreamsr.UsageError, match="model 'nothing' is unknown"):
        dreamsr.load("nothing")
    with pytest.raises(dreamsr.UsageError, match="device 'toaster' cannot be used"):
        dreamsr.load(device="toaster")


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_examples_of_the_documents(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cat().save("photo.jpg")
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    if page == "README.md":
        assert load("photo_x4.png").size == (80, 56)
        return
    assert (names["large"].size, names["twice"].size, names["array"].shape) == ((80, 56), (40, 28), (56, 80, 3))
    assert (names["batch"].shape, names["batch"].dtype) == ((2, 3, 96, 128), torch.float32)
    assert load("step_3.png").tobytes() == names["large"].tobytes()
