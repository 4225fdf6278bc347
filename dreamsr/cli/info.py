"""`dreamsr info`"""

from pathlib import Path
from typing import Annotated

import typer

from dreamsr.cli import console


def info(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A picture.")],
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Tell what a picture is and how dreamsr made it, with the command that makes it again."""
    import json as json_module

    from dreamsr.errors import UsageError
    from dreamsr.files import hub, images

    if file.suffix == ".safetensors" or (file / hub.RUN_FILE).is_file():
        raise UsageError(f"{file} is no picture", f"what a model is: dreamsr models info {file}")

    header, metadata, remarks = images.describe(file)
    provenance = metadata.provenance
    facts: dict[str, object] = {
        "file": file.name,
        "format": header.format,
        "size": f"{header.size[1]}x{header.size[0]}",
        "mode": header.mode,
        "depth": header.depth,
        "metadata": ", ".join(metadata.kinds) or "none",
    }
    if dpi := metadata.dpi:
        facts["dpi"] = " x ".join(f"{x:.4g}" for x in dpi)
    if provenance:
        facts |= provenance.facts
        facts["command"] = provenance.command(file.name)
    if json:
        console.data(json_module.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        console.data(console.visible(f"{key}: {value}"))
    for remark in remarks:
        console.warn(remark)
    if not provenance:
        console.say("no provenance: not made by dreamsr, or with --no-provenance, or as BMP, which holds none")
