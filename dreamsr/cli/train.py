"""`dreamsr train`"""

import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dreamsr.cli import console, options, setup
from dreamsr.config import TrainConfig
from dreamsr.engine.ranks import Ranks
from dreamsr.errors import UsageError
from dreamsr.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dreamsr.engine import trainer


def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")],
    data: Annotated[Path | None, typer.Option(help="Folder of photos to train on.")] = None,
    val: Annotated[Path | None, typer.Option(help="Folder of held-out photos (default: a few of --data)")] = None,
    low: Annotated[
        Path | None, typer.Option(help="Folder of low-resolution partners of the same names; else photos are reduced.")
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            "-c",
            help="TOML file or preset: bicubic-x4 (the default), photo-x4, sr3-face; "
            "to go on with --init: fine-tune, many-scales, texture.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Changes to the configuration, as steps=5000 or model.name=mine (docs/training.md).",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out; --data, --val, --low: where photos are now.")
    ] = False,
    init: Annotated[str | None, typer.Option(help="Start from the weights of this model.")] = None,
    stop_after: Annotated[
        str | None, typer.Option(help="Save and stop after this time, as 25m; --resume goes on.")
    ] = None,
    device: options.Device = "auto",
    dtype: options.TrainingDtype = "auto",
    threads: options.Threads = None,
    compile: options.Compile = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Train a model on a folder of photos.

    The learning rate follows `steps` alone; stopping and resuming do not change it. Ctrl-C or SIGTERM
    saves and stops, a second one stops at once. torchrun -m dreamsr train takes several GPUs.
    """
    from dreamsr.engine import compilation, recipe, runs, trainer
    from dreamsr.engine.device import dtype_name
    from dreamsr.files import checkpoint, hub
    from dreamsr.files.paths import own_name

    ranks = Ranks.from_environment()
    if ranks.rank:
        console.hush()
    limit = options.seconds(stop_after) if stop_after else None
    start = checkpoint.load_model(hub.resolve(init)) if init else None
    if resume:
        if init or config:
            raise UsageError(
                "--resume goes on with the weights and the recipe of the run", "leave out --init and --config"
            )
        run = runs.reconfigure(runs.reopen(out, data, val, low), overrides or [])
        dtype = run.dtype if dtype == "auto" else dtype
    elif data is None:
        raise UsageError("no photos to train on", "dreamsr train --data FOLDER --out RUN")
    else:
        if start is None and config in recipe.CONTINUING:
            console.warn(f"{config} goes on with a trained model, and this begins from nothing: --init MODEL")
        begun = None if start is None else start.config
        name = " ".join(own_name(out).split()) or "model"
        made = recipe.make(config, overrides or [], begun, low is not None, name)
        run = runs.create(recipe.shared(made, ranks.world), data, val, out, low, start)
    if dtype in ("fp16", "int8"):
        raise UsageError(f"training in {dtype} loses small gradients", "use --dtype bf16 or --dtype fp32")
    chosen = setup.compute(ranks.device(device), dtype, threads)
    recorded = run.compiled if resume else None
    fast = compilation.worthwhile(compile, *chosen, run.work / ranks.world, recorded)
    run = replace(run, compiled=fast, dtype=dtype_name(chosen[1]))
    if run.compiled:
        console.say("the network is compiled at the first step, which takes a minute or two")
    with Stopper(limit, alone=ranks.world == 1) as stop, compilation.explained():
        _show(trainer.fit(run, out, *chosen, start=start, stop=stop, ranks=ranks), run.config, stop.listen)


class Stopper:
    """True once the time is over, or, from `listen` on, after Ctrl-C or SIGTERM; a second one interrupts as usual.

    Not so where it is not `alone`: torchrun passes on what the terminal has sent already, and kills in the end.
    """

    def __init__(self, limit: float | None, alone: bool) -> None:
        self._deadline = None if limit is None else time.monotonic() + limit
        self._alone, self._started, self._pressed = alone, False, False
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        if self._pressed:
            console.say("stopping: the state is being saved (Ctrl-C again stops at once)")
        return self._pressed or (self._deadline is not None and time.monotonic() > self._deadline)

    def __enter__(self) -> "Stopper":
        if self._alone:
            self._catch_both()
        return self

    def __exit__(self, *_: object) -> None:
        before, self._before = self._before, {}
        for number, handle in before.items():
            signal.signal(number, handle)

    def listen(self) -> None:
        """Training has begun: from now on a signal stops it after a save, and does not interrupt."""
        self._started = True
        if not self._alone:
            self._catch_both()

    def _catch_both(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._caught)

    def _caught(self, *_: object) -> None:
        self._pressed = True  # no word here: it may have interrupted a print
        if self._alone:
            self.__exit__()
        if not self._started:
            raise KeyboardInterrupt


def _show(events: "Iterable[trainer.Event]", config: TrainConfig, started: "Callable[[], None]") -> None:
    from dreamsr.engine import trainer
    from dreamsr.engine.optimize import Progress

    smooth = None
    with console.board() as board:
        for event in events:
            if isinstance(event, Progress):
                smooth = event.seconds if smooth is None else 0.95 * smooth + 0.05 * event.seconds
                board(
                    {
                        "step": f"{event.step}/{config.steps}",
                        "loss": f"{event.loss:.5f}",
                        "lr": f"{event.lr:.2e}",
                        "images/s": f"{config.batch / smooth:.1f}",
                        "left": console.duration((config.steps - event.step) * smooth),
                    }
                )
            elif isinstance(event, trainer.Started):
                started()
                for line in event.skipped:
                    console.warn(f"left out: {line}")
                console.say(f"{counted(event.photos, 'photo')}, {event.held_out} held out, from step {event.step}")
            elif isinstance(event, trainer.Validated):
                scores = ", ".join(f"{k} {v:.3f} dB" for k, v in event.psnr_y.items())
                console.say(f"step {event.step}: PSNR-Y of held-out photos: {scores} -> {event.sheet}")
            else:
                how = "finished" if event.done else "saved"
                console.say(f"step {event.step}: {how}, {event.weights}")
