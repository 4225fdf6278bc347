"""What samples agree on: details of free photos, original | mean of 8 samples | where they differ."""

import argparse
import tempfile
from pathlib import Path

from steps_sheet import photo
from torch import Tensor

from dreamsr.data.degrade import degrade
from dreamsr.engine.device import choose_device, choose_dtype
from dreamsr.engine.schedule import Settings
from dreamsr.engine.sources import crop_to_multiple
from dreamsr.engine.upscaler import Upscaler
from dreamsr.files import checkpoint, hub, images, uncertainty

SIDE = 192
DETAILS = {  # name: top left corners
    "astronaut": [(60, 150)],
    "page": [(0, 40)],
    "chelsea": [(90, 120)],
    "brick": [(100, 100)],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT.png")
    parser.add_argument("model", nargs="?", default="bicubic-x4", help="default: bicubic-x4")
    options = parser.parse_args()
    device = choose_device()
    model = checkpoint.load_model(hub.resolve(options.model))
    upscaler = Upscaler(model.to(device, choose_dtype(device)), Settings(samples=8, fidelity=0.0))
    rows = [row(upscaler, name, corner) for name, corners in DETAILS.items() for corner in corners]
    images.write_sheet(options.out, [list(column) for column in zip(*rows, strict=True)])


def row(upscaler: Upscaler, name: str, corner: tuple[int, int]) -> list[Tensor]:
    """A detail: the original, the mean, and the coloured deviation as `--uncertainty` writes it."""
    top, left = corner
    scale = upscaler.model.config.scale
    hr = crop_to_multiple(photo(name)[:, top : top + SIDE, left : left + SIDE], scale)
    (made,) = upscaler.enlarge([degrade(hr[None], scale)[0]])
    assert made.deviation is not None
    with tempfile.TemporaryDirectory() as folder:
        numbers, preview = Path(folder, "a.png"), Path(folder, "b.png")
        uncertainty.write(numbers, preview, made.deviation.cpu())
        return [hr, made.color.cpu(), images.read(preview).color]


if __name__ == "__main__":
    main()
