"""Optimizer steps as a generator; everything random is a function of the seed and the step."""

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dreamsr.config import TrainConfig
from dreamsr.core import dream, scoring
from dreamsr.core.denoiser import Condition, Denoiser, Network, coefficients
from dreamsr.core.networks import channel_norm
from dreamsr.core.process import Process
from dreamsr.core.resize import bicubic
from dreamsr.core.transfer import sent
from dreamsr.data import dataset
from dreamsr.data.degrade import degraded, reduced
from dreamsr.engine.muon import Muon
from dreamsr.engine.ranks import ALONE, Ranks
from dreamsr.engine.schedule import Schedule, Settings, schedule
from dreamsr.errors import DreamSRError
from dreamsr.files import checkpoint
from dreamsr.files.checkpoint import UNet

UNREAD = {"cpu": 1, "cuda": 20, "mps": 20}
"""Steps that a device runs before their losses are read."""


@dataclass(frozen=True)
class Progress:
    """One optimizer step, done."""

    step: int
    loss: float
    lr: float
    grad_norm: float
    seconds: float
    """Wall-clock time of the step, a mean over the steps that were read together."""


@dataclass
class State:
    """All that changes while training."""

    network: UNet
    ema: UNet
    optimizers: list[torch.optim.Optimizer]
    """Every weight belongs to one of them."""
    step: int = 0


@dataclass(frozen=True)
class Batch:
    """What one pass of the gradient learns from, on the device."""

    hr: Tensor
    """Crops (B, 3, H, W) in [-1, 1]."""
    anchor: Tensor
    """Bicubic enlargements (B, 3, H, W) of their low-resolution pictures."""
    scale: Tensor
    """(1,), the same for all: side of a crop / side of its low-resolution picture."""
    level: Tensor
    """(alpha, sigma), float64 (B, 2)."""
    eps: Tensor
    """Standard normal (B, 3, H, W)."""
    sampling_steps: int
    """Steps of the samples that the energy score compares."""
    generator: torch.Generator
    """Draws the noise of these samples."""


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, a plateau, and a linear fall to zero over the last `cooldown` of the steps."""
    rise = (step + 1) / max(1, config.warmup)
    fall = (config.steps - step) / max(1.0, config.cooldown * config.steps)
    return config.lr * min(1.0, rise, fall)


def ema_decay(config: TrainConfig, step: int) -> float:
    """The decay of the average, shorter while the run is young."""
    return min(config.ema, (1 + step) / (10 + step))


def new_state(config: TrainConfig, device: torch.device, start: nn.Module | None = None) -> State:
    """Freshly initialised from the seed, or warm from the weights of `start`, as far as it has them.

    More blocks of the encoder than `start` has, and what tells it the scale, add nothing yet.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = checkpoint.build(config.model)
    if start is not None:
        weights = network.state_dict()
        for name, value in start.state_dict().items():
            weights[name][: len(value)] = value
    network.to(device)
    return State(network, copy.deepcopy(network).requires_grad_(False).eval(), _optimizers(config, network))


def _optimizers(config: TrainConfig, network: nn.Module) -> list[torch.optim.Optimizer]:
    """AdamW for all weights, or Muon for those of convolutions and AdamW for the others."""
    muon = [p for p in network.parameters() if config.optimizer == "muon" and p.ndim == 4]
    others = [p for p in network.parameters() if config.optimizer != "muon" or p.ndim != 4]
    adamw = torch.optim.AdamW(others, config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True)
    return [adamw, Muon(muon, config.lr, config.weight_decay)] if muon else [adamw]


def train(
    config: TrainConfig,
    state: State,
    photos: dataset.Photos,
    device: torch.device,
    dtype: torch.dtype,
    network: Network | None = None,
    ranks: Ranks = ALONE,
) -> Iterator[Progress]:
    """Step until `config.steps`; stop by leaving the loop where `progress.step == state.step`.

    What a GPU has computed is read only every few steps, always before a save or validation is due, so
    that it never waits for the host. `network` is called in place of the state's own: its compiled form.
    Joined ranks share the micro-batches of a step, and all of them have its results.
    """
    denoiser = Denoiser(network or state.network, Process(config.model.process), config.model.prediction)
    state.network.train()
    while state.step < config.steps:
        start, first = time.perf_counter(), state.step + 1
        pending = [optimizer_step(config, state, denoiser, photos, device, dtype, ranks)]
        while not _due(config, state.step, UNREAD[device.type]):
            pending.append(optimizer_step(config, state, denoiser, photos, device, dtype, ranks))
        values = torch.stack([torch.stack(pair) for pair in pending]).tolist()
        seconds = (time.perf_counter() - start) / len(values)
        for step, (loss, norm) in enumerate(values, first):
            if not math.isfinite(norm):
                raise DreamSRError(
                    f"the gradient of step {step} is not finite: the training diverged",
                    "start again with a smaller lr=; what was saved before is whole",
                )
            yield Progress(step, loss, learning_rate(config, step - 1), norm, seconds)


def _due(config: TrainConfig, step: int, unread: int) -> bool:
    """Whether something is done with the results after this step."""
    return step == config.steps or any(step % n == 0 for n in (unread, config.save_every, config.val_every))


def optimizer_step(
    config: TrainConfig,
    state: State,
    denoiser: Denoiser,
    photos: dataset.Photos,
    device: torch.device,
    dtype: torch.dtype,
    ranks: Ranks = ALONE,
) -> tuple[Tensor, Tensor]:
    """One step of optimizer and average; (loss, norm of the gradient), still on the device."""
    step = state.step
    p = config.dream_p if step >= config.dream_start else "off"
    precision = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
    loss = torch.zeros((), device=device)
    for part in ranks.own_share(range(config.micro_batches)):
        number = step * config.micro_batches + part
        batch = draw_batch(config, denoiser.process, photos, number, device)
        with _dropout(config, number, device), precision:
            share = batch_loss(denoiser, state.ema, batch, p, config) / config.micro_batches
        share.backward()
        loss += share.detach()
    ranks.add([loss, *(p.grad for p in state.network.parameters() if p.grad is not None)])
    norm = nn.utils.clip_grad_norm_(state.network.parameters(), config.clip)
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        with precision:  # Muon multiplies matrices
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    update_ema(state.ema, state.network, ema_decay(config, step))
    state.step += 1
    return loss, norm.detach()


def batch_loss(denoiser: Denoiser, average: UNet, batch: Batch, p: dream.Exponent, config: TrainConfig) -> Tensor:
    """DREAM's loss, and the energy score of two samples of every picture; the anchors are encoded once.

    Samples and truth are compared as they are and as the averaged network sees them.
    """
    u_0 = denoiser.process.to_u(batch.hr, batch.anchor)
    condition = denoiser.condition(batch.anchor, batch.scale)
    loss = dream.loss(denoiser, u_0, batch.eps, batch.level, condition, p=p, norm=config.loss, snr_cap=config.snr_cap)
    if config.energy == 0:
        return loss
    plan = schedule(config.model, Settings(steps=batch.sampling_steps, fidelity=0))
    a, b = (_sample(denoiser, condition, batch, plan) for _ in range(2))
    features = _features(average, (a, b, u_0), denoiser, batch)
    score = scoring.energy_score(a, b, u_0) + scoring.FEATURE_WEIGHT * scoring.feature_score(*features)
    return loss + config.energy * score


def _features(network: UNet, pictures: tuple[Tensor, ...], denoiser: Denoiser, batch: Batch) -> Iterator[list[Tensor]]:
    """What the stages of a network make of every u_0 at the level of least noise, normalised as it does itself."""
    level, known = denoiser.process.cleanest, network.encode(batch.anchor, batch.scale)
    for u_0 in pictures:
        alpha, sigma = coefficients(level, u_0)
        u, angle = denoiser.inputs(alpha * u_0 + sigma * batch.eps, level)
        yield [channel_norm(x) for x in network.stages(u, angle, known)]


def _sample(denoiser: Denoiser, condition: Condition, batch: Batch, plan: Schedule) -> Tensor:
    """What the model's own sampling makes of the batch."""

    def noise(_: int = 0) -> Tensor:
        return torch.randn(batch.hr.shape, generator=batch.generator, device=batch.hr.device)

    start = noise().mul_(plan.noise_scale * float(plan.levels[0, 1]))
    return scoring.sample(denoiser, start, plan.levels, plan.sampler, condition, noise)


def draw_batch(
    config: TrainConfig, process: Process, photos: dataset.Photos, number: int, device: torch.device
) -> Batch:
    """A micro-batch: a function of the seed and its number in the run alone."""
    size = config.batch // config.micro_batches
    place, align = (photos, config.seed, number, size), config.model.scale if photos.paired else 1
    taken = draw_crop(config, number, photos.room)
    hr = sent(dataset.crops(*place, taken, align), device)
    if taken != config.crop:
        hr = reduced(hr, (config.crop, config.crop))
    side = round(config.crop / draw_scale(config, number))
    if photos.paired:
        lr = sent(dataset.crops(*place, side, partner=True), device)
    else:
        lr = degraded(hr, (side, side), config.model, (config.seed + 5, number))
    anchor = bicubic(lr, (config.crop, config.crop))
    uniform = torch.rand(2, size, generator=dataset.generator(config.seed + 1, number), dtype=torch.float64)
    level = process.draw(uniform[0], uniform[1] < config.first_level, config.levels)
    eps = torch.randn(hr.shape, generator=dataset.generator(config.seed + 2, number, device), device=device)
    generator = dataset.generator(config.seed + 6, number, device)
    scale = torch.full((1,), config.crop / side, device=device)
    steps = draw_steps(config, number // config.micro_batches)  # GPUs that share a batch take equally long
    return Batch(hr, anchor, scale, level, eps, steps, generator)


def draw_crop(config: TrainConfig, number: int, room: int) -> int:
    """Side of the crops that a micro-batch takes from photos; in every other one, on average, larger than they become.

    Photos show the same things at many sizes, and those of cameras are soft pixel by pixel. room: side of the largest
    square that lies in one of them.
    """
    place = _every_other(config.seed + 8, number)
    return config.crop if place is None else min(round(config.crop * (1 + (config.shrink - 1) * place)), room)


def draw_scale(config: TrainConfig, number: int) -> float:
    """The scale of a micro-batch: the model's, or in every other one, on average, any from its smallest on.

    Uniform in 1 / scale: what differs from scale to scale is the share of the frequencies that an anchor has.
    """
    model = config.model
    if model.smallest_scale is None:
        return model.scale
    place = _every_other(config.seed + 4, number)
    return model.scale if place is None else 1 / ((1 - place) / model.scale + place / model.smallest_scale)


def draw_steps(config: TrainConfig, step: int) -> int:
    """Steps of the samples of a training step: the model's own, or in every other one any from 2 to `most_steps`.

    What is left to do at the last level depends on the steps before it, so no number of them should be new.
    """
    place = _every_other(config.seed + 7, step)
    return config.model.sampling.steps if place is None else 2 + int(place * (most_steps(config) - 1))


def _every_other(seed: int, number: int) -> float | None:
    """A number in [0, 1) for one half of all numbers, drawn from (seed, number); None for the other."""
    chance, place = torch.rand(2, generator=dataset.generator(seed, number)).tolist()
    return None if chance < 0.5 else float(place)


def most_steps(config: TrainConfig) -> int:
    """The largest number of steps that samples are trained with."""
    return max(2, 2 * config.model.sampling.steps)


@contextmanager
def _dropout(config: TrainConfig, number: int, device: torch.device) -> Iterator[None]:
    """What dropout draws inside is a function of the seed and the micro-batch."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(dataset.generator(config.seed + 3, number).initial_seed())
        yield


@torch.no_grad()
def update_ema(ema: nn.Module, network: nn.Module, decay: float) -> None:
    """ema <- decay * ema + (1 - decay) * network, for every parameter."""
    averages: list[Tensor] = list(ema.parameters())
    values: list[Tensor] = list(network.parameters())
    torch._foreach_lerp_(averages, values, 1 - decay)
