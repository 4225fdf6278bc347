"""Names of models: bundled, local, and from a Hub over real HTTP."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from conftest import photo
from hub_server import Hub, serve
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from dreamsr.errors import CheckpointError, UsageError
from dreamsr.files import hub, images
from dreamsr.files.images import Picture


@pytest.fixture
def server(tiny_file: Path) -> Iterator[Hub]:
    with serve() as running:
        running.files["org/repo", "main", "model.safetensors"] = tiny_file.read_bytes()
        running.files["org/repo", "v2", "sub/other.safetensors"] = tiny_file.read_bytes()
        yield running


def call(server: Hub, folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "HF_ENDPOINT": server.endpoint,
        "HF_HOME": str(folder / "hf"),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **environment,
    }
    return subprocess.run(
        [sys.executable, "-m", "dreamsr", *command], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


def upscale(model: str, server: Hub, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    images.write(folder / "in.png", Picture(photo("chelsea")[:, :20, :30]))
    command = ["upscale", "in.png", "out.png", "--overwrite", "--steps", "1", "-m", model]
    return call(server, folder, *command, **environment)


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


def test_a_gated_model_says_where_to_ask(server: Hub, tmp_path: Path) -> None:
    server.gated.add("org/repo")
    done = upscale("org/repo", server, tmp_path)
    assert done.returncode == 1
    assert "error: org/repo on the Hub is gated" in done.stderr
    assert f"ask for access at {server.endpoint}/org/repo, then: hf auth login" in done.stderr
    assert "Traceback" not in done.stderr


_ABSENT = "there is no folder org/repo here, and a.safetensors of org/repo@v2 is not in the cache"
_ADVICE = "check the connection, HF_ENDPOINT and HF_HUB_OFFLINE, or give a local file"


@pytest.mark.parametrize(
    ("kind", "online", "offline", "message", "hint"),
    [
        (LocalEntryNotFoundError, True, False, f"{_ABSENT}, and https://hub cannot be reached", _ADVICE),
        (LocalEntryNotFoundError, True, True, f"{_ABSENT}, and HF_HUB_OFFLINE is set", _ADVICE),
        (LocalEntryNotFoundError, False, False, _ABSENT, "dreamsr models pull org/repo@v2:a.safetensors"),
        (
            EntryNotFoundError,
            True,
            False,
            "org/repo@v2 on the Hub has no file 'a.safetensors'",
            "name one: org/repo@v2:FILE",
        ),
        (ConnectionError, True, False, "org/repo@v2 cannot be downloaded: ConnectionError()", ""),
    ],
)
def test_what_is_said_of_a_file_that_does_not_come(
    kind: type[Exception], online: bool, offline: bool, message: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise kind.__new__(kind)  # some ask for the answer of a server

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(CheckpointError) as raised:
        hub.download("org/repo", "a.safetensors", "v2", online)
    assert (raised.value.message, raised.value.hint) == (message, hint)


def test_of_a_long_error_the_first_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route\nto the host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(CheckpointError) as raised:
        hub.download("org/repo", hub.HUB_FILE, None)
    assert raised.value.message == "org/repo cannot be downloaded: no route"


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


def test_pull_path_verify(server: Hub, tmp_path: Path) -> None:
    """Only `pull` goes to the Hub; all of them name one file, below HF_HOME."""
    for command in ("path", "verify"):
        done = call(server, tmp_path, "models", command, "org/repo")
        assert done.returncode == 1
        assert "model.safetensors of org/repo is not in the cache" in done.stderr
        assert "dreamsr models pull org/repo" in done.stderr
    assert server.requests == []
    pulled = call(server, tmp_path, "models", "pull", "org/repo")
    assert pulled.returncode == 0, pulled.stderr
    file = Path(pulled.stdout.strip())
    assert file.is_relative_to(tmp_path / "hf")
    count = len(server.requests)
    assert call(server, tmp_path, "models", "path", "org/repo").stdout == pulled.stdout
    verified = call(server, tmp_path, "models", "verify", "org/repo", "--json")
    digest = hashlib.sha256(server.files["org/repo", "main", "model.safetensors"]).hexdigest()
    assert json.loads(verified.stdout) == {"path": str(file), "sha256": digest, "recorded": digest}
    assert len(server.requests) == count
    card = call(server, tmp_path, "models", "info", "org/repo", "--json", HF_HUB_OFFLINE="1")
    assert json.loads(card.stdout)["card"] == {"licence": "none"}


@pytest.mark.parametrize(
    ("name", "environment", "words"),
    [
        ("nobody/nothing", {}, "there is no model 'nobody/nothing' on the Hub"),
        ("org/repo@v9", {}, "org/repo on the Hub has no revision 'v9'"),
        ("org/repo@v2", {}, "org/repo@v2 on the Hub has no file 'model.safetensors'"),
        ("org/repo", {"HF_HUB_OFFLINE": "1"}, "is not in the cache"),
    ],
)
def test_what_cannot_be_pulled(name: str, environment: dict[str, str], words: str, server: Hub, tmp_path: Path) -> None:
    done = call(server, tmp_path, "models", "pull", name, **environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_truncated_download_goes_on(server: Hub, tmp_path: Path) -> None:
    """In pieces of 10 MiB, which is what huggingface-hub writes at a time."""
    server.files["org/large", "main", "model.safetensors"] = hub.bundled()["bicubic-x4"].read_bytes()
    server.cuts = [11 * 2**20]
    done = call(server, tmp_path, "models", "pull", "org/large")
    assert done.returncode == 0, done.stderr
    assert server.ranges == [f"bytes={10 * 2**20}-"]
    assert Path(done.stdout.strip()).read_bytes() == server.files["org/large", "main", "model.safetensors"]


def test_a_wrong_hash_is_not_kept(server: Hub, tmp_path: Path) -> None:
    server.etag = "0" * 64
    done = call(server, tmp_path, "models", "pull", "org/repo")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"recorded is {'0' * 64}" in done.stderr
    assert "Traceback" not in done.stderr
    assert [p for p in (tmp_path / "hf").rglob("*") if p.is_file() and p.stat().st_size > 1000] == []
    server.etag = ""
    assert call(server, tmp_path, "models", "pull", "org/repo").returncode == 0


def test_a_file_that_changed_in_the_cache(server: Hub, tmp_path: Path) -> None:
    file = Path(call(server, tmp_path, "models", "pull", "org/repo").stdout.strip())
    content = file.read_bytes()
    file.resolve().write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    done = call(server, tmp_path, "models", "verify", "org/repo")
    assert done.returncode == 1
    assert f"recorded is {hashlib.sha256(content).hexdigest()}; it was removed" in done.stderr
    assert "dreamsr models pull org/repo" in done.stderr


def test_a_store_with_names_of_its_own_hides_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """snapshots/main/file -> blobs/SHA-256 -> a store that other repositories share, by another hash."""
    content = b"weights"
    stored, blob = (
        tmp_path / "store" / "77" / "other-hash",
        tmp_path / "repo" / "blobs" / hashlib.sha256(content).hexdigest(),
    )
    file = tmp_path / "repo" / "snapshots" / "main" / "model.safetensors"
    for path in (stored, blob, file):
        path.parent.mkdir(parents=True)
    stored.write_bytes(content)
    blob.symlink_to(stored)
    file.symlink_to(Path("../../blobs") / blob.name)
    assert hub.verify(file) == (blob.name, blob.name)
    stored.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=f"recorded is {blob.name}"):
        hub.verify(file)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(file))
    with pytest.raises(CheckpointError, match="it was removed") as raised:
        hub.download("org/repo", file.name, "v2")
    assert raised.value.hint == "dreamsr models pull org/repo@v2"
    assert not any(os.path.lexists(path) for path in (stored, blob, file))


def test_a_small_file_of_git_has_no_sha256(server: Hub, tmp_path: Path) -> None:
    server.etag = "0123456789" * 4
    assert call(server, tmp_path, "models", "pull", "org/repo").returncode == 0
    done = call(server, tmp_path, "models", "verify", "org/repo", "--json")
    assert json.loads(done.stdout)["recorded"] is None


def test_every_bundled_model_is_recorded() -> None:
    for name, path in hub.bundled().items():
        digest, recorded = hub.verify(path)
        assert digest == recorded, name


def test_sums_are_read_in_both_forms(tmp_path: Path) -> None:
    """Of text, and of bytes, with a star before the name."""
    (tmp_path / "SHA256SUMS").write_text(f"{'a' * 64}  a.safetensors\n{'b' * 64} *b.safetensors\n")
    found = [hub.recorded_digest(tmp_path / f"{name}.safetensors") for name in "abc"]
    assert found == ["a" * 64, "b" * 64, None]


def test_a_bundled_name_comes_before_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, path in hub.bundled().items():
        Path(name).touch()
        assert hub.resolve(name) == path


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
        ("../mine", "model '../mine' is unknown"),
        ("org/repo.ckpt", "there is no file org/repo.ckpt"),
    ],
)
def test_unknown_names_say_what_is_known(name: str, words: str) -> None:
    with pytest.raises(UsageError) as raised:
        hub.resolve(name)
    assert words in raised.value.message
    assert "bicubic-x4" in raised.value.hint


def test_an_empty_name_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / hub.RUN_FILE).touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="the name of the model is empty"):
        hub.resolve("")
