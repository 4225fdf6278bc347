"""Scripts that users run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dreamsr.files import checkpoint

ROOT = Path(__file__).resolve().parents[1]
TINY_NETWORK = ["model.network.widths=[8,16]", "model.network.blocks=1", "model.network.encoder_blocks=1"]


def split(data: Path, out: Path, *options: str) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "split_by_photo.py"), str(data), str(out), *options]
    subprocess.run(command, check=True)


@pytest.fixture
def data(photos: Path) -> Path:
    """Two crops each of two photos."""
    lines = ["file\trepository\tpath", *(f"{p.name}\tr\t{i // 2}" for i, p in enumerate(sorted(photos.iterdir())))]
    (photos / "manifest.tsv").write_text("\n".join(lines))
    return photos


def test_the_split_is_by_photo(data: Path, tmp_path: Path) -> None:
    split(data, tmp_path / "split", "--every", "2")
    parts = [sorted(p.name for p in (tmp_path / "split" / part).iterdir()) for part in ("val", "train")]
    assert parts == [["astronaut.png", "chelsea.png"], ["coffee.png", "rocket.png"]]


def test_another_split_into_the_same_folders_leaves_nothing_in_both(data: Path, tmp_path: Path) -> None:
    for every in ("1", "2"):
        split(data, tmp_path / "split", "--every", every)
    parts = [{p.name for p in (tmp_path / "split" / part).iterdir()} for part in ("val", "train")]
    assert [len(part) for part in parts] == [2, 2]
    assert not parts[0] & parts[1]


def test_a_list_chooses_and_copies_are_files(data: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("chelsea.png\nrocket.png\n")
    split(data, tmp_path / "split", "--every", "2", "--copy", "--list", str(tmp_path / "list.txt"))
    found = [p for p in (tmp_path / "split").rglob("*") if p.is_file()]
    assert sorted(f"{p.parent.name}/{p.name}" for p in found) == ["train/rocket.png", "val/chelsea.png"]
    assert not any(p.is_symlink() for p in found)


def test_pages_of_text_depend_on_their_seed(tmp_path: Path) -> None:
    def pages(name: str, seed: int) -> list[bytes]:
        command = [sys.executable, str(ROOT / "scripts" / "text_pages.py"), str(tmp_path / name)]
        subprocess.run([*command, "--count", "2", "--seed", str(seed)], check=True)
        return [p.read_bytes() for p in sorted((tmp_path / name).iterdir())]

    first = pages("a", 0)
    assert first == pages("b", 0)
    assert len({*first, *pages("c", 1)}) == 4


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a POSIX shell")
def test_training_in_pieces_from_a_checkout(data: Path, tmp_path: Path) -> None:
    """A piece, another that goes on, and a warm start elsewhere from what the first machine gave back."""
    split(data, tmp_path / "carried", "--every", "2", "--copy")

    def piece(run: Path, *overrides: str, **environment: str) -> str:
        command = ["sh", str(ROOT / "scripts" / "train_on_gpu.sh"), str(tmp_path / "carried"), str(run), *overrides]
        variables = {**os.environ, "PYTHON": sys.executable, "PIECE": "1s", **environment}
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True, cwd=tmp_path)
        return done.stderr

    here, there = tmp_path / "here", tmp_path / "there"
    piece(here, "steps=100000", "batch=2", "crop=32", "warmup=1", *TINY_NETWORK, GPUS="2")
    assert json.loads((here / "run.json").read_text())["config"]["micro_batches"] == 2
    first = int(checkpoint.load_state(here / "state.safetensors")[0]["step"])
    assert f"from step {first}" in piece(here)
    assert int(checkpoint.load_state(here / "state.safetensors")[0]["step"]) > first
    exported = here / "ema.safetensors"
    assert exported.stat().st_size < 16 * 2**20
    assert "from step 0" in piece(there, "steps=100000", "batch=2", "crop=32", "warmup=1", INIT=str(exported))
