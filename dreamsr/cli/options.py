"""Options that several commands share: one spelling and one help text each."""

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from dreamsr.cli import console
from dreamsr.errors import UsageError


def html(path: Path | None) -> Path | None:
    """Where a page is to be written: an error for what may be a picture."""
    if path and path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"a page would be written to {path}; expected a name that ends with .html")
    return path


Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Bundled name, .safetensors file, run folder, or org/repo, org/repo@revision, org/repo:file on the Hub.",
    ),
]
Device = Annotated[str, typer.Option(help="auto (CUDA, else MPS, else the CPU), cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[
    str,
    typer.Option(help="auto (bf16 where the hardware has it, else fp32), fp32, bf16, fp16, int8 (CPU)."),
]
TrainingDtype = Annotated[str, typer.Option(help="auto (bf16 where the hardware has it, else fp32), fp32, bf16.")]
Seed = Annotated[int, typer.Option(help="Seed of the noise; the same seed makes the same picture.")]
Sampler = Annotated[
    str,
    typer.Option(
        help="auto, ddim, ddpm, dpmpp-2m, dpmpp-2m-sde, dpmpp-3m, deis, unipc, resshift; "
        "auto: what the model was tuned for at this number of steps, else its own.",
        rich_help_panel="Sampling",
    ),
]
Grid = Annotated[
    str,
    typer.Option(
        help="Spacing of the noise levels: auto, lambda, time, quadratic, karras, or the levels: --grid=-4,-1,0.5,2.",
        rich_help_panel="Sampling",
    ),
]
Fidelity = Annotated[
    float | None,
    typer.Option(
        help="0: all the texture; 1: the mean picture, with the best PSNR, the least invented (default: the model's)",
        rich_help_panel="Sampling",
    ),
]
Samples = Annotated[
    int,
    typer.Option(
        help="Samples whose mean is the output, up to 8 of the picture flipped or turned; N take N times as long.",
        rich_help_panel="Sampling",
    ),
]
Uncertainty = Annotated[
    bool,
    typer.Option(
        "--uncertainty",
        help="With --samples, map where they differ: NAME_uncertainty.png (16-bit gray), NAME_uncertainty_preview.png.",
        rich_help_panel="Sampling",
    ),
]
Consistency = Annotated[
    float,
    typer.Option(
        help="0 to 1: how far the output, reduced again, has to equal the input; for clean inputs and bicubic-x4.",
        rich_help_panel="Sampling",
    ),
]
Tile = Annotated[
    int | None,
    typer.Option(
        "--tile",
        "-t",
        help="Largest side of a tile in output pixels, a multiple of 16 (default: 1472 on a CPU, else 512)",
    ),
]
BatchSize = Annotated[int | None, typer.Option(help="Tiles in one call of the network (default: 1 on a CPU, else 16)")]
Threads = Annotated[int | None, typer.Option(help="CPU threads of the network (default: one for each core)")]
Compile = Annotated[
    Literal["auto", "on", "off"],
    typer.Option("--compile", help="torch.compile; auto: on a GPU, where the job is large enough."),
]
LpipsWeights = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH|download", help="LPIPS weights: file or folder; else $DREAMSR_LPIPS_WEIGHTS, else the cache."
    ),
]
Scale = Annotated[
    float | None,
    typer.Option("--scale", "-s", help="Output size / input size (default: the model's)", rich_help_panel="Size"),
]
MaxSide = Annotated[
    int | None,
    typer.Option(
        help="Limit to the longest side, in pixels; outputs below it have the model's scale; larger inputs fail.",
        rich_help_panel="Size",
    ),
]
Width = Annotated[int | None, typer.Option(help="Width of the output in pixels.", rich_help_panel="Size")]
Height = Annotated[
    int | None,
    typer.Option(help="Height of the output in pixels; with --width: fit inside.", rich_help_panel="Size"),
]
Format = Annotated[
    Literal["auto", "png", "jpg", "webp", "avif", "tiff", "bmp"],
    typer.Option("--format", "-f", help="Format of the output; auto: as the input's.", rich_help_panel="Output"),
]
Quality = Annotated[
    int | None, typer.Option(help="1 to 100, of JPEG, WebP, AVIF (default: 95)", rich_help_panel="Output")
]
Suffix = Annotated[
    str | None,
    typer.Option(help="Appended to the names of outputs, as in --suffix _x4.", rich_help_panel="Output"),
]
Compare = Annotated[
    bool,
    typer.Option(
        "--compare",
        help="Write a picture of before and after beside every output: NAME_compare.png.",
        rich_help_panel="Output",
    ),
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        callback=html,
        help="Write an HTML page of all results, with the first pictures.",
        rich_help_panel="Output",
    ),
]
StripMetadata = Annotated[
    bool,
    typer.Option(
        "--strip-metadata",
        help="Leave out EXIF, XMP and DPI; colours keep their ICC profile.",
        rich_help_panel="Output",
    ),
]
Provenance = Annotated[
    bool,
    typer.Option(
        "--provenance/--no-provenance",
        help="Record in the outputs how they were made; dreamsr info shows it.",
        rich_help_panel="Output",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Make existing outputs again.", rich_help_panel="Output")]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Write nothing; say what would be done, and how long it would take.", rich_help_panel="Output"
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", help="Print a JSON object for each file on stdout, and a summary.", rich_help_panel="Output"
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        callback=lambda wanted: console.quieten() if wanted else None,
        help="Say only what went wrong: warnings, failures, errors.",
    ),
]


def seconds(text: str) -> float:
    """90, 90s, 25m, 2h or 1h30m in seconds."""
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.strip())
    if not match or not any(match.groups()):
        raise UsageError(f"{text!r} is not a duration", "write 90s, 25m or 1h30m")
    hours, minutes, rest = (int(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + rest


def whole_numbers(text: str) -> list[int]:
    """1,4,10 as a list of positive numbers, each once."""
    try:
        numbers = list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise UsageError(f"--steps is {text!r}; expected whole numbers of at least 1, as in 1,4,10")
    return numbers
