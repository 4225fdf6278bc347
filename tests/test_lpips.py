"""LPIPS against modules of the same architectures, published values, and where its weights come from."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from conftest import photo
from programs import Program, small
from torch import Tensor, nn
from torch.nn import functional as F

from dreamsr.engine.measure import load_lpips
from dreamsr.errors import CheckpointError
from dreamsr.files import images, lpips_weights
from dreamsr.files.lpips_weights import Original
from dreamsr.metrics.lpips import Network

A, B = photo("chelsea")[:, :70, :90], photo("coffee")[:, :70, :90]
TAPS = {"alex": (1, 4, 7, 9, 11), "squeeze": (1, 4, 7, 9, 10, 11, 12)}
"""Modules of the backbone whose outputs are compared."""


class Fire(nn.Module):
    def __init__(self, inside: int, narrow: int, wide: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inside, narrow, 1)
        self.expand1x1 = nn.Conv2d(narrow, wide, 1)
        self.expand3x3 = nn.Conv2d(narrow, wide, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


def alex() -> nn.Sequential:
    pool, relu = nn.MaxPool2d(3, 2), nn.ReLU()
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 11, 4, 2), relu, pool, nn.Conv2d(64, 192, 5, padding=2), relu, pool),
        *(nn.Conv2d(192, 384, 3, padding=1), relu, nn.Conv2d(384, 256, 3, padding=1), relu),
        *(nn.Conv2d(256, 256, 3, padding=1), relu, pool),
    )


def squeeze() -> nn.Sequential:
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool, Fire(64, 16, 64), Fire(128, 16, 64), pool),
        *(Fire(128, 32, 128), Fire(256, 32, 128), pool, Fire(256, 48, 192), Fire(384, 48, 192)),
        *(Fire(384, 64, 256), Fire(512, 64, 256)),
    )


BACKBONES = {"alex": alex, "squeeze": squeeze}


def distance(backbone: nn.Sequential, heads: list[Tensor], taps: tuple[int, ...]) -> float:
    """The definition: unit vectors of every stage, squared differences, weighted by channel, mean over pixels, sum."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = torch.stack([((picture + 1) / 2 - mean) / std for picture in (A, B)])
    total = 0.0
    with torch.inference_mode():
        for i, module in enumerate(backbone):
            x = module(x)
            if i in taps:
                unit = x / x.square().sum(1, keepdim=True).sqrt().clamp_min(1e-10)
                total += float(((unit[0] - unit[1]).square() * heads[taps.index(i)].view(-1, 1, 1)).sum(0).mean())
    return total


@contextmanager
def served(folder: Path) -> Iterator[str]:
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def heads_of(backbone: nn.Sequential, taps: tuple[int, ...]) -> list[Tensor]:
    x, channels = torch.zeros(1, 3, 64, 64), []
    with torch.inference_mode():
        for i, module in enumerate(backbone):
            x = module(x)
            channels += [x.shape[1]] * (i in taps)
    return [torch.rand(count) for count in channels]


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Files of the originals' form with random weights, taken for the originals; the distance of A and B by them."""
    folder, known, distances = tmp_path / "published", {}, {}
    folder.mkdir()
    for network, build in BACKBONES.items():
        backbone = build()
        heads = heads_of(backbone, TAPS[network])
        distances[network] = distance(backbone, heads, TAPS[network])
        files = {
            f"{network}-backbone.pth": {f"features.{k}": v for k, v in backbone.state_dict().items()},
            f"{network}.pth": {f"lin{i}.model.1.weight": head.view(1, -1, 1, 1) for i, head in enumerate(heads)},
        }
        for name, tensors in files.items():
            torch.save(tensors, folder / name)
        digests = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files]
        known[network] = [Original(f"http://127.0.0.1:9/{n}", sha) for n, sha in zip(files, digests, strict=True)]
    monkeypatch.setattr(lpips_weights, "ORIGINALS", known)
    return distances


@pytest.mark.parametrize("network", ["alex", "squeeze"])
def test_the_originals_give_the_distance_of_the_definition(
    network: Network, published: dict[str, float], tmp_path: Path
) -> None:
    lpips = load_lpips(tmp_path / "published", network)
    assert lpips is not None
    assert lpips(A, B) == pytest.approx(published[network], rel=1e-5)
    assert lpips(A, A) == 0
    small, large = ([F.pad(x[:, :31, :8], (0, n, 0, n // 24), mode="replicate") for x in (A, B)] for n in (0, 24))
    assert lpips(*small) == lpips(*large) > 0


def test_what_a_place_lacks_the_cache_may_have(published: dict[str, float], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert load_lpips(tmp_path / "empty") is None
    (tmp_path / "cache").mkdir()
    (tmp_path / "published").rename(tmp_path / "cache" / "dreamsr")
    assert load_lpips(tmp_path / "empty") is not None


def test_a_file_that_is_not_the_original_is_refused(published: dict[str, float], tmp_path: Path) -> None:
    with (tmp_path / "published" / "alex.pth").open("ab") as file:
        file.write(b"more")
    with pytest.raises(CheckpointError, match=r"alex\.pth is not the original file: its SHA-256 is"):
        load_lpips(tmp_path / "published")
    assert load_lpips(tmp_path / "published", "squeeze") is not None


def test_downloads_land_in_the_cache_once_and_are_checked(
    published: dict[str, float], program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(tmp_path / "hr" / "a.png", A)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with served(tmp_path / "published") as address:
        known = {
            network: [Original(f"{address}/{original.name}", original.sha256) for original in pair]
            for network, pair in lpips_weights.ORIGINALS.items()
        }
        monkeypatch.setattr(lpips_weights, "ORIGINALS", known)
        code, out, err = program("eval", "hr", "hr", "--lpips-weights", "download", "--markdown")
    assert code == 0, err
    assert "| 0.0000 | 0.0000 |" in out
    cached = sorted(path.name for path in (tmp_path / "cache" / "dreamsr").iterdir())
    assert cached == ["alex-backbone.pth", "alex.pth", "squeeze-backbone.pth", "squeeze.pth"]
    code, out, err = program("eval", "hr", "hr", "--lpips-weights", "download")  # the server is gone
    assert code == 0, err
    assert "lpips_squeeze" in out


def test_a_download_with_another_hash_is_not_kept(
    published: dict[str, float], program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(tmp_path / "hr" / "a.png", A)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with served(tmp_path / "published") as address:
        wrong = [Original(f"{address}/alex.pth", "0" * 64)]
        monkeypatch.setattr(lpips_weights, "ORIGINALS", {"alex": wrong})
        code, _, err = program("eval", "hr", "hr", "--lpips-weights", "download")
    assert code == 1
    assert "alex.pth cannot be downloaded: invalid hash value" in err
    assert list((tmp_path / "cache" / "dreamsr").iterdir()) == []


def test_without_weights_the_table_says_how_to_get_them(program: Program, tmp_path: Path) -> None:
    small(tmp_path / "hr" / "a.png", A)
    code, out, err = program("eval", "hr", "hr")
    assert code == 0
    assert "lpips" not in out
    assert "lpips_alexnet: not measured, its weights were not found: --lpips-weights download fetches them" in err


def test_lpips_reference_values(shared_metrics: Path) -> None:
    lpips = load_lpips(shared_metrics / "lpips-alex.safetensors")
    assert lpips is not None
    reference, p0, p1 = (images.read(shared_metrics / f"ex_{n}.png").color for n in ("ref", "p0", "p1"))
    assert lpips(reference, reference) == 0
    assert lpips(reference, p0) == pytest.approx(0.721881, abs=1e-4)
    assert lpips(reference, p1) == pytest.approx(0.137566, abs=1e-4)
    assert lpips(reference[:, :8, :8], p1[:, :8, :8]) > 0


def test_lpips_is_found_by_the_environment(shared_metrics: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_lpips(None) is None
    monkeypatch.setenv("DREAMSR_LPIPS_WEIGHTS", str(shared_metrics / "lpips-alex.safetensors"))
    assert load_lpips(None) is not None


def test_a_folder_gives_both_networks(shared_metrics: Path) -> None:
    """SqueezeNet has no published values here; it must rank the two distortions as AlexNet does."""
    lpips = load_lpips(shared_metrics, "squeeze")
    assert lpips is not None
    reference, p0, p1 = (images.read(shared_metrics / f"ex_{n}.png").color for n in ("ref", "p0", "p1"))
    assert lpips(reference, reference) == 0
    assert lpips(reference, p0) > 2 * lpips(reference, p1) > 0
    assert load_lpips(shared_metrics / "lpips-squeeze.safetensors") is None
