"""Metrics against scikit-image and published values."""

import math
from pathlib import Path

import numpy as np
import pytest
import skimage.metrics
import torch
from conftest import photo

from dreamsr.core.resize import bicubic
from dreamsr.data.degrade import degrade
from dreamsr.engine.evaluator import Measure, crop_to_multiple, load_lpips
from dreamsr.errors import DreamSRError
from dreamsr.files import images
from dreamsr.metrics import luma, psnr, ssim

HR = photo("chelsea")[:, 40:240, 60:300]
SR = bicubic(degrade(HR[None], 4), (200, 240))[0]
A, B = images.to_bytes(SR), images.to_bytes(HR)


def hwc(x: torch.Tensor) -> np.ndarray:
    return x.permute(1, 2, 0).numpy()


def test_psnr_is_scikit_images() -> None:
    expected = skimage.metrics.peak_signal_noise_ratio(hwc(B), hwc(A), data_range=255)
    assert psnr(A, B) == pytest.approx(expected, abs=1e-9)


def test_ssim_is_scikit_images() -> None:
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    expected = skimage.metrics.structural_similarity(hwc(B), hwc(A), channel_axis=2, **options)
    assert ssim(A, B) == pytest.approx(expected, abs=1e-9)
    y = [luma(x)[0, 4:-4, 4:-4].numpy() for x in (A, B)]
    expected = skimage.metrics.structural_similarity(y[1], y[0], **options)
    assert ssim(luma(A), luma(B), 4) == pytest.approx(expected, abs=1e-9)


def test_luma_is_matlabs() -> None:
    corners = torch.tensor([[0, 255, 255, 0, 0], [0, 255, 0, 255, 0], [0, 255, 0, 0, 255]], dtype=torch.uint8)
    expected = [16, 235, 81.481, 144.553, 40.966]
    assert luma(corners[:, None])[0, 0].tolist() == pytest.approx(expected, abs=1e-9)


def test_known_error() -> None:
    a = torch.full((1, 20, 20), 100.0)
    assert psnr(a, a + 5) == pytest.approx(10 * math.log10(255**2 / 25))
    assert psnr(a, a) == math.inf
    assert ssim(a, a) == pytest.approx(1)
    assert math.isnan(ssim(a[:, :10], a[:, :10]))


def test_crop_leaves_the_border_out() -> None:
    a = torch.zeros(1, 20, 20)
    b = a.clone()
    b[:, :4] = 200
    assert psnr(a, b, 4) == math.inf
    assert psnr(a, b, 3) < 30


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


def test_the_protocol_of_a_measure() -> None:
    """8-bit rounding first; Y with a crop of 4, RGB without."""
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    y = [luma(x)[0, 4:-4, 4:-4].numpy() for x in (A, B)]
    expected = {
        "psnr_y": skimage.metrics.peak_signal_noise_ratio(y[1], y[0], data_range=255),
        "ssim_y": skimage.metrics.structural_similarity(y[1], y[0], **options),
        "psnr_rgb": skimage.metrics.peak_signal_noise_ratio(hwc(B), hwc(A), data_range=255),
        "ssim_rgb": skimage.metrics.structural_similarity(hwc(B), hwc(A), channel_axis=2, **options),
    }
    assert Measure(4)(SR, HR) == pytest.approx(expected, abs=1e-9)


def test_originals_are_cut_at_the_bottom_and_right() -> None:
    assert torch.equal(crop_to_multiple(HR[:, :43, :61], 4), HR[:, :40, :60])
    with pytest.raises(DreamSRError, match="3x9 is smaller than the scale of 4"):
        crop_to_multiple(HR[:, :9, :3], 4)


def test_consistency_of_the_original_is_perfect() -> None:
    lr = degrade(HR[None], 4)[0]
    assert Measure()(HR, HR, lr)["psnr_lr"] == math.inf
    assert Measure()(SR, HR, lr)["psnr_lr"] < 50


def test_bicubic_on_set5_and_set14() -> None:
    """Figures of bicubic x4 made with Pillow: PSNR-Y 28.43 on Set5, 26.09 on Set14."""
    from conftest import SHARED

    for name, expected in (("Set5", 28.43), ("Set14", 26.09)):
        folder = SHARED / "data" / "eval" / name
        if not folder.is_dir():
            pytest.skip("the evaluation sets are not part of the repository")
        scores = []
        for path in images.find(folder):
            hr = images.read(path).color
            hr = hr[:, : hr.shape[1] // 4 * 4, : hr.shape[2] // 4 * 4]
            sr = bicubic(degrade(hr[None], 4), (hr.shape[1], hr.shape[2]))[0]
            scores.append(Measure()(sr, hr)["psnr_y"])
        assert sum(scores) / len(scores) == pytest.approx(expected, abs=0.03), name
