"""LPIPS v0.1 with features of AlexNet or SqueezeNet 1.1 (Zhang et al. 2018, arXiv 1801.03924)."""

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Network = Literal["alex", "squeeze"]
VERSION = "v0.1"
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_MINIMUM = 32
_FIRES = (3, 4, 6, 7, 9, 10, 11, 12)
_HEADS = {"alex": 5, "squeeze": 7}


def _layers(network: Network) -> list[str]:
    if network == "alex":
        return [str(i) for i in (0, 3, 6, 8, 10)]
    return ["0", *(f"{i}.{part}" for i in _FIRES for part in ("squeeze", "expand1x1", "expand3x3"))]


def keys(network: Network) -> set[str]:
    """Names of the weights that `LPIPS` needs."""
    convolutions = {f"backbone.features.{i}.{part}" for i in _layers(network) for part in ("weight", "bias")}
    return convolutions | {f"lin.lin{i}" for i in range(_HEADS[network])}


class LPIPS:
    """Distance of two pictures (3, H, W) in [-1, 1]; 0 for equal ones.

    weights: `backbone.features.*` as torchvision names them, and the heads `lin.lin0`, `lin.lin1` ...
    """

    def __init__(self, weights: Mapping[str, Tensor], network: Network = "alex") -> None:
        self.weights = dict(weights)
        self.network: Network = network

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

    def _features(self, x: Tensor) -> Iterator[Tensor]:
        """The activations that are compared, one a stage."""
        shift, scale = (torch.tensor(v).view(3, 1, 1) for v in (_SHIFT, _SCALE))
        x = ((x.float().cpu() - shift) / scale)[None]
        bottom, right = (max(0, _MINIMUM - n) for n in x.shape[-2:])
        x = F.pad(x, (0, right, 0, bottom), mode="replicate")
        return self._alex(x) if self.network == "alex" else self._squeeze(x)

    def _alex(self, x: Tensor) -> Iterator[Tensor]:
        yield (x := self._relu(x, "0", stride=4, padding=2))
        yield (x := self._relu(F.max_pool2d(x, 3, 2), "3", padding=2))
        yield (x := self._relu(F.max_pool2d(x, 3, 2), "6", padding=1))
        yield (x := self._relu(x, "8", padding=1))
        yield self._relu(x, "10", padding=1)

    def _squeeze(self, x: Tensor) -> Iterator[Tensor]:
        yield (x := self._relu(x, "0", stride=2))
        for pair in ((3, 4), (6, 7)):
            x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            for i in pair:
                x = self._fire(x, i)
            yield x
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        for i in _FIRES[4:]:
            yield (x := self._fire(x, i))

    def _fire(self, x: Tensor, i: int) -> Tensor:
        x = self._relu(x, f"{i}.squeeze")
        return torch.cat([self._relu(x, f"{i}.expand1x1"), self._relu(x, f"{i}.expand3x3", padding=1)], 1)

    def _relu(self, x: Tensor, layer: str, stride: int = 1, padding: int = 0) -> Tensor:
        name = f"backbone.features.{layer}"
        return F.relu(F.conv2d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], stride, padding))
