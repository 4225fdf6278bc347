"""Limits of Pillow's that hold for a whole program."""

import warnings

from PIL import Image, PngImagePlugin


def lift() -> None:
    """Let Pillow open, without warnings, what `decode` bounds itself; not for those who import dreamsr."""
    Image.MAX_IMAGE_PIXELS = None
    PngImagePlugin.MAX_TEXT_CHUNK = 2**26  # long XMP and large profiles are no attack
    warnings.filterwarnings("ignore", module=r"PIL\.")
