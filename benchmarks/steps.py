"""Quality and time against the number of steps, for several ways to sample: a table and a plot.

    python benchmarks/steps.py docs/samplers.md --data PICTURES [--model bicubic-x4] [--dtype fp32]

PSNR on Y and LPIPS (weights by $DREAMSR_LPIPS_WEIGHTS) of pictures that are reduced by four and enlarged again at
fidelity 0, where steps matter most. Writes the table between the marks of the page, and images/steps.svg beside it.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pages

from dreamsr.config import ModelConfig
from dreamsr.engine.device import choose_device, choose_dtype
from dreamsr.engine.evaluator import Sampled, benchmark
from dreamsr.engine.measure import Measure, load_lpips
from dreamsr.engine.schedule import AUTO, Settings, schedule
from dreamsr.engine.statistics import means
from dreamsr.engine.upscaler import Upscaler
from dreamsr.errors import DreamSRError, UsageError
from dreamsr.files import checkpoint, hub
from dreamsr.words import counted

STEPS = (1, 2, 4, 8, 16, 50)
MARK = "<!-- measured: python benchmarks/steps.py docs/samplers.md -->"


@dataclass(frozen=True)
class Way:
    """A row of the table."""

    name: str
    sampler: str
    grid: str

    def settings(self, steps: int) -> Settings:
        return Settings(steps, self.sampler, self.grid, fidelity=0.0)


WAYS = (
    Way("`ddim`, `time`", "ddim", "time"),
    Way("`ddim`, `lambda`", "ddim", "lambda"),
    Way("`dpmpp-2m`, `lambda`", "dpmpp-2m", "lambda"),
    Way("`auto`", AUTO, AUTO),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="bicubic-x4")
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    device = choose_device()
    model = checkpoint.load_model(hub.resolve(options.model)).to(device, choose_dtype(device, options.dtype))
    found = measured(model, options.data)
    draw(found, options.page.parent / "images" / "steps.svg")
    pages.replace(options.page, MARK, table(found))


def measured(model: checkpoint.Model, data: Path) -> dict[tuple[str, int], dict[str, float]]:
    """Mean scores by way and number of steps; what a sampler or a grid cannot do is left out."""
    contenders = [
        Sampled(f"{way.name} {steps}", Upscaler(model, way.settings(steps)))
        for way in WAYS
        for steps in STEPS
        if possible(model.config, way.settings(steps))
    ]
    known, _ = benchmark(
        data, contenders, Measure(model.config.scale, load_lpips(None)), model.config.scale, model.config
    )
    rows = []
    for row in known.rows():
        print(row.picture, row.method, flush=True)
        rows.append(row)
    scores = means(rows)
    keys = {f"{way.name} {steps}": (way.name, steps) for way in WAYS for steps in STEPS}
    return {
        keys[name]: {key: mean.value for key, mean in found.items()} for name, found in scores.items() if name in keys
    }


def possible(config: ModelConfig, settings: Settings) -> bool:
    """Whether the model can be sampled so."""
    try:
        schedule(config, settings)
    except UsageError:
        return False
    return True


def table(found: dict[tuple[str, int], dict[str, float]]) -> str:
    """Markdown: PSNR-Y / LPIPS a cell, seconds a megapixel in the last row."""

    def cell(name: str, steps: int) -> str:
        scores = found.get((name, steps))
        return f"{scores['psnr_y']:.2f} / {scores['lpips']:.3f}".replace(" 0.", " .") if scores else ""

    rows = [[way.name, *(cell(way.name, n) for n in STEPS)] for way in WAYS]
    seconds = [min(scores["s_per_mp"] for (_, n), scores in found.items() if n == steps) for steps in STEPS]
    rows.append(["seconds per output megapixel", *(f"{s:.1f}" for s in seconds)])
    return pages.table(["PSNR-Y / LPIPS", *(counted(steps, "step") for steps in STEPS)], rows)


def draw(found: dict[tuple[str, int], dict[str, float]], path: Path) -> None:
    """PSNR against LPIPS, a line for every way, its points the numbers of steps."""
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for way in WAYS:
        points = [(n, found[way.name, n]) for n in STEPS if (way.name, n) in found]
        x, y = [scores["lpips"] for _, scores in points], [scores["psnr_y"] for _, scores in points]
        axes.plot(x, y, marker="o", label=way.name.replace("`", ""))
        for (n, _), a, b in zip(points, x, y, strict=True):
            axes.annotate(str(n), (a, b), textcoords="offset points", xytext=(5, 4), fontsize=8)
    axes.set_xlabel("LPIPS (lower is better)")
    axes.set_ylabel("PSNR-Y in dB (higher is better)")
    axes.legend()
    axes.grid(alpha=0.3)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    try:
        main()
    except DreamSRError as error:
        raise SystemExit(f"error: {error}") from None
