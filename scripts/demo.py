"""Upscale four free photos, small and worn as those of the web are, and compare with bicubic: `make demo`.

OUT gets the small photos (lr/), blurred, noisy and compressed by chance, what dreamsr made of them (sr/), and
sheet.png: bicubic | dreamsr | original.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import skimage.data
import torch
from torch import Tensor

from dreamsr.config import ModelConfig
from dreamsr.core.resize import bicubic
from dreamsr.data.degrade import examples
from dreamsr.engine.measure import Measure
from dreamsr.engine.sources import crop_to_multiple
from dreamsr.files import images
from dreamsr.files.images import Picture

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
SCALE = 4
CUT = 384

Group = dict[str, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    out: Path = parser.parse_args().out
    originals = {name: original(name) for name in PHOTOS}
    worn = examples(list(originals.values()), ModelConfig(degradation="photo", scale=SCALE))
    small = dict(zip(originals, worn, strict=True))
    for name, lr in small.items():
        images.write(out / "lr" / f"{name}.png", Picture(lr))
    command = ["upscale", str(out / "lr"), str(out / "sr"), "--steps", "4", "--overwrite"]
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "dreamsr", *command], check=True)
    seconds = time.perf_counter() - start
    enlarged = {n: bicubic(lr[None], (originals[n].shape[1], originals[n].shape[2]))[0] for n, lr in small.items()}
    results = {name: images.read(out / "sr" / f"{name}.png").color for name in PHOTOS}
    images.write_sheet(
        out / "sheet.png", [[group[n][:, :CUT, :CUT] for n in PHOTOS] for group in (enlarged, results, originals)]
    )
    report(originals, enlarged, results)
    print(f"dreamsr {' '.join(command)}: {seconds:.1f} s, start-up included; pictures: {out}/sheet.png")


def original(name: str) -> Tensor:
    """A photo of scikit-image as (3, H, W) in [-1, 1], its sizes multiples of the scale."""
    data = torch.from_numpy(getattr(skimage.data, name)()).permute(2, 0, 1)
    return crop_to_multiple(images.to_unit(data), SCALE)


def report(originals: Group, enlarged: Group, results: Group) -> None:
    measure = Measure(crop=SCALE)
    print(f"{'PSNR-Y in dB':12}{'bicubic':>9}{'dreamsr':>9}")
    for name, hr in originals.items():
        scores = [measure(group[name], hr)["psnr_y"] for group in (enlarged, results)]
        print(f"{name:12}{scores[0]:9.2f}{scores[1]:9.2f}")


if __name__ == "__main__":
    main()
