"""`dreamsr export`"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dreamsr.cli import console
from dreamsr.config import load_toml
from dreamsr.errors import UsageError


def export(
    source: Annotated[
        str, typer.Argument(metavar="RUN_OR_MODEL", help="Folder of a run, a model, or what --from says.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="The file to make.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Changes to the model's configuration, as name=mine."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="fp16, bf16, fp32: precision of the stored weights.")] = "fp16",
    card: Annotated[
        Path | None, typer.Option(help="TOML file with entries for the card: licence, data and the like.")
    ] = None,
    origin: Annotated[
        Literal["sr3"] | None,
        typer.Option("--from", help="Convert the file of another program; sr3: a published SR3 or DREAM *_gen.pth."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
) -> None:
    """Write the averaged weights of a run, or a model, as one slim file with configuration and card.

    The file is read back and compared before it is put in place.
    """
    from dreamsr.engine import exporter

    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists", "give another name, or --overwrite")
    if card is not None and not card.is_file():
        raise UsageError(f"there is no file {card}", "give a TOML file with --card")
    entries = load_toml(card.read_text(), str(card)) if card else None
    model = exporter.export(source, target, dtype, overrides or [], entries, origin)
    console.say(f"{model.config.name}: {target.stat().st_size / 2**20:.1f} MiB, {dtype}, read back and compared")
    console.data(str(target))
