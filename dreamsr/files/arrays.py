"""Pictures in memory: Pillow images, arrays and tensors as `Picture`s, and back."""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from dreamsr.errors import UsageError
from dreamsr.files.picture import MODES, Picture, from_pil, from_pixels, joined, split, to_pil, to_pixels

Pictorial = TypeVar("Pictorial", Image.Image, npt.NDArray[Any], Tensor)
"""What comes in as one of these goes out as the same."""
_BITS = {"uint8": 8, "uint16": 16}


def pictures(image: object) -> list[Picture]:
    """The pictures in an image, an array or a tensor: one, or as many as a tensor's batch has.

    Raises UsageError for any other kind, shape, number type or range than `dreamsr.Model.upscale` names.
    """
    if isinstance(image, Image.Image):
        return [_from_pil(image)]
    if isinstance(image, np.ndarray) and not isinstance(image, np.matrix | np.ma.MaskedArray):
        return [_from_array(image)]
    if isinstance(image, Tensor):
        return _from_tensor(image)
    raise UsageError(f"{type(image).__name__} is no picture", "give a Pillow image, a numpy array or a tensor")


def like(image: Pictorial, made: Sequence[Picture]) -> Pictorial:
    """`made` of the `pictures` of an image, in the form that the image has."""
    if isinstance(image, Image.Image):
        pil = to_pil(made[0])
        pil.info |= {key: value for key, value in image.info.items() if key == "icc_profile"}
        return pil
    if isinstance(image, Tensor):
        planes = torch.stack([_to_range(joined(picture)) for picture in made])
        return (planes if image.ndim == 4 else planes[0]).to(image.device, image.dtype)
    return _to_array(image, made[0])


def _from_pil(image: Image.Image) -> Picture:
    if image.mode not in MODES:
        raise UsageError(
            f"a Pillow image of mode {image.mode} is not upscaled as it is",
            'give image.convert("RGB"), or np.asarray(image).astype(np.uint16) for 16 bits',
        )
    _check_size(image.size[::-1])
    try:
        pixels = from_pil(image)
    except (OSError, ValueError) as error:  # a file that is cut off, or closed
        raise UsageError(f"the Pillow image cannot be read: {error}") from error
    color, alpha = from_pixels(pixels)
    return Picture(color, alpha, gray=pixels.shape[2] < 3)


def _from_array(array: npt.NDArray[Any]) -> Picture:
    floating = np.issubdtype(array.dtype, np.floating)
    if not floating and array.dtype.name not in _BITS:
        raise UsageError(f"an array of {array.dtype}; expected uint8, uint16, or a float in [0, 1]")
    if array.ndim not in (2, 3) or (array.ndim == 3 and not 1 <= array.shape[2] <= 4):
        raise UsageError(f"an array of shape {array.shape}; expected (H, W) or (H, W, C) with 1 to 4 channels")
    _check_size(array.shape[:2])
    pixels = array if array.ndim == 3 else array[..., None]
    if floating:
        color, alpha = split(_from_range(torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)))
    else:
        color, alpha = from_pixels(pixels.astype(array.dtype.newbyteorder("="), copy=False))
    return Picture(color, alpha, gray=pixels.shape[2] < 3, depth=_BITS.get(array.dtype.name, 16))


def _to_array(array: npt.NDArray[Any], picture: Picture) -> npt.NDArray[Any]:
    if array.dtype.name in _BITS:
        pixels: npt.NDArray[Any] = to_pixels(picture, picture.depth).astype(array.dtype, copy=False)
    else:
        pixels = _to_range(joined(picture)).permute(1, 2, 0).numpy().astype(array.dtype)
    return pixels if array.ndim == 3 else pixels[..., 0]


def _from_tensor(tensor: Tensor) -> list[Picture]:
    if not tensor.is_floating_point():
        raise UsageError(f"a tensor of {tensor.dtype}; expected a float in [0, 1]", "for bytes: tensor / 255")
    if tensor.layout != torch.strided or tensor.is_meta:
        raise UsageError(f"a tensor of layout {tensor.layout} on {tensor.device}; expected one with plain values")
    if tensor.ndim not in (3, 4) or tensor.shape[-3] != 3 or len(tensor) < 1:
        raise UsageError(f"a tensor of shape {tuple(tensor.shape)}; expected (3, H, W) or (B, 3, H, W)")
    _check_size(tensor.shape[-2:])
    planes = _from_range(tensor.detach().to("cpu", torch.float32))
    return [Picture(color, depth=16) for color in planes.reshape(-1, *planes.shape[-3:])]


def _check_size(size: Sequence[int]) -> None:
    if min(size) < 1:
        raise UsageError(f"a picture of {size[1]}x{size[0]} pixels; expected at least 1x1")


def _from_range(x: Tensor) -> Tensor:
    """[0, 1] to [-1, 1]"""
    low, high = map(float, x.aminmax())
    if not (low >= 0 and high <= 1):  # nor is what is no number
        raise UsageError(f"values from {low:.4g} to {high:.4g}; expected 0 to 1", "divide by 255, or clip first")
    return 2 * x - 1


def _to_range(x: Tensor) -> Tensor:
    """[-1, 1] to [0, 1]"""
    return ((x + 1) / 2).clamp(0, 1)
