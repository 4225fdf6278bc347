"""Measures of a picture against its original; every function states its protocol."""

from dreamsr.metrics.fidelity import luma, psnr, ssim
from dreamsr.metrics.lpips import LPIPS

__all__ = ["LPIPS", "luma", "psnr", "ssim"]
