"""A training run in a folder: photos in, checkpoints, log and previews out, exact to resume.

RUN/run.json            configuration and where the photos are
RUN/state.safetensors   weights, average, optimizer, step: what --resume needs
RUN/model.safetensors   the averaged weights, ready for `dreamsr upscale -m RUN`
RUN/log.jsonl           one JSON object a step or validation
RUN/samples/            bicubic | 1 step | few steps | original at every validation
RUN/photos.u8           the decoded photos, while it trains
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

import dreamsr
from dreamsr.config import TrainConfig
from dreamsr.core.resize import bicubic, size_of
from dreamsr.data import dataset
from dreamsr.data.degrade import Pairs
from dreamsr.engine import journal, runs, snapshot, sources
from dreamsr.engine.compilation import compiled
from dreamsr.engine.memory import enough_for
from dreamsr.engine.optimize import Progress, State, new_state, train
from dreamsr.engine.ranks import ALONE, Ranks
from dreamsr.engine.runs import STATE, Run
from dreamsr.engine.schedule import Settings
from dreamsr.engine.upscaler import Upscaler
from dreamsr.errors import CheckpointError, UsageError
from dreamsr.files import checkpoint, hub, images, locks
from dreamsr.files.checkpoint import Model
from dreamsr.metrics import luma, psnr
from dreamsr.tables import to_dict
from dreamsr.words import counted

WEIGHTS, LOG, CACHE, SAMPLES = hub.RUN_FILE, "log.jsonl", "photos.u8", "samples"


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
    with ranks.joined(device.type), _owned(out, ranks), enough_for(run.config):
        yield from _fit(run, out, device, dtype, start, stop, ranks)


@contextmanager
def _owned(out: Path, ranks: Ranks) -> Iterator[None]:
    """Inside, no other job trains in the folder; what killed ones left half-made is gone, and decoded photos later."""
    lock = None

    def claim() -> None:
        nonlocal lock
        locks.sweep(out, out / STATE)  # which the lock would protect
        lock = locks.claim(out / STATE)
        if lock is None:
            raise UsageError(f"another process is training in {out}", "wait for its end, or give another --out")

    ranks.first(claim)
    if lock is None:  # the first rank has it
        yield
        return
    try:
        for folder in (out, out / SAMPLES):
            locks.sweep(folder)
        _discard(out / CACHE)
        yield
    finally:
        _discard(out / CACHE)
        locks.release(lock)


def _discard(path: Path) -> None:
    with suppress(OSError):  # Windows keeps what is open
        path.unlink()


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
    photos, skipped = dataset.load(training, config.crop, out / CACHE, partners, ranks.first)
    if device.type == "cuda" and photos.flat.numel() < torch.cuda.mem_get_info(device)[0] // 2:
        photos = photos.to(device)
    state = new_state(config, device, start.network if start else None)
    seconds = snapshot.restore(out / STATE, state) if (out / STATE).exists() else 0.0
    if state.step > config.steps:
        raise UsageError(f"{out} is at step {state.step} already, steps is {config.steps}", "give a larger steps=")
    network = compiled(state.network, static=True) if run.compiled else None
    held_out = sources.held_out([] if ranks.rank else validation, config.model, partners)
    if not ranks.rank:
        runs.write(run, out)
        journal.forget(out / LOG, state.step)
    yield Started(state.step, len(photos), len(held_out.originals), [*skipped, *held_out.unread])
    if state.step and not ranks.rank:
        yield from _overdue(run, state, seconds, len(photos), held_out, out)
    for progress in train(config, state, photos, device, dtype, network, ranks):
        seconds += progress.seconds
        if not ranks.rank:
            journal.append(out / LOG, asdict(progress))
        yield progress
        if progress.step < state.step:
            continue
        stopping = ranks.any(stop())
        if not ranks.rank:
            if stopping or state.step == config.steps or state.step % config.save_every == 0:
                yield save(run, state, seconds, len(photos), out)
            if _validates(config, state, held_out):
                yield validate(config, state, held_out, out)
        if stopping:
            return


def _overdue(run: Run, state: State, seconds: float, photos: int, held_out: Pairs, out: Path) -> Iterator[Event]:
    """What an earlier process was kept from after it had saved the state, and that a finished run is finished."""
    if _written_at(out / WEIGHTS) != state.step:
        yield write_weights(run, state, seconds, photos, out)
    elif state.step == run.config.steps:
        yield Saved(state.step, out / WEIGHTS, done=True)
    if _validates(run.config, state, held_out) and not journal.has(out / LOG, state.step, "psnr_y"):
        yield validate(run.config, state, held_out, out)


def _written_at(weights: Path) -> int | None:
    """The step that the weights of a run are of; None if there are none."""
    try:
        _, card = checkpoint.describe(weights)
    except CheckpointError:
        return None
    return card.get("step")


def _validates(config: TrainConfig, state: State, held_out: Pairs) -> bool:
    """Whether a validation is due at this step."""
    return bool(held_out.originals) and (state.step == config.steps or state.step % config.val_every == 0)


def save(run: Run, state: State, seconds: float, photos: int, out: Path) -> Saved:
    """Write the training state, then the averaged weights."""
    snapshot.save(out / STATE, state, seconds)
    return write_weights(run, state, seconds, photos, out)


def write_weights(run: Run, state: State, seconds: float, photos: int, out: Path) -> Saved:
    """Write the averaged weights of a saved state, with their card."""
    training = {k: v for k, v in to_dict(run.config).items() if k != "model"}
    card = {
        "dreamsr": dreamsr.__version__,
        "torch": torch.__version__,
        "training": training,
        "step": state.step,
        "seconds": round(seconds),
        "photos": photos,
        **run.begun_with,
    }
    checkpoint.save_model(out / WEIGHTS, Model(run.config.model, state.ema, card), torch.float16)
    return Saved(state.step, out / WEIGHTS, state.step == run.config.steps)


def averaged(out: Path) -> Model:
    """The averaged weights of a run in full precision, with their card."""
    return snapshot.average(out / STATE, checkpoint.load_model(out / WEIGHTS))


def validate(config: TrainConfig, state: State, held_out: Pairs, out: Path) -> Validated:
    """Upscale held-out photos with the averaged weights at 1 and at the model's own number of steps, and log it."""
    scale, few = config.model.scale, config.model.sampling.steps
    hrs, lrs = held_out.originals, held_out.inputs
    device = next(state.ema.parameters()).device
    model = Model(config.model, state.ema, {}).to(device)
    columns = {"bicubic": [bicubic(lr[None], size_of(hr))[0] for lr, hr in zip(lrs, hrs, strict=True)]}
    for steps in dict.fromkeys((1, few)):
        upscaler = Upscaler(model, Settings(steps=steps))
        columns[counted(steps, "step")] = [x.cpu() for x in upscaler(lrs)]
    scores = {
        label: sum(_psnr_y(x, hr, scale) for x, hr in zip(column, hrs, strict=True)) / len(hrs)
        for label, column in columns.items()
    }
    sheet = out / SAMPLES / f"step_{state.step:07d}.png"
    images.write_sheet(sheet, [*columns.values(), hrs])
    validated = Validated(state.step, scores, sheet)
    journal.append(out / LOG, asdict(validated))
    return validated


def _psnr_y(x: Tensor, hr: Tensor, crop: int) -> float:
    return psnr(luma(images.to_bytes(x)), luma(images.to_bytes(hr)), crop)
