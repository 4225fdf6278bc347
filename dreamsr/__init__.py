"""Diffusion super-resolution with DREAM (arXiv 2312.00210): upscale, train, eval, export."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("dreamsr")
except PackageNotFoundError:  # run from a checkout without installing
    __version__ = "0+checkout"
