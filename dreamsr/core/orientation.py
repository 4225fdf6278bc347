"""Networks that see pictures flipped and transposed, and answer as if they had not.

A photo has no orientation that its mirror image could not have, so the mean over all eight is nearer to the truth than
one (geometric self-ensemble: Timofte et al., arXiv 1511.02228).
"""

from dataclasses import dataclass, replace

from torch import Tensor

from dreamsr.core.denoiser import Denoiser, Network

ORIENTATIONS = 8


def turned(x: Tensor, way: int) -> Tensor:
    """(..., H, W) in one of eight orientations; 0: as it is, 4 to 7: (..., W, H)."""
    flipped = _flipped(x, way)
    return flipped.transpose(-1, -2) if way & 4 else flipped


def turned_back(x: Tensor, way: int) -> Tensor:
    """The inverse of `turned` in the same orientation."""
    return _flipped(x.transpose(-1, -2) if way & 4 else x, way)


def _flipped(x: Tensor, way: int) -> Tensor:
    axes = [axis for axis, bit in ((-1, 1), (-2, 2)) if way & bit]
    return x.flip(axes) if axes else x  # flipping by no axis would copy


@dataclass(frozen=True)
class Turned:
    """A network that sees everything in orientation `way`."""

    network: Network
    way: int

    def encode(self, anchor: Tensor, scale: Tensor) -> Tensor:
        return self.network.encode(turned(anchor, self.way), scale)

    def __call__(self, u: Tensor, angle: Tensor, features: Tensor) -> Tensor:
        return turned_back(self.network(turned(u, self.way), angle, features), self.way)


def oriented(denoiser: Denoiser, way: int) -> Denoiser:
    """The same denoiser, whose network sees everything in orientation `way`, as in `turned`."""
    exact = denoiser.exact and Turned(denoiser.exact, way)
    return replace(denoiser, network=Turned(denoiser.network, way), exact=exact)
