"""Diffusion super-resolution with DREAM (arXiv 2312.00210): upscale, train, eval, export."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from dreamsr.errors import DreamSRError, UsageError

if TYPE_CHECKING:
    from dreamsr.api import Model, load

__all__ = ["DreamSRError", "Model", "UsageError", "__version__", "load"]

try:
    __version__ = version("dreamsr")
except PackageNotFoundError:  # run from a checkout without installing
    __version__ = "0+checkout"


def __getattr__(name: str) -> Any:
    """`load` and `Model`, when they are first asked for: importing torch takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module 'dreamsr' has no attribute {name!r}")
    from dreamsr import api

    return getattr(api, name)
