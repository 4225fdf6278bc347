"""Compare where few-step sampling ends, on held-out photos: the table behind a model's sampling settings.

    python scripts/compare_grids.py MODEL PHOTOS --steps 4 --starts=-4,-2 --ends 1,2 --samplers ddim [--every 2]

Prints PSNR-Y and LPIPS (its weights by $DREAMSR_LPIPS_WEIGHTS) for every lambda grid. The winner goes into a model
with `dreamsr export MODEL OUT.safetensors sampling.lambda_start=... sampling.lambda_end=...`.
"""

import argparse
from dataclasses import replace
from itertools import product
from pathlib import Path

from dreamsr.data.degrade import degrade
from dreamsr.engine.device import choose_device, choose_dtype
from dreamsr.engine.evaluator import crop_to_multiple
from dreamsr.engine.measure import Measure, load_lpips
from dreamsr.engine.upscaler import Settings, Upscaler
from dreamsr.files import checkpoint, hub, images
from dreamsr.metrics import luma, psnr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--starts", default="-4")
    parser.add_argument("--ends", default="0,1,2")
    parser.add_argument("--samplers", default="ddim")
    parser.add_argument("--every", type=int, default=1, help="take every n-th photo")
    options = parser.parse_args()
    device = choose_device()
    model = checkpoint.load_model(hub.resolve(options.model)).to(device, choose_dtype(device))
    scale = model.config.scale
    hrs = [crop_to_multiple(images.read(path).color, scale) for path in images.find(options.photos)[:: options.every]]
    lrs = [degrade(hr[None], scale)[0] for hr in hrs]
    measure = Measure(lpips=load_lpips(None))
    print(f"{len(hrs)} photos, {options.steps} steps\nsampler    start    end  PSNR-Y   LPIPS")
    starts, ends = (list(map(float, text.split(","))) for text in (options.starts, options.ends))
    for sampler, start, end in product(options.samplers.split(","), starts, ends):
        sampling = replace(model.config.sampling, sampler=sampler, lambda_start=start, lambda_end=end)
        candidate = replace(model, config=replace(model.config, sampling=sampling))
        upscaler = Upscaler(candidate, Settings(steps=options.steps))
        pairs = [(images.to_bytes(upscaler([lr])[0].cpu()), hr) for lr, hr in zip(lrs, hrs, strict=True)]
        fidelity = sum(psnr(luma(sr), luma(images.to_bytes(hr)), scale) for sr, hr in pairs) / len(pairs)
        distance = sum(measure.lpips(images.to_unit(sr), hr) for sr, hr in pairs) / len(pairs) if measure.lpips else 0
        print(f"{sampler:9} {start:6.2f} {end:6.2f} {fidelity:7.2f} {distance:7.4f}", flush=True)


if __name__ == "__main__":
    main()
