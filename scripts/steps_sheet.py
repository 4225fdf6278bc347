"""Details of free photos at several step counts: bicubic | 1 | 4 | 10 | 50 steps | original."""

import argparse
from pathlib import Path

import skimage.data
import torch
from torch import Tensor

from dreamsr.core.resize import bicubic
from dreamsr.data.degrade import degrade
from dreamsr.engine.device import choose_device, choose_dtype
from dreamsr.engine.schedule import Settings
from dreamsr.engine.sources import crop_to_multiple
from dreamsr.engine.upscaler import Upscaler
from dreamsr.files import checkpoint, hub, images

STEPS = (1, 4, 10, 50)
SIDE = 144
DETAILS = {  # name: top left corners
    "astronaut": [(60, 150), (330, 60)],
    "chelsea": [(90, 120)],
    "coffee": [(190, 330)],
    "rocket": [(150, 260)],
    "brick": [(100, 100)],
    "text": [(20, 100)],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT.png")
    parser.add_argument("model", nargs="?", default="bicubic-x4", help="default: bicubic-x4")
    options = parser.parse_args()
    device = choose_device()
    model = checkpoint.load_model(hub.resolve(options.model))
    model = model.to(device, choose_dtype(device))
    rows = [row for name, corners in DETAILS.items() for row in details(model, name, corners)]
    images.write_sheet(options.out, [list(column) for column in zip(*rows, strict=True)])


def details(model: checkpoint.Model, name: str, corners: list[tuple[int, int]]) -> list[list[Tensor]]:
    """For every corner: the detail in bicubic, at every step count, and in the original."""
    hr = crop_to_multiple(photo(name), model.config.scale)
    lr = degrade(hr[None], model.config.scale)[0]
    pictures = [bicubic(lr[None], (hr.shape[1], hr.shape[2]))[0]]
    pictures += [Upscaler(model, Settings(steps=steps))([lr])[0].cpu() for steps in STEPS]
    return [[x[:, top : top + SIDE, left : left + SIDE] for x in (*pictures, hr)] for top, left in corners]


def photo(name: str) -> Tensor:
    """A photo of scikit-image as (3, H, W) in [-1, 1]; gray ones as three equal planes."""
    data = torch.from_numpy(getattr(skimage.data, name)().copy())
    data = data if data.ndim == 3 else data[..., None].expand(-1, -1, 3)
    return images.to_unit(data.permute(2, 0, 1))


if __name__ == "__main__":
    main()
