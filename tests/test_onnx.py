"""A graph that onnxruntime runs, and what it promises: the pictures that dreamsr makes."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, photo, randomise
from PIL import Image
from programs import PROGRAM, Program, load, small
from torch import Tensor, nn

from dreamsr.config import NetworkConfig, SamplerName
from dreamsr.core.sampling import SAMPLERS, solve
from dreamsr.core.unrolled import Unrolled, coefficients
from dreamsr.engine import exporter
from dreamsr.engine.schedule import Settings
from dreamsr.engine.upscaler import Upscaler
from dreamsr.errors import CheckpointError, DreamSRError
from dreamsr.files import checkpoint, hub, onnx
from dreamsr.files.checkpoint import Model
from dreamsr.files.manifest import file_digest

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = Settings(steps=3, sampler="dpmpp-2m")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A tiny model as ONNX, made once by the program, since tracing takes seconds."""
    folder = tmp_path_factory.mktemp("onnx")
    model = Model(TINY, randomise(checkpoint.build(TINY)).eval(), {"licence": "mine"})
    checkpoint.save_model(folder / "tiny.safetensors", model, torch.float32)
    words = ["tiny.safetensors", "tiny.onnx", "--format", "onnx", "--steps", "3", "name=small"]
    command = [*PROGRAM, "export", *words, "sampling.sampler=dpmpp-2m"]
    return folder / "tiny.onnx", subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def graph(exported: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    file, done = exported
    assert done.returncode == 0, done.stderr
    return file


@pytest.mark.parametrize("sampler", [name for name, known in SAMPLERS.items() if not known.variance])
def test_the_coefficients_are_the_solver(sampler: SamplerName, tiny_model: Model) -> None:
    levels = Upscaler(tiny_model, Settings(steps=5)).schedule.levels
    generator = torch.Generator().manual_seed(0)
    axes = [torch.randn(7, dtype=torch.float64, generator=generator) for _ in range(6)]
    seen: list[Tensor] = []

    def denoise(u: Tensor, level: Tensor) -> Tensor:
        seen.append(u.clone())
        return axes[len(seen)]

    list(solve(denoise, 1.2 * axes[0] * levels[0, 1], levels, SAMPLERS[sampler]))
    rows = coefficients(levels, SAMPLERS[sampler], noise_scale=1.2)
    assert [len(row) for row in rows] == [1, 2, 3, 4, 5]
    for row, u in zip(rows, seen, strict=True):
        torch.testing.assert_close(sum(w * x for w, x in zip(row, axes, strict=False)), u, rtol=1e-12, atol=1e-12)


def test_what_the_program_says(exported: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, done = exported
    assert (done.returncode, done.stdout) == (0, "tiny.onnx\n"), done.stderr
    sampling, sizes = done.stderr.splitlines()
    assert sampling == "3 steps inside, by dpmpp-2m, lambda -4 2"
    found = re.fullmatch(r"small: [\d.]+ MiB, fp32, largest difference .*: (.*)", sizes)
    assert found, done.stderr
    differences = dict(part.split(" on ")[::-1] for part in found[1].split(", "))
    assert list(differences) == ["48x32", "37x21", "5x3"]
    assert max(map(float, differences.values())) < 1e-4


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (4, 3), (17, 40), (24, 32)])
def test_it_makes_what_dreamsr_makes(size: tuple[int, int], graph: Path, tiny_model: Model) -> None:
    upscaler = Upscaler(tiny_model, SETTINGS)
    picture = (photo("chelsea")[:, 100 : 100 + size[0], 110 : 110 + size[1]] + 1) / 2
    session = onnx.Session(graph.read_bytes())
    made = session(picture=picture[None], noise=exporter._noise(upscaler, size))[0]
    wanted = (upscaler([2 * picture - 1])[0] + 1) / 2
    assert float(wanted.std()) > 0.05
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-4)


def test_a_model_of_many_scales_at_one_of_them(tmp_path: Path) -> None:
    """What the network is told of the scale is in the graph."""
    network = NetworkConfig(widths=(8,), blocks=1, encoder_blocks=1, scale_embedding=True)
    config = replace(TINY, smallest_scale=1.5, network=network)
    checkpoint.save_model(
        tmp_path / "free.safetensors", Model(config, randomise(checkpoint.build(config)), {}), torch.float32
    )
    made = exporter.export_onnx(str(tmp_path / "free.safetensors"), tmp_path / "two.onnx", "fp32", 2, ["scale=2"])
    assert max(made.differences) < 1e-4
    assert onnx.Session((tmp_path / "two.onnx").read_bytes()).metadata["scale"] == "2"


def test_metadata(graph: Path) -> None:
    found = onnx.Session(graph.read_bytes()).metadata
    assert found.pop("software").startswith("dreamsr ")
    assert found == {
        "name": "small",
        "scale": "4",
        "multiple": "8",
        "steps": "3",
        "sampler": "dpmpp-2m, lambda -4 2",
        "fidelity": "0",
        "dtype": "fp32",
        "licence": "mine",
        "model_sha256": file_digest(graph.with_name("tiny.safetensors")),
    }


def test_it_tells_nothing_of_the_machine(graph: Path) -> None:
    data = graph.read_bytes()
    assert str(ROOT).encode() not in data
    assert b"site-packages" not in data


def test_the_runner_of_the_documents(graph: Path, tiny_model: Model, tmp_path: Path) -> None:
    found = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.DOTALL)
    assert found
    assert len(found[1].strip().splitlines()) <= 20
    alone = "import sys; sys.modules.update(torch=None, dreamsr=None, onnx=None)\n"
    (tmp_path / "upscale.py").write_text(alone + found[1])
    small(tmp_path / "in.png")
    command = [sys.executable, "upscale.py", str(graph), "in.png", "out.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    plan = Upscaler(tiny_model, SETTINGS).schedule
    module = Unrolled(tiny_model.denoiser, plan.levels, plan.sampler, 4)
    picture = torch.from_numpy(np.asarray(Image.open(tmp_path / "in.png")).copy()).permute(2, 0, 1)[None] / 255
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, 80, 120), np.float32))
    with torch.no_grad():
        wanted = module(picture, noise)[0].permute(1, 2, 0) * 255
    made = torch.from_numpy(np.asarray(load(tmp_path / "out.png")).copy())
    assert float((made - wanted).abs().max()) < 0.51


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package(
    package: str, program: Program, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    code, _, err = program("export", tiny_file, "out.onnx")
    assert code == 2
    assert err == f"error: ONNX needs {package}, not installed here\n  hint: pip install 'dreamsr[onnx]'\n"


@pytest.mark.parametrize("measured", [None, float("nan")])
def test_a_file_that_fails_the_check_is_not_put_in_place(
    measured: float | None, graph: Path, tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for parameter in tiny_model.network.parameters():
        parameter.mul_(1.1)
    checkpoint.save_model(tmp_path / "other.safetensors", tiny_model, torch.float32)
    old = tmp_path / "out.onnx"
    old.write_bytes(b"old")
    monkeypatch.setattr(onnx, "encode", lambda *_: graph.read_bytes())
    if measured is not None:
        monkeypatch.setattr(exporter, "_difference", lambda *_: measured)
    with pytest.raises(CheckpointError, match="would differ from torch"):
        exporter.export_onnx(str(tmp_path / "other.safetensors"), old, "fp32", 2)
    assert old.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.safetensors", "out.onnx"]


def test_a_network_that_cannot_be_exported(capfd: pytest.CaptureFixture[str]) -> None:
    class Undecided(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(DreamSRError) as raised:
        onnx.encode(Undecided(), {"x": torch.ones(2, 2)}, {"x": {}}, "y", {})
    assert raised.value.message.startswith("this network cannot be exported to ONNX: ")
    assert "\n" not in raised.value.message
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "bound"), [("fp32", 1e-5), ("fp16", 2e-3)])
def test_the_bundled_model(dtype: str, bound: float, tmp_path: Path) -> None:
    made = exporter.export_onnx(hub.DEFAULT_MODEL, tmp_path / "x4.onnx", dtype, 4)
    assert max(made.differences) < bound
