"""Metrics against scikit-image and published values."""

import math
from typing import Any, cast

import numpy as np
import pytest
import skimage.metrics
import torch
from conftest import SHARED, photo
from torch import Tensor

from dreamsr.core.resize import bicubic
from dreamsr.data.degrade import degrade
from dreamsr.engine.measure import Measure
from dreamsr.engine.sources import crop_to_multiple
from dreamsr.errors import DreamSRError
from dreamsr.files import images
from dreamsr.metrics import consistency, luma, ms_ssim, psnr, ssim

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


def test_ms_ssim_is_its_definition() -> None:
    """With scipy's Gaussian, in other words: means of contrast-structure, and of SSIM at the coarsest scale."""
    from scipy.ndimage import gaussian_filter

    def blur(x: np.ndarray) -> np.ndarray:
        return np.asarray(gaussian_filter(x, 1.5, truncate=3.5))[5:-5, 5:-5]

    def similarity(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
        mx, my = blur(x), blur(y)
        vx, vy, cxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
        structure = (2 * cxy + 58.5225) / (vx + vy + 58.5225)
        return structure.mean(), (structure * (2 * mx * my + 6.5025) / (mx * mx + my * my + 6.5025)).mean()

    x, y = (luma(picture)[0].numpy() for picture in (A, B))
    product = 1.0
    for weight in (0.0448, 0.2856, 0.3001, 0.2363):
        product *= similarity(x, y)[0] ** weight
        x, y = (z[: len(z) // 2 * 2].reshape(len(z) // 2, 2, z.shape[1] // 2, 2).mean((1, 3)) for z in (x, y))
    assert ms_ssim(luma(A), luma(B)) == pytest.approx(product * similarity(x, y)[1] ** 0.1333, abs=1e-9)


def test_ms_ssim_of_flat_pictures_is_luminance_alone() -> None:
    a = torch.full((3, 176, 200), 100.0)
    expected = (2 * 100 * 120 + 6.5025) / (100**2 + 120**2 + 6.5025)
    assert ms_ssim(a, a + 20) == pytest.approx(expected**0.1333, abs=1e-9)
    assert ms_ssim(a, a) == pytest.approx(1)
    assert math.isnan(ms_ssim(a[:, 1:], a[:, 1:]))


def test_ms_ssim_of_a_negative_is_0() -> None:
    """Structure that is turned round has a negative mean, of which there is no root."""
    a = 255 * torch.rand(1, 176, 176)
    assert ms_ssim(a, 255 - a) == 0


def test_consistency_of_a_known_error() -> None:
    """An error of 255 / 100 levels is .01, its square 1e-4."""
    a = torch.full((3, 4, 5), 100.0, dtype=torch.float64)
    assert consistency(a, a + 2.55) == pytest.approx(10)
    assert consistency(a, a) == 0


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


def test_a_picture_that_is_all_border_is_measured_whole() -> None:
    a = torch.full((1, 8, 20), 100.0)
    assert psnr(a, a + 5, 4) == pytest.approx(10 * math.log10(255**2 / 25))


def test_the_protocol_of_a_measure() -> None:
    """8-bit rounding first; Y with a crop of 4, RGB without."""
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    y = [luma(x)[0, 4:-4, 4:-4].numpy() for x in (A, B)]
    expected = {
        "psnr_y": skimage.metrics.peak_signal_noise_ratio(y[1], y[0], data_range=255),
        "ssim_y": skimage.metrics.structural_similarity(y[1], y[0], **options),
        "ms_ssim_y": ms_ssim(luma(A), luma(B), 4),
        "psnr_rgb": skimage.metrics.peak_signal_noise_ratio(hwc(B), hwc(A), data_range=255),
        "ssim_rgb": skimage.metrics.structural_similarity(hwc(B), hwc(A), channel_axis=2, **options),
        "ms_ssim_rgb": ms_ssim(A, B),
    }
    assert Measure(4)(SR, HR) == pytest.approx(expected, abs=1e-9)


def test_lpips_is_of_pictures_of_8_bits() -> None:
    seen: list[Tensor] = []

    def lpips(*pictures: Tensor) -> float:
        seen.extend(pictures)
        return 0.5

    assert Measure(lpips=cast(Any, lpips))(SR, HR)["lpips"] == 0.5
    for given, expected in zip(seen, (A, B), strict=True):
        assert torch.equal(given, images.to_unit(expected))


def test_originals_are_cut_at_the_bottom_and_right() -> None:
    assert torch.equal(crop_to_multiple(HR[:, :43, :61], 4), HR[:, :40, :60])
    with pytest.raises(DreamSRError, match="3x9 is smaller than the scale of 4"):
        crop_to_multiple(HR[:, :9, :3], 4)


def test_consistency_of_the_original_is_perfect() -> None:
    lr = degrade(HR[None], 4)[0]
    assert Measure()(HR, HR, lr)["psnr_lr"] == math.inf
    assert Measure()(HR, HR, lr)["mse_lr"] == 0
    assert Measure()(SR, HR, lr)["psnr_lr"] < 50


@pytest.mark.parametrize(
    ("name", "expected"), [("Set5", 28.43), ("Set14", 26.09), pytest.param("BSD100", 25.96, marks=pytest.mark.slow)]
)
def test_bicubic_on_the_benchmark_sets(name: str, expected: float) -> None:
    """PSNR-Y of bicubic x4, made with Pillow."""
    folder = SHARED / "data" / "eval" / name
    if not folder.is_dir():
        pytest.skip("the evaluation sets are not part of the repository")
    scores = []
    for path in images.find(folder):
        hr = crop_to_multiple(images.read(path).color, 4)
        sr = bicubic(degrade(hr[None], 4), (hr.shape[1], hr.shape[2]))[0]
        scores.append(psnr(luma(images.to_bytes(sr)), luma(images.to_bytes(hr)), 4))
    assert sum(scores) / len(scores) == pytest.approx(expected, abs=0.01)
