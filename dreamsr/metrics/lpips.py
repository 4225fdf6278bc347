"""LPIPS v0.1 with AlexNet features (Zhang et al. 2018, arXiv 1801.03924)."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_MINIMUM = 32


class LPIPS:
    """Distance of two pictures (3, H, W) in [-1, 1]; 0 for equal ones.

    weights: `backbone.features.N.weight/bias` of AlexNet and the heads `lin.lin0` .. `lin.lin4`.
    """

    name = "LPIPS(alex, v0.1)"
    KEYS = frozenset(
        [f"backbone.features.{i}.{part}" for i in (0, 3, 6, 8, 10) for part in ("weight", "bias")]
        + [f"lin.lin{i}" for i in range(5)]
    )

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = dict(weights)

    @torch.inference_mode()
    def __call__(self, a: Tensor, b: Tensor) -> float:
        """Pictures smaller than 32 pixels on a side are measured with replicated edges."""
        distance = torch.zeros(())
        features = zip(self._features(a), self._features(b), strict=True)
        for i, (x, y) in enumerate(features):
            difference = (F.normalize(x, dim=1, eps=1e-10) - F.normalize(y, dim=1, eps=1e-10)).square()
            head = self.weights[f"lin.lin{i}"].view(1, -1, 1, 1)
            distance = distance + (difference * head).sum(1).mean()
        return float(distance)

    def _features(self, x: Tensor) -> list[Tensor]:
        shift, scale = (torch.tensor(v).view(3, 1, 1) for v in (_SHIFT, _SCALE))
        x = ((x.float().cpu() - shift) / scale)[None]
        bottom, right = (max(0, _MINIMUM - n) for n in x.shape[-2:])
        x = F.pad(x, (0, right, 0, bottom), mode="replicate")
        taps = [x := F.relu(self._conv(x, 0, stride=4, padding=2))]
        taps.append(x := F.relu(self._conv(F.max_pool2d(x, 3, 2), 3, padding=2)))
        taps.append(x := F.relu(self._conv(F.max_pool2d(x, 3, 2), 6, padding=1)))
        taps.append(x := F.relu(self._conv(x, 8, padding=1)))
        taps.append(F.relu(self._conv(x, 10, padding=1)))
        return taps

    def _conv(self, x: Tensor, layer: int, stride: int = 1, padding: int = 0) -> Tensor:
        name = f"backbone.features.{layer}"
        return F.conv2d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], stride, padding)
