"""The program: commands and the one place where errors become messages and exit codes."""

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated, ParamSpec

import typer

from dreamsr import __version__
from dreamsr.cli import console
from dreamsr.cli.evaluate import evaluate
from dreamsr.cli.export import export
from dreamsr.cli.info import info
from dreamsr.cli.models import models
from dreamsr.cli.train import train
from dreamsr.cli.tune import tune
from dreamsr.cli.upscale import upscale
from dreamsr.errors import DreamSRError, UsageError

P = ParamSpec("P")

app = typer.Typer(
    name="dreamsr",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Diffusion super-resolution with DREAM: upscale photos, train models, measure them.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        console.data(f"dreamsr {__version__} (torch {version('torch')})")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print versions.")
    ] = False,
) -> None: ...


def _unlimited(command: Callable[P, None]) -> Callable[P, None]:
    """The command, with Pillow's limits lifted; Pillow is not imported for help."""

    @wraps(command)
    def run(*args: P.args, **options: P.kwargs) -> None:
        from dreamsr.files import limits

        limits.lift()
        command(*args, **options)

    return run


def _paragraphs(command: Callable[P, None]) -> str:
    """Its docstring with every paragraph on one line: the help breaks lines where the terminal ends."""
    return "\n\n".join(" ".join(part.split()) for part in (command.__doc__ or "").split("\n\n"))


for _name, _command in (("upscale", upscale), ("train", train), ("tune", tune), ("eval", evaluate)):
    app.command(_name, help=_paragraphs(_command))(_unlimited(_command))
app.command("export", help=_paragraphs(export))(export)
app.add_typer(models, name="models")
app.command("info")(_unlimited(info))


def main() -> None:
    """Run the program; exit code 2 for wrong usage, 1 for a failure, 130 when interrupted."""
    console.prepare()
    try:
        app()
    except DreamSRError as error:
        if os.environ.get("DREAMSR_DEBUG"):
            raise
        if not error.told:
            console.error(error.message, error.hint)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except OSError as error:
        if os.environ.get("DREAMSR_DEBUG") or error.filename is None:
            raise
        console.error(f"{error.filename}: {error.strerror}")
        sys.exit(1)
