"""Maps of how far samples of a picture differ: 16-bit gray for programs, colours for people."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from dreamsr.files.atomic import atomic

FULL = 0.1
"""Standard deviation, as a share of the whole range, that is drawn in the brightest colour."""
_RAMP = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
"""Black, purple, red, orange, pale yellow."""


def write(path: Path, preview: Path, deviation: Tensor) -> None:
    """Write the standard deviation (H, W), as a share of the whole range, to two PNG files.

    path: 16-bit gray, 65535 standing for 1.  preview: colours, from black at 0 to pale yellow at `FULL`.
    """
    levels = (deviation.clamp(0, 1) * 65535).round().to(torch.uint16)
    with atomic(path) as temporary:
        Image.fromarray(levels.numpy()).save(temporary, "PNG")
    with atomic(preview) as temporary:
        Image.fromarray(_colored((deviation / FULL).clamp(0, 1)).numpy()).save(temporary, "PNG")


def _colored(share: Tensor) -> Tensor:
    """(H, W) in [0, 1] to uint8 (H, W, 3), linear between the colours of the ramp."""
    ramp = torch.tensor(_RAMP, dtype=torch.float32)
    place = share * (len(ramp) - 1)
    lower = place.floor().clamp(max=len(ramp) - 2)
    mixed = torch.lerp(ramp[lower.long()], ramp[lower.long() + 1], (place - lower)[..., None])
    return mixed.round().to(torch.uint8)
