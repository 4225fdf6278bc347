"""From what a network made to the picture that was asked for."""

from torch import Tensor

from dreamsr.errors import DreamSRError
from dreamsr.files import images
from dreamsr.files.images import Picture


def finished(source: Picture, color: Tensor, size: tuple[int, int]) -> Picture:
    """`source` with its enlarged `color` (3, H, W), all else to match, reduced to `size` (height, width).

    Raises DreamSRError for values that are not finite.
    """
    if not bool(color.sum().isfinite()):  # all of them are, without copies of a large picture
        raise DreamSRError("the network gave values that are not finite", "take another model")
    return images.resize(images.enlarged(source, color), size)
