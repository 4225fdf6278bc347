"""Measuring: folders of pairs, or a model on high-resolution pictures that it degrades itself."""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from dreamsr.core.resize import bicubic
from dreamsr.data.degrade import degrade
from dreamsr.engine.upscaler import Upscaler, count_steps
from dreamsr.errors import CheckpointError, DreamSRError, UsageError
from dreamsr.files import checkpoint, hub, images
from dreamsr.metrics import LPIPS, luma, psnr, ssim


@dataclass(frozen=True)
class Row:
    """What one method scores on one picture."""

    picture: str
    method: str
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Measure:
    """The measures of one run and their protocol."""

    crop: int = 4
    """Border pixels left out of PSNR and SSIM on Y."""
    lpips: LPIPS | None = None

    def __call__(self, sr: Tensor, hr: Tensor, lr: Tensor | None = None) -> dict[str, float]:
        """Scores of pictures (3, H, W) in [-1, 1], rounded to 8 bits first; `lr` adds the LR-PSNR."""
        a, b = images.to_bytes(sr), images.to_bytes(hr)
        scores = {
            "psnr_y": psnr(luma(a), luma(b), self.crop),
            "ssim_y": ssim(luma(a), luma(b), self.crop),
            "psnr_rgb": psnr(a, b),
            "ssim_rgb": ssim(a, b),
        }
        if self.lpips:
            scores["lpips"] = self.lpips(images.to_unit(a), images.to_unit(b))
        if lr is not None:
            again = degrade(images.to_unit(a)[None], a.shape[-1] // lr.shape[-1])[0]
            scores["psnr_lr"] = psnr(images.to_bytes(again), images.to_bytes(lr))
        return scores

    @property
    def protocol(self) -> str:
        """One line that says how the numbers are made."""
        lpips = self.lpips.name + " on RGB" if self.lpips else "no LPIPS (weights not found)"
        return (
            f"8-bit pictures; *_y: Y of BT.601 (16..235), crop {self.crop}; *_rgb: no crop; "
            f"SSIM: Gaussian 11x11, sigma 1.5; {lpips}; psnr_lr: RGB, reduced again by bicubic (a = -0.5, antialiased)"
        )


def load_lpips(given: Path | None) -> LPIPS | None:
    """LPIPS if its weights are given or found, else None."""
    path = hub.lpips_weights(given)
    if path is None:
        return None
    weights = checkpoint.read_tensors(path)[1]
    if missing := sorted(LPIPS.KEYS - weights.keys()):
        raise CheckpointError(f"{path} holds no LPIPS weights: {missing[0]!r} is missing")
    return LPIPS(weights)


@dataclass(frozen=True)
class Pairing:
    """Pictures of two folders with the same relative name, suffix aside; and those without a partner."""

    pairs: list[tuple[str, Path, Path]]
    unpaired: list[Path]


def pair(first: Path, second: Path) -> Pairing:
    """Pair two folders, or two files."""
    if first.is_file() and second.is_file():
        return Pairing([(first.stem, first, second)], [])
    ours, theirs = _by_stem(first), _by_stem(second)
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        raise UsageError(f"no picture of {first} has a partner of the same name in {second}")
    unpaired = [(ours.get(k) or theirs[k]) for k in sorted(ours.keys() ^ theirs.keys())]
    return Pairing([(key, ours[key], theirs[key]) for key in common], unpaired)


def evaluate_pairs(pairing: Pairing, measure: Measure, scale: int | None = None) -> Iterator[Row]:
    """Score every pair; pictures of different sizes are an error that names them.

    With `scale`, both are cut to a multiple of it, bicubic is measured beside them, and the LR-PSNR
    tells how well the picture, reduced again, agrees with the reduced original.
    """
    for name, sr_path, hr_path in pairing.pairs:
        sr, hr = images.read(sr_path).color, images.read(hr_path).color
        if sr.shape != hr.shape:
            sizes = " and ".join(f"{p} is {x.shape[2]}x{x.shape[1]}" for p, x in ((sr_path, sr), (hr_path, hr)))
            raise DreamSRError(f"the pictures differ in size: {sizes}")
        lr = None
        if scale is not None:
            sr, hr = crop_to_multiple(sr, scale), crop_to_multiple(hr, scale)
            lr = degrade(hr[None], scale)[0]
            yield _bicubic_row(name, hr, lr, measure)
        yield Row(name, "given", measure(sr, hr, lr))


def evaluate_model(upscaler: Upscaler, folder: Path, steps: Sequence[int], measure: Measure) -> Iterator[Row]:
    """Degrade every picture below `folder`, upscale it at every step count and score it beside bicubic."""
    scale = upscaler.model.config.scale
    for path in images.find(folder):
        hr = crop_to_multiple(images.read(path).color, scale)
        lr = degrade(hr[None], scale)[0]
        size = (hr.shape[-2], hr.shape[-1])
        name = _name(path, folder)
        yield _bicubic_row(name, hr, lr, measure)
        for count in steps:
            run = replace(upscaler, settings=replace(upscaler.settings, steps=count))
            start = time.perf_counter()
            sr = run([lr])[0].cpu()
            seconds = (time.perf_counter() - start) / (size[0] * size[1] / 1e6)
            yield Row(name, count_steps(count), {**measure(sr, hr, lr), "s_per_mp": seconds})


def _bicubic_row(name: str, hr: Tensor, lr: Tensor, measure: Measure) -> Row:
    return Row(name, "bicubic", measure(bicubic(lr[None], (hr.shape[-2], hr.shape[-1]))[0], hr, lr))


def crop_to_multiple(hr: Tensor, scale: int) -> Tensor:
    """Cut (3, H, W) at the bottom and right to sizes that are multiples of `scale`."""
    height, width = (n // scale * scale for n in hr.shape[-2:])
    if min(height, width) == 0:
        raise DreamSRError(f"a picture of {hr.shape[2]}x{hr.shape[1]} is smaller than the scale of {scale}")
    return hr[:, :height, :width]


def means(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Mean of every score by method, in order of appearance; nan values are left out."""
    result: dict[str, dict[str, float]] = {}
    for method in dict.fromkeys(row.method for row in rows):
        chosen = [row.scores for row in rows if row.method == method]
        result[method] = {key: _mean([s[key] for s in chosen]) for key in chosen[0]}
    return result


def to_json(rows: Sequence[Row], protocol: str) -> str:
    """Means and single scores as JSON; infinite and missing values are null."""
    document = {
        "protocol": protocol,
        "means": {k: _finite(v) for k, v in means(rows).items()},
        "pictures": [{"picture": r.picture, "method": r.method, **_finite(r.scores)} for r in rows],
    }
    return json.dumps(document, indent=2)


def _finite(scores: Mapping[str, float]) -> dict[str, float | None]:
    return {k: v if math.isfinite(v) else None for k, v in scores.items()}


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in images.find(folder):
        key = _name(path, folder)
        if key in found:
            raise UsageError(f"{found[key]} and {path} have the same name; their partner would be ambiguous")
        found[key] = path
    return found


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder if folder.is_dir() else folder.parent).with_suffix("").as_posix()
