"""Names of models: bundled, local, and from a Hub over real HTTP."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import photo
from hub_server import Hub, serve

from dreamsr.errors import UsageError
from dreamsr.files import hub, images
from dreamsr.files.images import Picture


@pytest.fixture
def server(tiny_file: Path) -> Iterator[Hub]:
    with serve() as running:
        running.files["org/repo", "main", "model.safetensors"] = tiny_file.read_bytes()
        running.files["org/repo", "v2", "sub/other.safetensors"] = tiny_file.read_bytes()
        yield running


def upscale(model: str, server: Hub, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    images.write(folder / "in.png", Picture(photo("chelsea")[:, :20, :30]))
    command = ["upscale", "in.png", "out.png", "--overwrite", "--steps", "1", "-m", model]
    env = {
        **os.environ,
        "HF_ENDPOINT": server.endpoint,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_CACHE": str(folder / "hf" / "hub"),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **environment,
    }
    return subprocess.run(
        [sys.executable, "-m", "dreamsr", *command], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("org/repo", "/org/repo/resolve/main/model.safetensors"),
        ("org/repo@v2:sub/other.safetensors", "/org/repo/resolve/v2/sub/other.safetensors"),
    ],
)
def test_a_model_is_downloaded_once(name: str, path: str, server: Hub, tmp_path: Path) -> None:
    done = upscale(name, server, tmp_path)
    assert done.returncode == 0, done.stderr
    assert images.read(tmp_path / "out.png").size == (80, 120)
    assert [r for r in server.requests if r.startswith("GET")] == [f"GET {path}"]
    assert upscale(name, server, tmp_path).returncode == 0
    assert len([r for r in server.requests if r.startswith("GET")]) == 1
    count = len(server.requests)
    offline = upscale(name, server, tmp_path, HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    assert len(server.requests) == count


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nobody/nothing", "there is no model 'nobody/nothing' on the Hub"),
        ("org/repo@v9", "org/repo on the Hub has no revision 'v9'"),
        ("org/repo:none.safetensors", "org/repo on the Hub has no file 'none.safetensors'"),
    ],
)
def test_what_the_hub_does_not_have(name: str, words: str, server: Hub, tmp_path: Path) -> None:
    done = upscale(name, server, tmp_path)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_an_unreachable_hub(environment: dict[str, str], server: Hub, tmp_path: Path) -> None:
    done = upscale("org/repo", server, tmp_path, **environment)
    assert done.returncode == 1
    assert "is not in the cache" in done.stderr
    assert "HF_HUB_OFFLINE" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_connection_that_breaks(server: Hub, tmp_path: Path) -> None:
    server.broken = True
    done = upscale("org/repo", server, tmp_path)
    assert done.returncode == 1
    assert "error: org/repo" in done.stderr
    assert "Traceback" not in done.stderr


def test_local_names(tiny_file: Path, tmp_path: Path) -> None:
    assert hub.resolve(str(tiny_file)) == tiny_file
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.safetensors").write_bytes(tiny_file.read_bytes())
    assert hub.resolve(str(run)) == run / "model.safetensors"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bicubic-x5", "model 'bicubic-x5' is unknown"),
        ("missing.safetensors", "there is no file missing.safetensors"),
        ("sub/missing.pth", "there is no file sub/missing.pth"),
        (".", ". is a folder without model.safetensors"),
        ("org/repo.ckpt", "there is no file org/repo.ckpt"),
    ],
)
def test_unknown_names_say_what_is_known(name: str, words: str) -> None:
    with pytest.raises(UsageError) as raised:
        hub.resolve(name)
    assert words in raised.value.message
    assert "bicubic-x4" in raised.value.hint
