"""Options that several commands share: one spelling and one help text each."""

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from dreamsr.errors import UsageError
from dreamsr.files.hub import DEFAULT_MODEL

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Bundled name, .safetensors file, run folder, or org/repo, org/repo@revision, org/repo:file on the Hub.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[str, typer.Option(help="auto, fp32, bf16, fp16: precision of the network.")]
Seed = Annotated[int, typer.Option(help="Seed of the noise; the same seed makes the same picture.")]
Sampler = Annotated[str | None, typer.Option(help="ddim, ddpm, dpmpp-2m (default: the model's)")]
Tile = Annotated[
    int | None,
    typer.Option("--tile", "-t", help="Largest side of a tile in output pixels (default: 1088 on a CPU, else 512)"),
]
BatchSize = Annotated[int | None, typer.Option(help="Tiles in one call of the network (default: 1 on a CPU, else 16)")]
Threads = Annotated[int | None, typer.Option(help="CPU threads of the network (default: one a core)")]
Compile = Annotated[
    Literal["auto", "on", "off"], typer.Option("--compile", help="torch.compile; auto: where the job is large enough.")
]
LpipsWeights = Annotated[Path | None, typer.Option(help="LPIPS weights; else $DREAMSR_LPIPS_WEIGHTS, else the cache.")]
DEFAULT = DEFAULT_MODEL


def seconds(text: str) -> float:
    """90, 90s, 25m, 2h or 1h30m in seconds."""
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.strip())
    if not match or not any(match.groups()):
        raise UsageError(f"{text!r} is not a duration", "write 90s, 25m or 1h30m")
    hours, minutes, rest = (int(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + rest


def whole_numbers(text: str) -> list[int]:
    """1,4,10 as a list of positive numbers."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise UsageError(f"--steps is {text!r}; expected whole numbers of at least 1, as in 1,4,10")
    return numbers
