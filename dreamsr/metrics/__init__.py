"""Measures of a picture against its original; every function states its protocol."""

from dreamsr.metrics.fidelity import both_ssim, consistency, luma, ms_ssim, psnr, ssim
from dreamsr.metrics.lpips import LPIPS

__all__ = ["LPIPS", "both_ssim", "consistency", "luma", "ms_ssim", "psnr", "ssim"]
