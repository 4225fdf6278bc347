"""`dreamsr models`"""

import json as json_module
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from dreamsr.cli import console
from dreamsr.config import ModelConfig
from dreamsr.tables import from_dict

models = typer.Typer(help="Models: those that are bundled, and those of the Hugging Face Hub.")
Name = Annotated[
    str, typer.Argument(metavar="MODEL", help="Bundled name, .safetensors file, run folder, or a name on the Hub.")
]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@models.callback(invoke_without_command=True)
def _default(context: typer.Context, json: Json = False) -> None:
    """Models: those that are bundled, and those of the Hugging Face Hub; without a command, as `list`."""
    if context.invoked_subcommand is None:
        bundled(json)


@models.command("list")
def bundled(json: Json = False) -> None:
    """List the bundled models and where they lie; with --json, configurations and cards too."""
    from dreamsr.files import checkpoint, hub

    found = {name: (path, *checkpoint.describe(path)) for name, path in hub.bundled().items()}
    if json:
        document = [
            {"name": name, "path": str(path), "config": config, "card": card}
            for name, (path, config, card) in found.items()
        ]
        _print(document)
        return
    rows = [
        [
            name,
            _scales(config),
            f"{path.stat().st_size / 2**20:.1f} MiB",
            str(card.get("licence", "-")),
            str(path),
        ]
        for name, (path, config, card) in found.items()
    ]
    console.table(["model", "scales", "size", "licence", "file"], rows)
    if not rows:
        console.warn("no model is bundled with this installation")


@models.command()
def info(name: Name, json: Json = False) -> None:
    """Print a model's card (licence, data, training, measured figures) and configuration."""
    from dreamsr.files import checkpoint, hub

    path = hub.resolve(name)
    config, card = checkpoint.describe(path)
    if json:
        _print({"name": config.get("name"), "path": str(path), "config": config, "card": card})
        return
    facts = [["file", str(path)], ["scales", _scales(config)]]
    console.table(["key", "value"], [*facts, *_flat(card), *_flat({"model": config})])


@models.command()
def path(name: Name) -> None:
    """Print where a model's file lies; nothing is downloaded."""
    from dreamsr.files import hub

    console.data(str(hub.resolve(name, online=False)))


@models.command()
def pull(name: Name) -> None:
    """Download a model of the Hub, or its newer revision, check it, and print where it lies."""
    from dreamsr.files import checkpoint, hub

    file = hub.resolve(name)
    checkpoint.load_model(file)
    console.data(str(file))


@models.command()
def verify(name: Name, json: Json = False) -> None:
    """Compare a model's SHA-256 with the recorded one, and load it; nothing is downloaded."""
    from dreamsr.files import checkpoint, hub

    file = hub.resolve(name, online=False)
    digest, recorded = hub.verify(file)
    checkpoint.load_model(file)
    if json:
        _print({"path": str(file), "sha256": digest, "recorded": recorded})
        return
    console.say("as recorded, and it loads" if recorded else "it loads; no SHA-256 of it is recorded")
    console.data(f"{digest}  {file}")


def _scales(config: Mapping[str, Any]) -> str:
    return from_dict(ModelConfig, config).scales


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[list[str]]:
    """Rows of (dotted key, value)."""
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield [prefix + key, str(value)]


def _print(document: Any) -> None:
    console.data(json_module.dumps(document, indent=2))
