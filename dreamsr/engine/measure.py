"""What is measured of a picture, by which protocol."""

from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Literal

from torch import Tensor

from dreamsr.core.resize import size_of
from dreamsr.data.degrade import reduced
from dreamsr.errors import CheckpointError
from dreamsr.files import images, lpips_weights
from dreamsr.metrics import LPIPS, both_ssim, consistency, lpips, luma, psnr

Color = Literal["y", "rgb"]
PROTOCOLS: dict[str, tuple[Color, ...]] = {"sr": ("y",), "dream": ("rgb",), "all": ("y", "rgb")}


@dataclass(frozen=True)
class Column:
    """How a measure is shown."""

    title: str
    digits: int
    better: Literal[1, -1]
    """Higher (1) or lower (-1)."""


COLUMNS = {
    "psnr_y": Column("PSNR-Y", 2, 1),
    "ssim_y": Column("SSIM-Y", 4, 1),
    "ms_ssim_y": Column("MS-SSIM-Y", 4, 1),
    "psnr_rgb": Column("PSNR-RGB", 2, 1),
    "ssim_rgb": Column("SSIM-RGB", 4, 1),
    "ms_ssim_rgb": Column("MS-SSIM-RGB", 4, 1),
    "lpips": Column("LPIPS (AlexNet)", 4, -1),
    "lpips_squeeze": Column("LPIPS (SqueezeNet)", 4, -1),
    "psnr_lr": Column("LR-PSNR", 2, 1),
    "mse_lr": Column("MSE-LR", 2, -1),
    "s_per_mp": Column("s / megapixel", 2, -1),
    "peak_mib": Column("peak MiB", 0, -1),
}


@dataclass(frozen=True)
class Measure:
    """The measures of a run."""

    crop: int = 4
    """Border pixels left out of the measures on Y."""
    lpips: LPIPS | None = None
    """With AlexNet."""
    lpips_squeeze: LPIPS | None = None
    colors: tuple[Color, ...] = ("y", "rgb")

    def __call__(self, sr: Tensor, hr: Tensor, lr: Tensor | None = None) -> dict[str, float]:
        """Scores of pictures (3, H, W) in [-1, 1], rounded to 8 bits first, by their names in COLUMNS.

        `lr` (3, h, w) adds how well the picture, reduced again, agrees with it.
        """
        a, b = images.to_bytes(sr), images.to_bytes(hr)
        scores: dict[str, float] = {}
        if "y" in self.colors:
            scores |= _fidelity("y", luma(a), luma(b), self.crop)
        if "rgb" in self.colors:
            scores |= _fidelity("rgb", a, b, 0)
        scores |= {key: distance(images.to_unit(a), images.to_unit(b)) for key, distance in self._distances.items()}
        if lr is not None:
            again = images.to_bytes(reduced(images.to_unit(a)[None], size_of(lr))[0])
            low = images.to_bytes(lr)
            scores |= {"psnr_lr": psnr(again, low), "mse_lr": consistency(again, low)}
        return scores

    @property
    def _distances(self) -> dict[str, LPIPS]:
        both = {"lpips": self.lpips, "lpips_squeeze": self.lpips_squeeze}
        return {key: distance for key, distance in both.items() if distance}

    def protocol(self, scale: float | None, degradation: str = "bicubic") -> dict[str, str | int]:
        """All that the numbers depend on besides the pictures; `scale` where originals are reduced."""
        facts: dict[str, str | int] = {"protocol": next(k for k, v in PROTOCOLS.items() if v == self.colors)}
        if "y" in self.colors:
            facts["y"] = f"Y as MATLAB's rgb2ycbcr (BT.601, 16 to 235), crop {self.crop}"
        if "rgb" in self.colors:
            facts["rgb"] = "RGB, no crop"
        facts |= {
            "data_range": "8 bits, 0 to 255",
            "ssim_window": "Gaussian 11 x 11, sigma 1.5, valid area; K1 = .01, K2 = .03",
            "ms_ssim": "5 scales by means of 2 x 2; only from 176 pixels on a side",
        }
        measured = f"{lpips.VERSION}, on RGB, no crop"
        missing = f"not measured, its weights were not found: {lpips_weights.HOW_TO_GET}"
        facts["lpips_alexnet"] = measured if self.lpips else missing
        facts["lpips_squeezenet"] = measured if self.lpips_squeeze else missing
        if scale is not None and degradation == "pairs":
            return facts | {"downscaling": f"by {scale:g}, given as files"}
        if scale is not None and scale == int(scale):
            facts["mod_crop"] = int(scale)
        if scale is not None and degradation == "photo":
            facts["downscaling"] = f"by {scale:g}, degraded as everyday pictures, drawn from the picture's name"
        elif scale is not None:
            facts["downscaling"] = f"by {scale:g}, Pillow's bicubic (a = -.5, antialiased), 8 bits after each pass"
            facts["agreement"] = "LR-PSNR and MSE-LR (in [0, 1], times 1e5): on RGB, output reduced again, 8 bits"
        return facts


def _fidelity(color: Color, a: Tensor, b: Tensor, crop: int) -> dict[str, float]:
    ssim, ms_ssim = both_ssim(a, b, crop)
    return {f"psnr_{color}": psnr(a, b, crop), f"ssim_{color}": ssim, f"ms_ssim_{color}": ms_ssim}


def measure(protocol: str, crop: int | None, scale: float | None, weights: Path | None) -> Measure:
    """By a protocol of PROTOCOLS; crop: by default the scale, rounded up; weights: of LPIPS, as in `load_lpips`."""
    distances = load_lpips(weights), load_lpips(weights, "squeeze")
    return Measure(crop if crop is not None else ceil(scale or 4), *distances, PROTOCOLS[protocol])


def load_lpips(given: Path | None, network: lpips.Network = "alex") -> LPIPS | None:
    """LPIPS if weights of `network` are given or found, else None; raises CheckpointError for incomplete ones."""
    weights = lpips_weights.load(network, given)
    if weights is None:
        return None
    if missing := sorted(lpips.keys(network) - weights.keys()):
        raise CheckpointError(f"these are no LPIPS weights: {missing[0]!r} is missing")
    return LPIPS(weights, network)
