"""Pictures of printed text, as a screenshot or a scan would show it: something photos teach little about.

    python scripts/text_pages.py OUT [--count 50] [--seed 0]

OUT gets PNG files of 384 x 384 pixels with words of this project's licence in random sizes and colours.
"""

import argparse
import random
import re
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIDE = 384
SIZES = (14, 36)
"""Heights of the letters, in pixels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    choice, vocabulary = random.Random(options.seed), words()
    for i in range(options.count):
        page(choice, vocabulary).save(options.out / f"page_{i:03}.png")


def words() -> list[str]:
    """The words and numbers of the licence, in order."""
    return re.findall(r"[A-Za-z0-9.,']+", (Path(__file__).resolve().parents[1] / "LICENSE").read_text(encoding="utf-8"))


def page(choice: random.Random, vocabulary: list[str]) -> Image.Image:
    """Lines of consecutive words, dark on light or light on dark."""
    size = choice.randint(*SIZES)
    dark, light = ([choice.randint(low, low + 70) for _ in range(3)] for low in (0, 185))
    paper, ink = (light, dark) if choice.random() < 0.7 else (dark, light)
    picture = Image.new("RGB", (SIDE, SIDE), tuple(paper))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
    start = choice.randrange(len(vocabulary) - 12 * SIDE // SIZES[0])
    for line, top in enumerate(range(choice.randint(0, size), SIDE, size + size // 3)):
        text = " ".join(vocabulary[start + 12 * line : start + 12 * line + 12])
        draw.text((choice.randint(-size, size), top), text, tuple(ink), font)
    return picture


if __name__ == "__main__":
    main()
