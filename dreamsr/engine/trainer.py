"""A training run in a folder: photos in, checkpoints, log and previews out, exact to resume.

RUN/run.json            configuration and where the photos are
RUN/state.safetensors   weights, average, optimizer, step: what --resume needs
RUN/model.safetensors   the averaged weights, ready for `dreamsr upscale -m RUN`
RUN/log.jsonl           one JSON object a step or validation
RUN/samples/            bicubic | 1 step | few steps | original at every validation
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dreamsr
from dreamsr.config import TrainConfig
from dreamsr.core.resize import bicubic
from dreamsr.data import dataset
from dreamsr.data.degrade import Pairs
from dreamsr.engine import snapshot, sources
from dreamsr.engine.compilation import compiled
from dreamsr.engine.memory import enough_for
from dreamsr.engine.optimize import Progress, State, most_steps, new_state, train
from dreamsr.engine.ranks import ALONE, Ranks
from dreamsr.engine.schedule import Settings, schedule
from dreamsr.engine.upscaler import Upscaler, count_steps
from dreamsr.errors import UsageError
from dreamsr.files import checkpoint, hub, images, locks
from dreamsr.files.atomic import atomic
from dreamsr.files.checkpoint import Model
from dreamsr.metrics import luma, psnr
from dreamsr.tables import apply_overrides, from_dict, to_dict

STATE, WEIGHTS, LOG, RUN = "state.safetensors", hub.RUN_FILE, "log.jsonl", "run.json"
CHANGEABLE = ("steps", "val_every", "save_every")


@dataclass(frozen=True)
class Run:
    """What a run folder remembers."""

    config: TrainConfig
    data: Path
    val: Path | None
    photos: str
    """Digest of the names and sizes of all photo files."""
    low: Path | None = None
    """Where the low-resolution partners of the photos are, of the same names."""
    compiled: bool = False
    """Whether the network runs compiled: recorded, since it changes the last bits."""
    dtype: str = "auto"
    """The precision by name: recorded, since it changes more than these."""

    @property
    def work(self) -> float:
        """Megapixels times passes of the network, a backward counted as two.

        DREAM has 4; two samples have their steps and a backward each, and the average looks at both and at the truth.
        """
        passes = 4 if self.config.energy == 0 else 4 + 2 * (self.config.model.sampling.steps + 2 + 3) + 1
        return self.config.steps * self.config.batch * self.config.crop**2 * passes / 1e6


@dataclass(frozen=True)
class Started:
    """Photos are decoded and training begins at `step`."""

    step: int
    photos: int
    held_out: int
    skipped: list[str]


@dataclass(frozen=True)
class Validated:
    """PSNR on Y, crop = scale, of held-out photos by method, and the sheet that shows them."""

    step: int
    psnr_y: dict[str, float]
    sheet: Path


@dataclass(frozen=True)
class Saved:
    """State and weights are on disk; `done` at the last step."""

    step: int
    weights: Path
    done: bool


Event = Started | Progress | Validated | Saved


def create(config: TrainConfig, data: Path, val: Path | None, out: Path, low: Path | None = None) -> Run:
    """A new run; an error if `out` holds one already, or `data`, `val` and `low` are no folders of photos."""
    if (out / STATE).exists():
        raise UsageError(f"{out} already holds a training run", "go on with --resume, or give another --out")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; expected a folder for the run")
    degradation = config.model.degradation
    if degradation == "pairs" and low is None:
        raise UsageError("this model learns from given pairs", "give --low FOLDER, or model.degradation=bicubic")
    if degradation != "pairs" and low is not None:
        raise UsageError(f"--low gives the inputs; they are not made by {degradation}", "leave out model.degradation")
    for folder in filter(None, (data, val, low)):
        if not images.find(folder):
            raise UsageError(f"no {images.KINDS} picture in {folder}")
        if out.resolve().is_relative_to(folder.resolve()):  # its sheets would be photos to train on
            raise UsageError(f"{out} lies inside {folder}", "give --out a folder outside of the photos")
    schedule(config.model, Settings())  # a model that cannot be sampled is not worth training
    if config.energy:
        schedule(config.model, Settings(steps=most_steps(config)))
    data, val, low = data.absolute(), val and val.absolute(), low and low.absolute()
    return Run(config, data, val, sources.digest(data, val, low), low)


def reopen(out: Path) -> Run:
    """The run of a folder; an error if there is none, or its photos are others than at its start."""
    if not (out / STATE).exists():
        raise UsageError(f"{out} holds no training run", "start one without --resume")
    document = json.loads((out / RUN).read_text())
    data, val, low = (Path(document[key]) if document.get(key) else None for key in ("data", "val", "low"))
    assert data is not None
    kept = {key: document[key] for key in ("photos", "compiled", "dtype") if key in document}
    run = Run(from_dict(TrainConfig, document["config"]), data, val, low=low, **kept)
    if sources.digest(data, val, low) != run.photos:
        raise UsageError(f"the photos in {data} are not those that the run began with", "start a new run with --init")
    return run


def reconfigure(run: Run, overrides: Sequence[str]) -> Run:
    """The run with another length or other intervals; anything else would make it another run."""
    config = from_dict(TrainConfig, apply_overrides(TrainConfig, to_dict(run.config), overrides))
    for key, value in to_dict(config).items():
        if key not in CHANGEABLE and value != to_dict(run.config)[key]:
            raise UsageError(f"{key} cannot change in a resumed run", f"only {', '.join(CHANGEABLE)} can")
    return replace(run, config=config)


def fit(
    run: Run,
    out: Path,
    device: torch.device,
    dtype: torch.dtype,
    *,
    start: Model | None = None,
    stop: Callable[[], bool] = lambda: False,
    ranks: Ranks = ALONE,
) -> Iterator[Event]:
    """Train from the state in `out`, or from the beginning (warm from `start`), until done or `stop()`.

    Progress of every step is logged and yielded. The state is on disk when it is done or stopped. Ranks share
    the micro-batches of every step, and stop together; the first alone writes, and tells what happened.
    Raises UsageError while another process trains in `out`, and where micro-batches cannot be shared equally.
    """
    parts = run.config.micro_batches
    if parts % ranks.world:
        raise UsageError(
            f"{ranks.world} processes cannot share micro_batches={parts} equally",
            f"start as many as divide {parts}, or a new run with micro_batches={ranks.world}",
        )
    with _owned(out, ranks), ranks.joined(device.type), enough_for(run.config):
        yield from _fit(run, out, device, dtype, start, stop, ranks)


@contextmanager
def _owned(out: Path, ranks: Ranks) -> Iterator[None]:
    """Inside, no other job trains in the folder."""
    if ranks.rank:
        yield
        return
    lock = locks.claim(out / STATE)
    if lock is None:
        raise UsageError(f"another process is training in {out}", "wait for its end, or give another --out")
    try:
        yield
    finally:
        locks.release(lock)


def _fit(
    run: Run,
    out: Path,
    device: torch.device,
    dtype: torch.dtype,
    start: Model | None,
    stop: Callable[[], bool],
    ranks: Ranks,
) -> Iterator[Event]:
    config = run.config
    training, validation = sources.split(run.data, run.val)
    partners = sources.partners((run.data, run.val), run.low, config.model.scale)
    photos, skipped = dataset.load(training, config.crop, out / "photos.u8", partners, ranks.first)
    if device.type == "cuda" and photos.flat.numel() < torch.cuda.mem_get_info(device)[0] // 2:
        photos = photos.to(device)
    state = new_state(config, device, start.network if start else None)
    seconds = snapshot.restore(out / STATE, state) if (out / STATE).exists() else 0.0
    if state.step > config.steps:
        raise UsageError(f"{out} is at step {state.step} already, steps is {config.steps}", "give a larger steps=")
    network = compiled(state.network, static=True) if run.compiled else None
    steps = train(config, state, photos, device, dtype, network, ranks)
    if ranks.rank:
        for progress in steps:
            yield progress
            if progress.step == state.step and ranks.any(stop()):
                return
        return
    held_out = sources.held_out(validation, config.model, partners)
    _write(run, out)
    _forget(out / LOG, state.step)
    yield Started(state.step, len(photos), len(held_out.originals), [*skipped, *held_out.unread])
    with (out / LOG).open("a") as log:
        for progress in steps:
            seconds += progress.seconds
            _log(log, progress)
            yield progress
            if progress.step < state.step:
                continue
            done, stopping = state.step == config.steps, ranks.any(stop())
            if done or stopping or state.step % config.save_every == 0:
                log.flush()
                yield save(run, state, seconds, len(photos), out)
            if held_out.originals and (done or state.step % config.val_every == 0):
                validated = validate(config, state, held_out, out)
                _log(log, validated)
                yield validated
            if stopping:
                return


def save(run: Run, state: State, seconds: float, photos: int, out: Path) -> Saved:
    """Write the training state, then the averaged weights with their card."""
    snapshot.save(out / STATE, state, seconds)
    training = {k: v for k, v in to_dict(run.config).items() if k != "model"}
    card = {
        "dreamsr": dreamsr.__version__,
        "torch": torch.__version__,
        "training": training,
        "step": state.step,
        "seconds": round(seconds),
        "photos": photos,
    }
    checkpoint.save_model(out / WEIGHTS, Model(run.config.model, state.ema, card), torch.float16)
    return Saved(state.step, out / WEIGHTS, state.step == run.config.steps)


def averaged(out: Path) -> Model:
    """The averaged weights of a run in full precision, with their card."""
    return snapshot.average(out / STATE, checkpoint.load_model(out / WEIGHTS))


def validate(config: TrainConfig, state: State, held_out: Pairs, out: Path) -> Validated:
    """Upscale held-out photos with the averaged weights at 1 and at the model's own number of steps."""
    scale, few = config.model.scale, config.model.sampling.steps
    hrs, lrs = held_out.originals, held_out.inputs
    device = next(state.ema.parameters()).device
    model = Model(config.model, state.ema, {}).to(device)
    columns = {"bicubic": [bicubic(lr[None], (hr.shape[1], hr.shape[2]))[0] for lr, hr in zip(lrs, hrs, strict=True)]}
    for steps in dict.fromkeys((1, few)):
        upscaler = Upscaler(model, Settings(steps=steps))
        columns[count_steps(steps)] = [x.cpu() for x in upscaler(lrs)]
    scores = {
        label: sum(_psnr_y(x, hr, scale) for x, hr in zip(column, hrs, strict=True)) / len(hrs)
        for label, column in columns.items()
    }
    sheet = out / "samples" / f"step_{state.step:07d}.png"
    images.write_sheet(sheet, [*columns.values(), hrs])
    return Validated(state.step, scores, sheet)


def _write(run: Run, out: Path) -> None:
    document = {
        "config": to_dict(run.config),
        "data": str(run.data),
        "val": str(run.val) if run.val else None,
        "low": str(run.low) if run.low else None,
        "photos": run.photos,
        "compiled": run.compiled,
        "dtype": run.dtype,
    }
    with atomic(out / RUN) as temporary:
        temporary.write_text(json.dumps(document, indent=2))


def _psnr_y(x: Tensor, hr: Tensor, crop: int) -> float:
    return psnr(luma(images.to_bytes(x)), luma(images.to_bytes(hr)), crop)


def _log(log: Any, event: Progress | Validated) -> None:
    values: Mapping[str, Any] = asdict(event)
    log.write(json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in values.items()}) + "\n")


def _forget(log: Path, step: int) -> None:
    """Drop what was logged after the state was saved."""
    if log.exists():
        lines = [line for line in log.read_text().splitlines() if _step(line) <= step]
        with atomic(log) as temporary:
            temporary.write_text("".join(line + "\n" for line in lines))


def _step(line: str) -> float:
    """The step of a line of the log; infinity for a line that a crash cut off."""
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return math.inf
