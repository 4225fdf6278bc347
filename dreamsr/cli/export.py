"""`dreamsr export`"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dreamsr.cli import console, options
from dreamsr.errors import UsageError
from dreamsr.tables import load_toml
from dreamsr.words import counted


def export(
    source: Annotated[
        str, typer.Argument(metavar="RUN_OR_MODEL", help="Folder of a run, a model, or a file for --from.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The file to make: .safetensors or .onnx.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Changes to the model's configuration, as name=mine."),
    ] = None,
    format: Annotated[
        Literal["auto", "safetensors", "onnx"], typer.Option("--format", "-f", help="auto: by the suffix of OUT.")
    ] = "auto",
    steps: Annotated[
        int | None, typer.Option(help="Sampling steps inside an ONNX graph, 1 to 8 (default: the model's)")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="fp16, bf16, fp32: precision of the weights (default: fp16; fp32 in ONNX)")
    ] = None,
    card: Annotated[
        Path | None, typer.Option(help="TOML file with entries for the card: licence, data and the like.")
    ] = None,
    origin: Annotated[
        Literal["sr3"] | None,
        typer.Option("--from", help="Convert the file of another program; sr3: a published SR3 or DREAM *_gen.pth."),
    ] = None,
    blend: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL=SHARE", help="Mix in the weights of a related model or run; may be repeated."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the averaged weights of a run, or a model, as one slim file with configuration and card.

    As .safetensors it is read back and compared before it is put in place. As .onnx it is one graph from picture and
    noise to the enlarged picture, compared with torch on three sizes.
    """
    from dreamsr.engine import exporter

    kind = exporter.format_of(target, format)
    if kind == "safetensors" and steps is not None:
        raise UsageError("--steps is for ONNX; weights go with any number of steps", "or change sampling.steps=4")
    if kind == "onnx" and blend:
        raise UsageError("--blend makes weights", f"name the output {target.stem}.safetensors, then export that")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists", "give another name, or --overwrite")
    if card is not None and not card.is_file():
        raise UsageError(f"there is no file {card}", "give a TOML file with --card")
    entries = load_toml(card.read_bytes(), str(card)) if card else None
    if kind == "onnx":
        precision = dtype or "fp32"
        graph = exporter.export_onnx(source, target, precision, steps, overrides or [], entries, origin)
        name, checked = graph.name, _differences(graph.differences, exporter.CHECKED)
        console.say(f"{counted(graph.steps, 'step')} inside, by {graph.sampling}")
    else:
        precision = dtype or "fp16"
        shares = _shares(blend or [])
        config = exporter.export(source, target, precision, overrides or [], entries, origin, shares).config
        name, checked = config.name, "read back and compared"
        if tuned := sorted(len(grid.lambdas) for grid in config.sampling.tuned):
            counts = " and ".join(map(str, tuned))
            console.say(f"what was tuned for {counts} steps comes before sampling.*; sampling.tuned=[] leaves it out")
    console.say(f"{name}: {target.stat().st_size / 2**20:.1f} MiB, {precision}, {checked}")
    console.data(str(target))


def _shares(texts: list[str]) -> dict[str, float]:
    """MODEL=SHARE, as typed."""
    shares: dict[str, float] = {}
    for text in texts:
        name, _, share = text.rpartition("=")
        if name in shares:
            raise UsageError(f"--blend {name} is named twice", "give it one share")
        try:
            shares[name] = float(share)
        except ValueError:
            raise UsageError(f"--blend takes MODEL=SHARE, not {text}", "for example bicubic-x4=0.5") from None
    return shares


def _differences(values: tuple[float, ...], sizes: tuple[tuple[int, int], ...]) -> str:
    each = ", ".join(f"{value:.1e} on {w}x{h}" for value, (h, w) in zip(values, sizes, strict=True))
    return f"largest difference to torch in fp32, of a range of 1: {each}"
