"""Files of other programs: said what they are, never run."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from programs import Program, small
from safetensors.torch import save_file

from dreamsr.files import foreign

ONE = torch.zeros(1)
WEIGHTS = {
    "an SR3 or DREAM network": {"denoise_fn.downs.0.weight": ONE},
    "an ESRGAN or Real-ESRGAN network": {"params_ema": {"conv_first.weight": ONE, "body.0.rdb1.conv1.weight": ONE}},
    "as ResShift's": {"state_dict": {"module.input_blocks.0.0.weight": ONE, "module.time_embed.0.weight": ONE}},
    "a network of diffusers": {"down_blocks.0.resnets.0.conv1.weight": ONE},
}


@pytest.mark.parametrize("what", WEIGHTS)
@pytest.mark.parametrize("legacy", [False, True])
def test_pickled_weights(what: str, legacy: bool, program: Program, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(WEIGHTS[what], path, _use_new_zipfile_serialization=not legacy)
    code, _, err = program("upscale", small(tmp_path / "cat.png"), "out.png", "-m", path)
    assert code == 1
    assert f"{path} is not a safetensors file, but " in err
    assert what in err
    assert "--from sr3" in err or "dreamsr models list" in err
    assert "Traceback" not in err


def test_a_plain_safetensors(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "unet.safetensors"
    save_file({"down_blocks.0.resnets.0.conv1.weight": ONE}, path)
    code, _, err = program("upscale", small(tmp_path / "cat.png"), "out.png", "-m", path)
    assert code == 1
    assert "is not a dreamsr checkpoint (its format is 'none', expected 'dreamsr 1'), but a network of diffusers" in err
    assert "dreamsr train" in err


@pytest.mark.parametrize("name", ["model_index.json", "config.json"])
def test_a_folder_of_diffusers(name: str, program: Program, tmp_path: Path) -> None:
    folder = tmp_path / "ldm"
    folder.mkdir()
    (folder / name).write_text(json.dumps({"_class_name": "LDMSuperResolutionPipeline"}))
    code, _, err = program("models", "info", "ldm")
    assert code == 2
    assert "ldm is a folder of diffusers (LDMSuperResolutionPipeline)" in err


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('run')",)


@pytest.mark.parametrize("content", [b"", b"words", b"PK\x03\x04", pickle.dumps([Bomb(), "x.rdb1.conv1."])[:-4]])
def test_damaged_files_have_no_names(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "damaged.pth"
    path.write_bytes(content)
    assert foreign.pickled_names(path) == set()


def test_names_are_read_without_running_anything(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    torch.save({"a.rdb1.conv1.weight": Bomb()}, path)
    assert foreign.kind(foreign.pickled_names(path))[0].startswith("an ESRGAN")
