"""`dreamsr models`"""

from typing import Annotated

import typer

from dreamsr.cli import console


def models(
    json: Annotated[bool, typer.Option("--json", help="Print as JSON, cards included.")] = False,
) -> None:
    """List the bundled models and where they lie."""
    import json as json_module

    from dreamsr.files import checkpoint, hub

    found = {name: (path, *checkpoint.describe(path)) for name, path in hub.bundled().items()}
    if json:
        document = [
            {"name": name, "path": str(path), "config": config, "card": card}
            for name, (path, config, card) in found.items()
        ]
        console.data(json_module.dumps(document, indent=2))
        return
    rows = [
        [
            name,
            f"x{config['scale']}",
            f"{path.stat().st_size / 2**20:.1f} MiB",
            str(card.get("licence", "-")),
            str(path),
        ]
        for name, (path, config, card) in found.items()
    ]
    console.table(["model", "scale", "size", "licence", "file"], rows)
    if not rows:
        console.warn("no model is bundled with this installation")
