"""One file rebuilds a model; every other file is refused in one line."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY
from safetensors.torch import save_file

from dreamsr.config import ModelConfig, SR3Config
from dreamsr.errors import CheckpointError
from dreamsr.files import checkpoint, foreign
from dreamsr.files.checkpoint import Model
from dreamsr.tables import to_dict


def test_config_card_and_weights_come_back(tiny_model: Model, tiny_file: Path) -> None:
    again = checkpoint.load_model(tiny_file)
    assert again.config == TINY
    assert again.card == {"licence": "none"}
    for name, value in tiny_model.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], value), name


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_half_precision_halves_the_file(name: str, tiny_model: Model, tiny_file: Path, tmp_path: Path) -> None:
    checkpoint.save_model(tmp_path / "half.safetensors", tiny_model, checkpoint.DTYPES[name])
    again = checkpoint.load_model(tmp_path / "half.safetensors")
    for key, value in tiny_model.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[key], value.to(checkpoint.DTYPES[name]).float())
    weights = sum(v.numel() for v in again.network.state_dict().values())
    assert tiny_file.stat().st_size - (tmp_path / "half.safetensors").stat().st_size == pytest.approx(2 * weights, 0.01)


@pytest.mark.parametrize("name", checkpoint.DTYPES)
def test_what_may_overflow_keeps_float32_beside_it(name: str, tiny_model: Model) -> None:
    """fp16 alone: bf16 has the range of float32."""
    model = tiny_model.to("cpu", checkpoint.DTYPES[name])
    assert (model.exact is None) == (name != "fp16")
    assert model.dtype == checkpoint.DTYPES[name]
    if model.exact:
        for key, value in model.exact.state_dict().items():
            assert torch.equal(value, tiny_model.network.state_dict()[key])


def test_another_configuration_leaves_card_and_weights(tiny_model: Model, tiny_file: Path, tmp_path: Path) -> None:
    other = replace(TINY, name="other")
    checkpoint.reconfigure(tiny_file, tmp_path / "other.safetensors", other)
    model = checkpoint.load_model(tmp_path / "other.safetensors")
    assert (model.config, model.card) == (other, tiny_model.card)
    for name, value in tiny_model.network.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], value)


def test_schedules_are_not_in_the_file(tiny_file: Path) -> None:
    _, tensors = checkpoint.read_tensors(tiny_file)
    assert set(tensors) == {name for name, _ in checkpoint.build(TINY).named_parameters()}


def refused(path: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as raised:
        checkpoint.load_model(path)
    assert str(path) in raised.value.message
    assert "\n" not in raised.value.message
    return raised.value


def test_a_missing_file(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "none.safetensors").message


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, ("raise SystemExit('opened')",)

    path = tmp_path / "model.pth"
    path.write_bytes(pickle.dumps(Bomb()))
    error = refused(path)
    assert "is not a safetensors file" in error.message
    assert "never opened" in error.hint
    torch.save({"w": torch.zeros(1)}, path)
    assert "is not a safetensors file" in refused(path).message


def test_a_file_of_another_suffix_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"words")
    assert refused(path).hint == foreign.OURS


def test_a_checkpoint_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"w": torch.zeros(1)}, path, {"format": "pt"})
    assert "is not a dreamsr checkpoint (its format is 'pt'" in refused(path).message


def test_a_newer_format(tmp_path: Path) -> None:
    path = tmp_path / "newer.safetensors"
    save_file({"w": torch.zeros(1)}, path, {"format": "dreamsr 99"})
    error = refused(path)
    assert "'dreamsr 99', expected 'dreamsr 1'" in error.message
    assert error.hint == "if it was made by a newer version, update dreamsr"


def test_the_state_of_a_run_is_told_from_its_model(tmp_path: Path) -> None:
    checkpoint.save_state(tmp_path / "state.safetensors", {"network": {"w": torch.zeros(1)}}, {})
    with pytest.raises(CheckpointError, match="is the training state of a run") as raised:
        checkpoint.load_model(tmp_path / "state.safetensors")
    assert raised.value.hint == f"give its folder: {tmp_path}"


@pytest.mark.parametrize("cut", [4, 100, 5000])
def test_a_truncated_file(cut: int, tiny_file: Path) -> None:
    tiny_file.write_bytes(tiny_file.read_bytes()[:cut])
    error = refused(tiny_file)
    assert "is not a safetensors file" in error.message
    assert "damaged or cut off" in error.hint


@pytest.mark.parametrize("metadata", [{"card": "{"}, {"config": "[]"}, {"card": "3"}])
def test_damaged_metadata(metadata: dict[str, str], tmp_path: Path) -> None:
    assert "has damaged metadata" in refused(written(tmp_path, None, **metadata)).message


def written(tmp_path: Path, change: object, **metadata: str) -> Path:
    weights = {k: v.contiguous() for k, v in checkpoint.build(TINY).state_dict().items()}
    if callable(change):
        change(weights)
    path = tmp_path / "changed.safetensors"
    save_file(weights, path, {"format": checkpoint.FORMAT, "config": json.dumps(to_dict(TINY)), **metadata})
    return path


def test_unknown_configuration(tmp_path: Path) -> None:
    path = written(tmp_path, None, config='{"name": "x", "attention": true}')
    assert "no usable model configuration: unknown key 'attention'" in refused(path).message
    with pytest.raises(CheckpointError, match="no usable model configuration: unknown key 'attention'"):
        checkpoint.describe(path)


@pytest.mark.parametrize("width", [10**6, 10**12])
def test_a_network_that_its_weights_do_not_fit_gets_no_memory(width: int, tmp_path: Path) -> None:
    huge = json.dumps({"network": {"widths": [width, width]}})
    assert "changed.safetensors" in refused(written(tmp_path, None, config=huge)).message


def test_a_configuration_that_never_ends(tmp_path: Path) -> None:
    assert "has damaged metadata" in refused(written(tmp_path, None, config="[" * 100_000)).message


@pytest.mark.parametrize(("value", "words"), [(1e5, "is too large for torch.float16"), (torch.nan, "is not finite")])
def test_weights_that_a_precision_cannot_hold(value: float, words: str, tiny_model: Model, tmp_path: Path) -> None:
    with torch.no_grad():
        next(tiny_model.network.parameters())[0] = value
    with pytest.raises(CheckpointError, match=words):
        checkpoint.save_model(tmp_path / "a.safetensors", tiny_model, torch.float16)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"words and more")
    assert refused(tmp_path / "a.onnx").hint.startswith("a graph is for other programs")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("leave.bias"), "lacks the weight 'leave.bias'"),
        (lambda w: w.update(extra=torch.zeros(1)), "has a weight 'extra'"),
        (lambda w: w.update({"leave.bias": torch.zeros(3)}), "has shape (3,), the network needs (48,)"),
    ],
)
def test_weights_that_do_not_fit(change: object, words: str, tmp_path: Path) -> None:
    assert words in refused(written(tmp_path, change)).message


@pytest.mark.parametrize("damage", [lambda file: file[:-50], lambda file: file[:-50] + bytes(50)])
def test_a_failed_write_leaves_the_old_file(
    damage: Callable[[bytes], bytes], tiny_model: Model, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tiny_file.read_bytes()
    monkeypatch.setattr(checkpoint, "save", lambda *_: damage(before))
    with pytest.raises(CheckpointError):
        checkpoint.save_model(tiny_file, tiny_model, torch.float32)
    assert tiny_file.read_bytes() == before
    assert [p.name for p in tiny_file.parent.glob(".*")] == []


@pytest.mark.parametrize("name", ["photo-x4", "sr3.safetensors"])
def test_to_load_a_model_loads_no_compiler(name: str, tmp_path: Path) -> None:
    """Some of what torch does on its meta device imports it, which takes longer than the model."""
    tiny = ModelConfig(network=SR3Config(channels=4, multipliers=(1, 2), blocks=1, attention=(8,), groups=2, size=16))
    checkpoint.save_model(tmp_path / "sr3.safetensors", Model(tiny, checkpoint.build(tiny), {}), torch.float32)
    code = (
        "import sys; from dreamsr.files import checkpoint, hub\n"
        f"checkpoint.load_model(hub.resolve('{name}'))\n"
        "sys.exit('torch._dynamo' in sys.modules or 'torch.fx.experimental.symbolic_shapes' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0
