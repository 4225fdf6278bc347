"""The sections of the report; every one is measured in turns within itself."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import skimage.data
import torch
from peers import RRDB, Compact, diffusers_loop
from PIL import Image
from timing import Case, Table, copy_rate, interleaved, matmul_rate, processor
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dreamsr.config import TrainConfig
from dreamsr.core import dream, int8, winograd
from dreamsr.core.denoiser import Denoiser, Network
from dreamsr.core.process import Process
from dreamsr.data import dataset
from dreamsr.engine import job, optimize, planning
from dreamsr.engine.compilation import compiled, unavailable, warm_up
from dreamsr.engine.device import has_bf16
from dreamsr.engine.outputs import Sizing
from dreamsr.engine.schedule import Settings
from dreamsr.engine.upscaler import Upscaler
from dreamsr.engine.work import Job
from dreamsr.files import checkpoint, hub
from dreamsr.files.checkpoint import Model
from dreamsr.files.manifest import Manifest
from dreamsr.words import counted

CPU = torch.device("cpu")
SCALE = torch.tensor([4.0])
NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.int8: "int8"}


@dataclass(frozen=True)
class Plan:
    """How much is measured; `quick` shows only that everything runs."""

    quick: bool = False
    compile: bool = True

    @property
    def repeats(self) -> int:
        return 1 if self.quick else 3

    @property
    def side(self) -> int:
        """Side of the pictures of a quarter megapixel, in output pixels."""
        return 64 if self.quick else 512

    @property
    def photos(self) -> int:
        """Fewer where a picture takes seconds."""
        return 2 if self.quick else 40 if has_bf16(CPU) else 16

    @property
    def dtypes(self) -> list[torch.dtype]:
        """Precisions that this CPU multiplies natively; the one that dreamsr takes comes first."""
        return [torch.bfloat16, torch.float32] if has_bf16(CPU) else [torch.float32]


def bundled(dtype: torch.dtype = torch.float32) -> Model:
    return checkpoint.load_model(hub.resolve("bicubic-x4")).to(CPU, dtype)


def machine(plan: Plan) -> Table:
    size, dtypes = 256 if plan.quick else 2048, (torch.float32, torch.bfloat16)
    rates = {NAMES[dtype]: matmul_rate(dtype, size) for dtype in dtypes}
    rows = [[f"{name} matmul, GFLOP/s", f"{rate / 1e9:.0f}"] for name, rate in rates.items()]
    rows.append(["copy, GB/s", f"{copy_rate(8 if plan.quick else 256) / 1e9:.1f}"])
    threads = f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    return Table("Machine", f"{processor()}, {threads}.", ["measured", ""], rows)


def flops(model: Model, side: int = 128) -> tuple[float, float]:
    """FLOP an output pixel of (the encoder, a step), with direct convolutions."""
    network = copy.deepcopy(model.network).to("meta")
    x, angle, scale = (torch.zeros(shape, device="meta") for shape in ((1, 3, side, side), 1, 1))
    counts = []
    features = network.encode(x, scale)
    for part in (lambda: network.encode(x, scale), lambda: network(x, angle, features)):
        with FlopCounterMode(display=False) as counter:
            part()
        counts.append(counter.get_total_flops() / side**2)
    return counts[0], counts[1]


def network(plan: Plan) -> Table:
    """Forward and forward + backward at the shapes of use, plain and compiled."""
    encoder, step = flops(bundled())
    shapes = {"1 tile of 512": (1, plan.side), "32 of 128": (1, 64) if plan.quick else (32, 128)}
    rows = []
    for dtype in plan.dtypes:
        forms: dict[str, Network] = {"eager": bundled(dtype).network}
        if plan.compile and unavailable(CPU) is None:
            forms["compiled"] = compiled(forms["eager"], static=False)
            seconds = warm_up(Upscaler(bundled(dtype), Settings(steps=1), forms["compiled"]))
            rows.append([NAMES[dtype], "", "compilation", f"{seconds:.0f}", "", ""])
        for label, (batch, side) in shapes.items():
            x, angle = torch.rand(batch, 3, side, side).to(dtype), torch.zeros(1)
            cases = {name: partial(_forward, form, x, angle) for name, form in forms.items()}
            work = batch * side**2 * (encoder + step)
            for name, cells in _rates(cases, work, dtype, plan).items():
                rows.append([NAMES[dtype], label, f"{name} forward", *cells])
        batch, side = shapes["32 of 128"]
        backward = {"": partial(_backward, bundled(), torch.rand(batch, 3, side, side), dtype)}
        cells = _rates(backward, 3 * batch * side**2 * (encoder + step), dtype, plan)[""]
        rows.append([NAMES[dtype], "32 of 128", "eager forward + backward", *cells])
    text = (
        f"The bundled network costs {encoder / 1e6:.3f} MFLOP an output pixel for the encoder, once, and "
        f"{step / 1e6:.3f} for every step: {(encoder + 4 * step) / 1e6:.2f} TFLOP a megapixel at 4 steps. "
        "Forward is encoder and one step. In fp32, wide 3x3 convolutions make a quarter of the products counted."
    )
    return Table("Network", text, ["", "shape", "", "s", "GFLOP/s", "of matmul"], rows)


def _rates(cases: Mapping[str, Case], work: float, dtype: torch.dtype, plan: Plan) -> dict[str, list[str]]:
    """Seconds, GFLOP/s, and the share of what a matrix product reaches that takes turns with the cases."""
    size = 256 if plan.quick else 3072
    a, b = torch.randn(2, size, size).to(dtype)
    seconds = interleaved({**cases, "product": lambda: a @ b}, 2 * plan.repeats + 1)
    rate = 2 * size**3 / seconds.pop("product")
    return {name: [f"{s:.3f}", f"{work / s / 1e9:.0f}", f"{work / s / rate:.0%}"] for name, s in seconds.items()}


@torch.inference_mode()
def _forward(network: Network, x: Tensor, angle: Tensor) -> Tensor:
    return network(x, angle, network.encode(x, SCALE))


def _backward(model: Model, x: Tensor, dtype: torch.dtype) -> None:
    network = model.network.requires_grad_(True)
    with torch.autocast("cpu", dtype) if dtype != torch.float32 else nullcontext():
        loss = network(x, torch.zeros(len(x)), network.encode(x, SCALE)).square().mean()
    loss.backward()


def operations(plan: Plan) -> Table:
    """Where the time of a forward goes."""
    model = bundled(plan.dtypes[0])
    x, angle = torch.rand(1, 3, plan.side, plan.side).to(plan.dtypes[0]), torch.zeros(1)
    _forward(model.network, x, angle)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(plan.repeats):
            _forward(model.network, x, angle)
    events = sorted(profile.key_averages(), key=lambda e: -e.self_cpu_time_total)
    total = sum(e.self_cpu_time_total for e in events)
    rows = [[e.key.removeprefix("aten::"), f"{e.self_cpu_time_total / total:.1%}"] for e in events[:8]]
    return Table("Operations", f"Share of a forward's time, eager, {NAMES[plan.dtypes[0]]}.", ["", "share"], rows)


def write_photos(folder: Path, count: int, side: int) -> None:
    """JPEG files of `side` / 4 pixels cut from scikit-image's photos, all different."""
    sources = [Image.fromarray(getattr(skimage.data, name)()) for name in ("astronaut", "chelsea", "coffee", "rocket")]
    small = side // 4
    for i in range(count):
        photo = sources[i % len(sources)]
        left, top = (37 * i) % (photo.width - small), (53 * i) % (photo.height - small)
        photo.crop((left, top, left + small, top + small)).save(folder / f"{i:03d}.jpg", quality=92)


def pipeline(plan: Plan) -> Table:
    """The whole of `upscale` beside the same calls of the network alone."""
    sides = {"0.26 MP": plan.side, "0.04 MP": plan.side * 2 // 5 // 16 * 16}
    rows = []
    for label, side in sides.items():
        for steps, count in ((1, plan.photos // 2), (4, plan.photos), (10, plan.photos // 4)):
            with TemporaryDirectory() as folder:
                rows.append([f"{count} of {label}", *_overhead(Path(folder), max(1, count), side, steps, plan)])
    text = (
        "`upscale` of JPEG files to JPEG files, decode and encode included, beside the same calls of the network on "
        "random numbers. Tile waste: computed pixels / output pixels."
    )
    return Table("Pipeline", text, ["pictures", "steps", "upscale, s", "network, s", "overhead", "tile waste"], rows)


def _overhead(folder: Path, count: int, side: int, steps: int, plan: Plan) -> list[str]:
    (folder / "in").mkdir()
    write_photos(folder / "in", count, side)
    upscaler = Upscaler(bundled(plan.dtypes[0]), Settings(steps=steps))
    sizing = Sizing()
    tasks = planning.plan([folder / "in"], folder / "out", sizing, 4)
    everything = Job(upscaler, "", sizing, overwrite=True)
    cases = {
        "whole": lambda: [result.status for result in job.run(everything, tasks, Manifest(folder / "out"))],
        "network": lambda: _network_alone(upscaler, [(side, side)] * count),
    }
    seconds = interleaved(cases, plan.repeats, warm_up=plan.quick)
    computed = sum(t.shape[0] * t.shape[1] for t in upscaler.layout([(side, side)]).tiles)
    ratio = seconds["whole"] / seconds["network"]
    return [
        str(steps), f"{seconds['whole']:.2f}", f"{seconds['network']:.2f}", f"{ratio:.2f}", f"{computed / side**2:.2f}"
    ]  # fmt: skip


@torch.inference_mode()
def _network_alone(upscaler: Upscaler, sizes: Sequence[tuple[int, int]]) -> None:
    network, dtype, angle = upscaler.denoiser.network, upscaler.denoiser.dtype, torch.zeros(1)
    for size in sizes:
        for tiles in upscaler.layout([size]).batches(upscaler.tiling.batch):
            x = torch.rand(upscaler.tiling.batch, 3, *tiles[0].shape).to(dtype)
            features = network.encode(x, SCALE)
            for _ in range(upscaler.steps):
                network(x, angle, features)


def flatness(plan: Plan) -> Table:
    """Seconds a megapixel over the size of the picture."""
    upscaler = Upscaler(bundled(plan.dtypes[0]), Settings(steps=1))
    sides = [64, 80] if plan.quick else [500, 1000, 2000, 4000]
    pictures = {f"{(n / 1000) ** 2:.2f} MP": torch.rand(3, n // 4, n // 4) * 2 - 1 for n in sides}
    cases = {name: partial(upscaler, [x]) for name, x in pictures.items()}
    per_mp = {
        name: s / (pictures[name].shape[1] * pictures[name].shape[2] * 16 / 1e6)
        for name, s in interleaved(cases, plan.repeats, warm_up=False).items()
    }
    first = next(iter(per_mp.values()))
    rows = [[name, f"{value:.2f}", f"{value / first:.2f}"] for name, value in per_mp.items()]
    return Table("Size of the picture", "One square picture, 1 step.", ["output", "s / MP", "ratio to the first"], rows)


def peers(plan: Plan) -> Table:
    """Seconds an output megapixel beside other networks and Pillow, one picture of a quarter megapixel."""
    side = plan.side
    lr = torch.rand(1, 3, side // 4, side // 4)
    photo = Image.effect_noise((side // 4, side // 4), 60).convert("RGB")
    cases: dict[str, Case] = {}
    for dtype in [*plan.dtypes, *([torch.int8] if int8.available() else [])]:
        model = bundled(dtype)
        for steps in (1, 4):
            upscaler = Upscaler(model, Settings(steps=steps))
            cases[f"dreamsr, {counted(steps, 'step')}, {NAMES[dtype]}"] = partial(upscaler, [lr[0] * 2 - 1])
    for dtype in plan.dtypes:
        for label, peer in (("SRVGGNetCompact-32", Compact()), ("RRDBNet-23", RRDB())):
            cases[f"{label}, {NAMES[dtype]}"] = partial(_infer, _ready(peer, dtype), lr.to(dtype))
    if not plan.quick:
        cases["diffusers DDIM loop, 4 steps, fp32"] = partial(diffusers_loop, bundled(), photo, 4)
    cases["Pillow bicubic"] = partial(photo.resize, (side, side), Image.Resampling.BICUBIC)
    seconds = {k: v / (side**2 / 1e6) for k, v in interleaved(cases, plan.repeats).items()}
    base = seconds["SRVGGNetCompact-32, fp32"]
    rows = [[name, f"{s:.3f}", f"{s / base:.2f}"] for name, s in seconds.items()]
    text = "From memory to memory; other networks have random weights: this is what they cost, not what they give."
    return Table("Beside others", text, ["", "s / MP", "ratio to SRVGGNetCompact-32 fp32"], rows)


def _ready(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    network.eval().to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


@torch.inference_mode()
def _infer(network: nn.Module, x: Tensor) -> Any:
    return network(x.contiguous(memory_format=torch.channels_last))


def training(plan: Plan) -> Table:
    """Optimizer steps on real photos beside the bare forward and backward on fixed tensors."""
    dtype = plan.dtypes[0]
    config = TrainConfig(steps=10**6, optimizer="muon")
    if plan.quick:
        config = replace(config, batch=2, crop=32)
    state = optimize.new_state(config, CPU)
    with TemporaryDirectory() as folder:
        write_photos(Path(folder), 8, 1024)
        photos, _ = dataset.load(sorted(Path(folder).iterdir()), config.crop, Path(folder) / "cache")
        cases = dict(_training_cases(config, state, photos, dtype))
        seconds = interleaved(cases, 1 if plan.quick else 5)
    rows = [[name, f"{s:.3f}", f"{config.batch / s:.1f}"] for name, s in seconds.items()]
    for kind in ("plain", "DREAM"):
        ratio = seconds[f"{kind}, bare"] / seconds[f"{kind}, training"]
        rows.append([f"{kind}: bare / training", f"{ratio:.2f}", ""])
    rows.append(["DREAM / plain, training", f"{seconds['DREAM, training'] / seconds['plain, training']:.2f}", ""])
    text = f"{config.batch} crops of {config.crop} pixels, Muon, {NAMES[dtype]}."
    return Table("Training", text, ["", "s a step", "images/s"], rows)


def _training_cases(
    config: TrainConfig, state: optimize.State, photos: dataset.Photos, dtype: torch.dtype
) -> Iterator[tuple[str, Case]]:
    denoiser = Denoiser(state.network, Process(config.model.process), "x0")
    batch = optimize.draw_batch(config, denoiser.process, photos, 0, CPU)
    kinds: dict[str, dream.Exponent] = {"plain": "off", "DREAM": 1.0}
    for kind, p in kinds.items():
        changed = replace(config, dream_p=p)
        step: Callable[[], object] = partial(optimize.optimizer_step, changed, state, denoiser, photos, CPU, dtype)
        yield f"{kind}, training", step
        yield f"{kind}, bare", partial(_bare, denoiser, batch.hr, batch.level, batch.eps, p, dtype)


def _bare(denoiser: Denoiser, u_0: Tensor, level: Tensor, eps: Tensor, p: dream.Exponent, dtype: torch.dtype) -> None:
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        loss = dream.loss(denoiser, u_0, eps, level, denoiser.condition(u_0, SCALE), p=p, norm="l2")
    loss.backward()


def precisions(plan: Plan) -> Table:
    """The same picture in fp32, also with direct convolutions, and int8, with and without AVX-512."""
    rows = []
    for label, changes in (
        ("as it is", {}),
        ("AVX2 alone", {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}),
    ):
        command = [sys.executable, str(Path(__file__).with_name("run.py")), "--picture", str(plan.side)]
        done = subprocess.run(command, env=os.environ | changes, capture_output=True, text=True, check=True)
        rows.append([label, *(f"{float(seconds):.2f}" for seconds in done.stdout.split())])
    machine = f"{processor()}, {counted(torch.get_num_threads(), 'thread')}"
    text = f"Seconds a megapixel, of one picture of a quarter megapixel, 4 steps; {machine}."
    return Table("fp32 and older CPUs", text, ["", "fp32", "fp32, direct convolutions", "int8"], rows)


def picture(side: int) -> Iterator[float]:
    """Seconds an output megapixel of one picture in fp32, with direct convolutions, and in int8, 4 steps."""
    x = torch.rand(3, side // 4, side // 4) * 2 - 1
    whole, rounded = (partial(Upscaler(bundled(t), Settings(steps=4)), [x]) for t in (torch.float32, torch.int8))

    def direct() -> None:
        with patch.object(winograd, "available", lambda: False):
            whole()

    cases: dict[str, Case] = {"fp32": whole, "direct": direct, "int8": rounded}
    yield from (seconds / (side**2 / 1e6) for seconds in interleaved(cases, 3).values())


SECTIONS = (machine, network, operations, peers, pipeline, flatness, training, precisions)
