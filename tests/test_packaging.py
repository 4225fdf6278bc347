"""The wheel holds the bundled model, and works from where it is installed."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import photo

from dreamsr.files import hub, images
from dreamsr.files.images import Picture

ROOT = Path(__file__).resolve().parents[1]


def call(*command: object, cwd: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    call(
        sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT, cwd=folder
    )
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_what_it_should(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        model = archive.read("dreamsr/weights/bicubic-x4.safetensors")
    for name in (
        "weights/bicubic-x4.safetensors",
        "weights/bicubic-x4.md",
        "weights/photo-x4.safetensors",
        "weights/photo-x4.md",
        "weights/SHA256SUMS",
        "weights/LICENSE",
        "presets/bicubic-x4.toml",
        "presets/photo-x4.toml",
        "presets/fine-tune.toml",
        "presets/many-scales.toml",
        "presets/texture.toml",
        "templates/report.html",
    ):
        assert f"dreamsr/{name}" in names
    assert not any(name.startswith(("tests/", "docs/", "scripts/")) for name in names)
    assert any(name.startswith("dreamsr/weights/attribution/") for name in names)
    assert model == (ROOT / "weights" / "bicubic-x4.safetensors").read_bytes()
    assert wheel.stat().st_size < 32 * 2**20


def test_an_installed_wheel_upscales(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "env"
    call(sys.executable, "-m", "venv", "--system-site-packages", environment, cwd=tmp_path)
    python = environment / "bin" / "python"
    # the packages of the environment that runs the tests, without its own dreamsr
    libraries = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    import torch

    (Path(libraries) / "tests.pth").write_text(str(Path(torch.__file__).parents[1]))
    call(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--force-reinstall", wheel, cwd=tmp_path)
    location = call(python, "-c", "import dreamsr; print(dreamsr.__file__)", cwd=tmp_path)
    assert Path(location.strip()).is_relative_to(environment)
    images.write(tmp_path / "in.png", Picture(photo("chelsea")[:, :24, :32]))
    call(environment / "bin" / "dreamsr", "upscale", "in.png", "out.png", "--steps", "1", cwd=tmp_path)
    assert images.read(tmp_path / "out.png").size == (96, 128)
    listed = call(environment / "bin" / "dreamsr", "models", cwd=tmp_path)
    assert str(environment) in listed
    assert str(environment) in call(environment / "bin" / "dreamsr", "models", "verify", "bicubic-x4", cwd=tmp_path)


def test_the_editable_install_finds_the_same_file(tmp_path: Path) -> None:
    code = "from dreamsr.files import hub; print(hub.bundled()['bicubic-x4'])"
    found = Path(call(sys.executable, "-c", code, cwd=tmp_path).strip())
    assert found == ROOT / "weights" / "bicubic-x4.safetensors"
    assert hub.resolve("bicubic-x4").stat().st_size <= 16 * 2**20
