"""Runs: exact resume, overfitting, averages, the folder they leave."""

import json
import math
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, photo, randomise
from PIL import Image
from programs import PROGRAM, TORCHRUN
from torch import Tensor, nn
from torch.nn import functional

from dreamsr.config import ProcessConfig, TrainConfig
from dreamsr.core import scoring
from dreamsr.core.denoiser import Denoiser
from dreamsr.core.networks import PatchUNet
from dreamsr.core.process import Process
from dreamsr.core.resize import bicubic
from dreamsr.data import dataset
from dreamsr.data.degrade import degrade
from dreamsr.engine import journal, muon, optimize, runs, sources, trainer
from dreamsr.engine.ranks import Ranks
from dreamsr.engine.schedule import Settings
from dreamsr.engine.upscaler import Upscaler
from dreamsr.errors import ConfigError, DreamSRError, UsageError
from dreamsr.files import checkpoint, images
from dreamsr.files.images import Picture
from dreamsr.files.paths import hidden_stem

CPU = torch.device("cpu")
CONFIG = TrainConfig(model=TINY, steps=8, batch=4, crop=32, warmup=2, val_every=4, save_every=100)
ANCESTRAL = replace(TINY, sampling=replace(TINY.sampling, sampler="ddpm"))
SAMPLES = replace(CONFIG, energy=1.0, model=ANCESTRAL)
MUON = replace(CONFIG, optimizer="muon")
BLIND = replace(CONFIG, model=replace(TINY, degradation="photo", smallest_scale=1.5))


@pytest.fixture
def folder(photos: Path) -> Path:
    for i in range(20):
        images.write(photos / f"more_{i:02}.png", Picture(photo("coffee")[:, i : i + 40, 5 * i : 5 * i + 40]))
    return photos


def events(run: runs.Run, out: Path, stop_at: int | None = None) -> Iterator[trainer.Event]:
    """The run until done, or until the step `stop_at` is complete."""
    torch.set_num_threads(1)
    seen = 0

    def stop() -> bool:
        nonlocal seen
        seen += 1
        return seen == stop_at

    return trainer.fit(run, out, CPU, torch.float32, stop=stop)


def logged(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("config", [CONFIG, BLIND, SAMPLES, MUON])
def test_stop_and_resume_is_bitwise_the_whole_run(config: TrainConfig, folder: Path, tmp_path: Path) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    list(events(runs.create(config, folder, None, straight), straight))
    list(events(runs.create(config, folder, None, broken), broken, stop_at=3))
    list(events(runs.reopen(broken), broken, stop_at=2))
    list(events(runs.reopen(broken), broken))
    (_, a), (_, b) = (checkpoint.load_state(out / runs.STATE) for out in (straight, broken))
    momentum = {"momentum"} if config.optimizer == "muon" else set()
    assert set(a) == {"network", "ema", "exp_avg", "exp_avg_sq"} | momentum
    for group, tensors in a.items():
        for name, value in tensors.items():
            assert torch.equal(value, b[group][name]), (group, name)
    losses = [[row.get("loss") for row in logged(out)] for out in (straight, broken)]
    assert losses[0] == losses[1]


def test_what_was_logged_after_the_last_save_is_forgotten(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    list(events(runs.create(CONFIG, folder, None, out), out, stop_at=3))
    with (out / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": 4, "loss": 9.0}) + "\n")
    list(events(runs.reopen(out), out))
    steps = [row["step"] for row in logged(out) if "loss" in row]
    assert steps == list(range(1, 9))


def test_the_time_of_a_run_goes_on_where_it_stopped(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    config = replace(CONFIG, val_every=100)
    seen = list(events(runs.create(config, folder, None, out), out, stop_at=1))
    seen += events(runs.reopen(out), out, stop_at=1)
    seconds = [event.seconds for event in seen if isinstance(event, optimize.Progress)]
    assert len(seconds) == 2
    assert float(checkpoint.load_state(out / runs.STATE)[0]["seconds"]) == pytest.approx(sum(seconds))


def test_the_folder_of_a_run(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    seen = list(events(runs.create(CONFIG, folder, None, out), out))
    started = seen[0]
    assert isinstance(started, trainer.Started)
    assert (started.photos, started.held_out) == (23, 1)
    validated = [event for event in seen if isinstance(event, trainer.Validated)]
    assert [event.step for event in validated] == [4, 8]
    assert set(validated[0].psnr_y) == {"bicubic", "1 step", "4 steps"}
    with Image.open(validated[-1].sheet) as sheet:
        assert sheet.size[0] == 4 * (96 + 4)
    assert [(event.step, event.done) for event in seen if isinstance(event, trainer.Saved)] == [(8, True)]
    model = checkpoint.load_model(out / "model.safetensors")
    assert model.config == TINY
    assert (model.card["step"], model.card["photos"]) == (8, 23)
    assert model.card["training"]["dream_p"] == 1.0


def test_the_averaged_weights_are_validated_and_kept(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    fast = replace(CONFIG, lr=0.05)
    *_, validated = [e for e in events(runs.create(fast, folder, None, out), out) if isinstance(e, trainer.Validated)]
    _, groups = checkpoint.load_state(out / runs.STATE)
    saved, full = checkpoint.load_model(out / "model.safetensors"), trainer.averaged(out)
    for name, value in groups["ema"].items():
        assert torch.equal(full.network.state_dict()[name], value)
        assert torch.equal(saved.network.state_dict()[name], value.half().float())
    _, (held_out,) = dataset.hold_out(images.find(folder))
    original = images.read(held_out).color
    scores = []
    for group in ("ema", "network"):
        checkpoint.load_weights(full.network, groups[group], out)
        (made,) = Upscaler(full.to("cpu"), Settings(steps=1))([degrade(original[None], 4)[0]])
        scores.append(trainer._psnr_y(made, original, 4))
    assert validated.psnr_y["1 step"] == pytest.approx(scores[0], abs=1e-6)
    assert abs(scores[1] - scores[0]) > 1e-3


def test_a_few_crops_can_be_overfitted(tmp_path: Path) -> None:
    images.write(tmp_path / "data" / "one.png", Picture(photo("astronaut")[:, :32, 200:232]))
    config = replace(CONFIG, steps=150, lr=5e-3, first_level=1.0, dream_p="off", model=replace(TINY))
    losses = [
        event.loss
        for event in trainer.fit(
            runs.create(config, tmp_path / "data", None, tmp_path / "run"), tmp_path / "run", CPU, torch.float32
        )
        if isinstance(event, optimize.Progress)
    ]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_samples_have_the_models_steps_or_any_up_to_twice_as_many() -> None:
    drawn = [optimize.draw_steps(SAMPLES, step) for step in range(700)]
    assert set(drawn) == set(range(2, 9))
    assert drawn[:20] == [optimize.draw_steps(SAMPLES, step) for step in range(20)]
    # half of them, and a seventh of the other half
    assert drawn.count(4) / 700 == pytest.approx(1 / 2 + 1 / 14, abs=0.05)
    single = replace(SAMPLES, model=replace(TINY, sampling=replace(TINY.sampling, steps=1)))
    assert {optimize.draw_steps(single, step) for step in range(50)} == {1, 2}


@pytest.mark.parametrize("process", [TINY.process, replace(TINY.process, schedule="flow")])
def test_features_are_of_noised_pictures_at_the_cleanest_level(
    process: ProcessConfig, folder: Path, tmp_path: Path
) -> None:
    """Of a network whose stages show what they are given: (alpha u_0 + sigma eps) / hypot(alpha, sigma), normalised."""

    class Echo(nn.Module):
        def encode(self, anchor: Tensor, scale: Tensor) -> Tensor:
            assert torch.equal(anchor, batch.anchor)
            return anchor

        def stages(self, u: Tensor, angle: Tensor, features: Tensor) -> Iterator[Tensor]:
            assert float(angle) == pytest.approx(2 / math.pi * math.atan(math.exp(-4.5)))
            seen.append(u)
            yield from (u, features)

    seen: list[Tensor] = []
    loaded, _ = dataset.load(images.find(folder), 32, tmp_path / "cache.u8")
    denoiser = Denoiser(checkpoint.build(TINY), Process(process), "x0")
    batch = optimize.draw_batch(SAMPLES, denoiser.process, loaded, 0, CPU)
    pictures = (torch.zeros_like(batch.eps), torch.randn(batch.eps.shape))
    shown = [*optimize._features(Echo(), pictures, denoiser, batch)]  # type: ignore[arg-type]
    ratio = math.exp(-4.5)  # sigma / alpha at lambda_image
    for u_0, u, maps in zip(pictures, seen, shown, strict=True):
        torch.testing.assert_close(u, (u_0 + ratio * batch.eps) / math.hypot(1, ratio))
        torch.testing.assert_close(
            maps, [functional.layer_norm(x.movedim(1, 3), (3,)).movedim(3, 1) for x in (u, batch.anchor)]
        )


def test_the_score_of_features_teaches_the_network_and_leaves_the_average_alone(folder: Path, tmp_path: Path) -> None:
    loaded, _ = dataset.load(images.find(folder), 32, tmp_path / "cache.u8")
    state = optimize.new_state(SAMPLES, CPU)
    for network in (state.network, state.ema):
        randomise(network)
    denoiser = Denoiser(state.network, Process(TINY.process), "x0")

    def gradient(weight: float) -> Tensor:
        batch = optimize.draw_batch(SAMPLES, denoiser.process, loaded, 0, CPU)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scoring, "FEATURE_WEIGHT", weight)
            optimize.batch_loss(denoiser, state.ema, batch, 1.0, SAMPLES).backward()
        grads = [p.grad.flatten() for p in state.network.parameters() if p.grad is not None]
        state.network.zero_grad()
        return torch.cat(grads)

    without, some, twice = (gradient(weight) for weight in (0.0, 0.5, 1.0))
    learned = some - without
    assert learned.norm() > 1e-2 * without.norm()
    assert (twice - without - 2 * learned).norm() < 1e-3 * learned.norm()
    assert not state.ema.training
    assert all(p.grad is None for p in state.ema.parameters())


def test_micro_batches_have_the_gradient_of_their_batch(folder: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, micro_batches=2, clip=1e9)
    loaded, _ = dataset.load(images.find(folder), 32, tmp_path / "cache.u8")
    state = optimize.new_state(config, CPU)
    denoiser = Denoiser(randomise(state.network), Process(config.model.process), "x0")
    first, second = (optimize.draw_batch(config, denoiser.process, loaded, number, CPU) for number in (0, 1))
    hr, anchor, level, eps = (
        torch.cat([getattr(part, key) for part in (first, second)]) for key in ("hr", "anchor", "level", "eps")
    )
    together = replace(first, hr=hr, anchor=anchor, level=level, eps=eps)
    whole = optimize.batch_loss(denoiser, state.ema, together, 1.0, config)
    whole.backward()
    expected = {name: p.grad for name, p in state.network.named_parameters() if p.grad is not None}
    state.network.zero_grad(set_to_none=True)

    seen: dict[str, Tensor] = {}

    def keep(*_: object) -> None:
        seen.update({name: p.grad.clone() for name, p in state.network.named_parameters() if p.grad is not None})

    state.optimizers[0].register_step_pre_hook(keep)
    loss, _ = optimize.optimizer_step(config, state, denoiser, loaded, CPU, torch.float32)
    assert loss.item() == pytest.approx(whole.item())
    assert seen.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(seen[name], gradient, rtol=1e-4, atol=1e-6)


def test_micro_batches_are_draws_of_their_own(folder: Path, tmp_path: Path) -> None:
    """Numbered through the whole run: none is seen twice."""
    config, process = replace(CONFIG, micro_batches=2), Process(CONFIG.model.process)
    loaded, _ = dataset.load(images.find(folder), 32, tmp_path / "cache.u8")
    drawn = [optimize.draw_batch(config, process, loaded, number, CPU) for number in range(6)]
    for attribute in ("hr", "level", "eps"):
        assert len({getattr(batch, attribute).numpy().tobytes() for batch in drawn}) == 6, attribute


def test_micro_batches_of_a_step_are_sampled_in_equally_many_steps(folder: Path, tmp_path: Path) -> None:
    config, process = replace(SAMPLES, micro_batches=2), Process(CONFIG.model.process)
    loaded, _ = dataset.load(images.find(folder), 32, tmp_path / "cache.u8")
    drawn = [optimize.draw_batch(config, process, loaded, number, CPU).sampling_steps for number in range(12)]
    assert drawn == [optimize.draw_steps(config, step) for step in range(6) for _ in range(2)]
    assert len(set(drawn)) > 1


def test_two_processes_train_as_one(folder: Path, tmp_path: Path) -> None:
    """Bit for bit: the sum of two gradients does not depend on who computed them. They stop and go on together."""
    recipe = ["batch=4", "crop=32", "steps=6", "warmup=2", "val_every=3", "energy=1", "optimizer=muon"]
    tiny = ["model.network.widths=[8]", "model.network.blocks=1", "model.network.encoder_blocks=1"]
    common = ["--device", "cpu", "--dtype", "fp32"]

    def job(command: list[str], out: str, *words: str) -> str:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        words = ("train", "--out", out, *common, *words)
        done = subprocess.run([*command, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stderr

    said = job(TORCHRUN, "two", "--data", str(folder), *recipe, *tiny, "--stop-after", "0s")
    assert said.count("23 photos, 1 held out, from step 0") == 1
    assert said.count("step 1: saved") == 1
    said = job(TORCHRUN, "two", "--resume")
    assert said.count("step 6: finished") == 1
    job(PROGRAM, "one", "--data", str(folder), *recipe, *tiny, "micro_batches=2")
    (two, a), (one, b) = (checkpoint.load_state(tmp_path / out / runs.STATE) for out in ("two", "one"))
    assert two["step"] == one["step"] == "6"
    for group, tensors in a.items():
        for name, value in tensors.items():
            assert torch.equal(value, b[group][name]), (group, name)
    losses, psnr_y = (
        [[row[key] for row in logged(tmp_path / out) if key in row] for out in ("two", "one")]
        for key in ("loss", "psnr_y")
    )
    assert losses[0] == losses[1]
    assert psnr_y[0] == psnr_y[1]
    assert (len(losses[0]), len(psnr_y[0])) == (6, 2)


def test_of_several_processes_the_first_tells_what_is_wrong(folder: Path, tmp_path: Path) -> None:
    words = ["train", "--data", str(folder), "--out", "run", "--device", "cpu", "crop=1024"]
    done = subprocess.run([*TORCHRUN, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.count("error: none of 23 photos can be trained on") == 1
    assert "dreamsr/" not in done.stderr  # nor does any of them show a traceback


def test_processes_share_micro_batches_equally(folder: Path, tmp_path: Path) -> None:
    run = runs.create(replace(CONFIG, micro_batches=2), folder, None, tmp_path / "run")
    with pytest.raises(UsageError, match="3 processes cannot share micro_batches=2"):
        next(trainer.fit(run, tmp_path / "run", CPU, torch.float32, ranks=Ranks(0, 3)))


@pytest.mark.parametrize(("parts", "hint"), [(1, "micro_batches=2"), (2, "micro_batches=4"), (4, "smaller crop=")])
def test_too_little_memory_for_a_step(
    parts: int, hint: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(optimize, "batch_loss", full)
    run = runs.create(replace(CONFIG, micro_batches=parts), folder, None, tmp_path / "run")
    with pytest.raises(DreamSRError, match=f"memory for {4 // parts} crops of 32 pixels") as caught:
        list(events(run, tmp_path / "run"))
    assert hint in caught.value.hint


def test_dream_begins_at_its_step(folder: Path, tmp_path: Path) -> None:
    """Before dream_start a run is bitwise the plain one, after it is not."""
    loaded, _ = dataset.load(images.find(folder), 32, tmp_path / "cache.u8")

    def losses(config: TrainConfig) -> list[float]:
        state = optimize.new_state(config, CPU)
        return [p.loss for p in optimize.train(config, state, loaded, CPU, torch.float32)]

    # a fresh network predicts u_0 = 0 whatever u_t is, and only later differs
    config = replace(CONFIG, lr=1e-2)
    plain, late = losses(replace(config, dream_p="off")), losses(replace(config, dream_start=5))
    assert plain[:5] == late[:5]
    assert plain[5] != late[5]


def test_reading_losses_in_groups_changes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: groups end where something is saved or validated, and the run is the same."""
    config = replace(CONFIG, steps=9, save_every=4, val_every=100)

    def run(out: Path) -> list[trainer.Event]:
        return list(events(runs.create(config, folder, None, out), out))

    one_by_one = run(tmp_path / "a")
    monkeypatch.setitem(optimize.UNREAD, "cpu", 3)
    grouped = run(tmp_path / "b")
    kinds = (optimize.Progress, trainer.Saved)
    steps = [[(type(e), e.step) for e in run if isinstance(e, kinds)] for run in (one_by_one, grouped)]
    assert steps[0] == steps[1]
    losses = [[e.loss for e in run if isinstance(e, optimize.Progress)] for run in (one_by_one, grouped)]
    assert losses[0] == losses[1]
    rates = [e.lr for e in one_by_one if isinstance(e, optimize.Progress)]
    assert rates == [optimize.learning_rate(config, step) for step in range(9)]
    states = [checkpoint.load_state(tmp_path / name / runs.STATE)[1]["network"] for name in "ab"]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name])


def test_losses_are_read_before_something_is_saved_or_validated(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(optimize.UNREAD, "cpu", 3)
    config = replace(CONFIG, steps=8, save_every=5, val_every=7)
    loaded, _ = dataset.load(images.find(folder), 32, tmp_path / "cache.u8")
    state = optimize.new_state(config, CPU)
    reached = [state.step for _ in optimize.train(config, state, loaded, CPU, torch.float32)]
    assert sorted(set(reached)) == [3, 5, 6, 7, 8]


def test_learning_rate_is_a_function_of_steps() -> None:
    config = replace(CONFIG, steps=1000, warmup=100, cooldown=0.4, lr=1.0)
    assert optimize.learning_rate(config, 0) == pytest.approx(0.01)
    assert optimize.learning_rate(config, 99) == 1
    assert optimize.learning_rate(config, 600) == 1
    assert optimize.learning_rate(config, 800) == pytest.approx(0.5)
    assert optimize.learning_rate(config, 999) == pytest.approx(1 / 400)


def test_average_starts_fast_and_follows_its_decay() -> None:
    assert optimize.ema_decay(CONFIG, 0) == pytest.approx(0.1)
    assert optimize.ema_decay(CONFIG, 10**6) == CONFIG.ema
    a, b = checkpoint.build(TINY), checkpoint.build(TINY)
    start = {k: v.clone() for k, v in a.state_dict().items()}
    optimize.update_ema(a, b, 0.75)
    for name, value in a.state_dict().items():
        torch.testing.assert_close(value, 0.75 * start[name] + 0.25 * b.state_dict()[name])


@pytest.mark.parametrize("config", [CONFIG, BLIND])
def test_batches_are_a_function_of_seed_and_step(config: TrainConfig, folder: Path, tmp_path: Path) -> None:
    loaded, _ = dataset.load(images.find(folder), 32, tmp_path / "cache.u8")
    process = Process(TINY.process)
    first = optimize.draw_batch(config, process, loaded, 3, CPU)
    optimize.draw_batch(config, process, loaded, 4, CPU)
    again = optimize.draw_batch(config, process, loaded, 3, CPU)
    for name in ("hr", "anchor", "scale", "level", "eps"):
        assert torch.equal(getattr(first, name), getattr(again, name)), name


def test_batches_tell_the_scale_of_what_was_left(folder: Path, tmp_path: Path) -> None:
    """Crops of 32 pixels leave a whole number of them, so scales are 32 / n; half of the steps have the largest."""
    loaded, _ = dataset.load(images.find(folder), 32, tmp_path / "cache.u8")
    process = Process(TINY.process)
    scales = torch.cat([optimize.draw_batch(BLIND, process, loaded, i, CPU).scale for i in range(300)])
    sides = 32 / scales
    torch.testing.assert_close(sides, sides.round())
    assert (int(sides.min()), int(sides.max())) == (8, 21)
    assert float((sides == 8).double().mean()) == pytest.approx(0.5 + 0.5 * (4 - 32 / 8.5) / 2.5, abs=0.08)


def test_half_of_the_batches_are_reduced_from_larger_crops(folder: Path, tmp_path: Path) -> None:
    """By any factor up to the largest, as Pillow reduces pictures; inputs are made of what that gives."""
    config = replace(CONFIG, shrink=2.0)
    sides = torch.tensor([optimize.draw_crop(config, number, 1000) for number in range(1000)])
    larger = sides[sides > 32]
    assert len(larger) / 1000 == pytest.approx(0.5, abs=0.05)
    assert (int(larger.min()), int(larger.max())) == (33, 64)
    assert float(larger.double().mean()) == pytest.approx(48, abs=1)
    assert {optimize.draw_crop(CONFIG, number, 1000) for number in range(20)} == {32}

    loaded, _ = dataset.load(images.find(folder), 32, tmp_path / "cache.u8")
    process = Process(TINY.process)
    number = int((sides > 45).nonzero()[0])
    batch = optimize.draw_batch(config, process, loaded, number, CPU)
    taken = dataset.crops(loaded, config.seed, number, config.batch, int(sides[number]))
    small = [
        Image.fromarray(images.to_bytes(x).permute(1, 2, 0).numpy()).resize((32, 32), Image.Resampling.BICUBIC)
        for x in taken
    ]
    for x, by_pillow in zip(batch.hr, small, strict=True):
        difference = images.to_bytes(x).permute(1, 2, 0).int() - torch.from_numpy(np.array(by_pillow)).int()
        assert int(difference.abs().max()) <= 1
    lr = degrade(batch.hr, 4)
    torch.testing.assert_close(batch.anchor, bicubic(lr, (32, 32)))


def test_crops_are_no_larger_than_the_largest_photo_has_room_for(folder: Path, tmp_path: Path) -> None:
    loaded, _ = dataset.load(images.find(folder), 32, tmp_path / "cache.u8")
    assert loaded.room == max(min(images.read(path).size) for path in images.find(folder))
    config = replace(CONFIG, shrink=1000.0)
    sides = {number: optimize.draw_crop(config, number, loaded.room) for number in range(20)}
    assert set(sides.values()) == {32, loaded.room}
    largest = next(number for number, side in sides.items() if side == loaded.room)
    batch = optimize.draw_batch(config, Process(TINY.process), loaded, largest, CPU)
    assert batch.hr.shape == (config.batch, 3, 32, 32)


def test_given_inputs_are_of_crops_as_they_are() -> None:
    with pytest.raises(ConfigError, match=r"shrink is 2\.0; expected 1 for pairs"):
        TrainConfig(replace(TINY, degradation="pairs"), shrink=2.0)


def test_a_share_of_the_levels_is_the_noisiest(folder: Path, tmp_path: Path) -> None:
    loaded, _ = dataset.load(images.find(folder), 32, tmp_path / "cache.u8")
    process = Process(TINY.process)
    share = torch.cat([optimize.draw_batch(CONFIG, process, loaded, i, CPU).level for i in range(400)])
    lam = torch.log(share[:, 0] / share[:, 1])
    assert float((lam < -3.9999).double().mean()) == pytest.approx(0.1, abs=0.025)


def test_levels_and_weights_of_a_run_are_those_of_its_configuration(folder: Path, tmp_path: Path) -> None:
    loaded, _ = dataset.load(images.find(folder), 32, tmp_path / "cache.u8")
    state = optimize.new_state(CONFIG, CPU)
    denoiser = Denoiser(state.network, Process(TINY.process), "x0")
    along = replace(CONFIG, levels="lambda")
    batch = optimize.draw_batch(along, denoiser.process, loaded, 3, CPU)
    level, in_time = batch.level, optimize.draw_batch(CONFIG, denoiser.process, loaded, 3, CPU).level
    t, lam = denoiser.process.time_at(in_time[:, 0].log() - in_time[:, 1].log()), (level[:, 0] / level[:, 1]).log()
    (noise, image), (last, first) = denoiser.process.span, denoiser.process.time_at(torch.tensor([-4.0, 4.5]))
    torch.testing.assert_close((lam - image) / (noise - image), (t - first) / (last - first))

    same = replace(batch, level=level[:1].expand(len(level), 2))
    plain, weighted = (
        optimize.batch_loss(denoiser, state.ema, same, "off", replace(CONFIG, snr_cap=cap)).item() for cap in (1.0, 1e9)
    )
    assert weighted == pytest.approx(plain / float(level[0, 1] ** 2), rel=1e-5)


def test_half_of_the_steps_have_any_scale() -> None:
    assert {optimize.draw_scale(CONFIG, step) for step in range(20)} == {4}
    scales = torch.tensor([optimize.draw_scale(BLIND, step) for step in range(1000)])
    assert torch.equal(scales[:20], torch.tensor([optimize.draw_scale(BLIND, step) for step in range(20)]))
    others = scales[scales < 4]
    assert len(others) / 1000 == pytest.approx(0.5, abs=0.05)
    assert float(others.min()) >= 1.5
    assert float((1 / others).mean()) == pytest.approx((1 / 4 + 1 / 1.5) / 2, abs=0.02)


def test_bf16_runs_the_network_and_keeps_the_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Muon's matrices are multiplied in it, too."""
    loaded, _ = dataset.load(images.find(folder), 32, tmp_path / "cache.u8")
    state = optimize.new_state(MUON, CPU)
    seen = set[torch.dtype]()
    orthogonal = muon.orthogonal

    def spied(matrices: torch.Tensor) -> torch.Tensor:
        made = orthogonal(matrices)
        seen.add(made.dtype)
        return made

    monkeypatch.setattr(muon, "orthogonal", spied)
    assert isinstance(state.network, PatchUNet)
    state.network.enter.register_forward_hook(lambda _m, _i, out: seen.add(out.dtype))
    list(optimize.train(MUON, state, loaded, CPU, torch.bfloat16))
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in state.network.parameters()} == {torch.float32}


def test_the_gradient_is_clipped_and_reaches_the_encoder(folder: Path, tmp_path: Path) -> None:
    """Randomised, since a fresh network has gradients in its last layer alone."""
    loaded, _ = dataset.load(images.find(folder), 32, tmp_path / "cache.u8")
    config = replace(CONFIG, clip=1e-3, steps=1)
    state = optimize.new_state(config, CPU)
    randomise(state.network)
    norms = list[float]()

    def measure(*_: object) -> None:
        gradients = {name: p.grad for name, p in state.network.named_parameters() if p.grad is not None}
        assert float(gradients["enter_anchor.weight"].abs().max()) > 0
        norms.append(float(torch.stack([g.norm() for g in gradients.values()]).norm()))

    state.optimizers[0].register_step_pre_hook(measure)
    (progress,) = optimize.train(config, state, loaded, CPU, torch.float32)
    assert norms[0] == pytest.approx(1e-3, rel=1e-3)
    assert progress.grad_norm > 1e-2


def test_divergence_is_said_before_anything_is_saved(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    list(events(runs.create(CONFIG, folder, None, out), out, stop_at=2))
    before = (out / runs.STATE).read_bytes()
    broken = events(runs.reconfigure(runs.reopen(out), ["save_every=1"]), out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimize, "batch_loss", lambda d, *_: math.nan * sum(p.sum() for p in d.network.parameters()))
        with pytest.raises(DreamSRError, match="gradient of step 3 is not finite"):
            list(broken)
    assert (out / runs.STATE).read_bytes() == before


def test_what_a_crash_kept_from_being_written_is_written_on_resume(folder: Path, tmp_path: Path) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    for out in (straight, broken):
        list(events(runs.create(CONFIG, folder, None, out), out))
    (broken / "model.safetensors").unlink()
    sheet = broken / "samples" / "step_0000008.png"
    sheet.unlink()
    lines = (broken / "log.jsonl").read_text().splitlines(keepends=True)
    (broken / "log.jsonl").write_text("".join(lines[:-1]))  # without the last validation
    _, saved, validated = events(runs.reopen(broken), broken)
    assert isinstance(saved, trainer.Saved)
    assert saved.done
    assert isinstance(validated, trainer.Validated)
    assert sheet.read_bytes() == (straight / "samples" / sheet.name).read_bytes()
    assert logged(broken)[-1]["psnr_y"] == logged(straight)[-1]["psnr_y"]
    a, b = (checkpoint.load_model(out / "model.safetensors").network.state_dict() for out in (straight, broken))
    assert all(torch.equal(value, b[name]) for name, value in a.items())
    started, finished = events(runs.reopen(broken), broken)  # and not twice
    assert isinstance(started, trainer.Started)
    assert isinstance(finished, trainer.Saved)


def test_the_folder_of_a_run_keeps_no_leftovers(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "samples").mkdir()
    leftovers = [out / f"{hidden_stem(out / name)}-1.part" for name in (trainer.CACHE, runs.STATE)]
    leftovers.append(out / "samples" / f"{hidden_stem(Path('step_0000004.png'))}-1.part")
    for leftover in leftovers:
        leftover.write_bytes(b"what a killed process left")
    steps = events(runs.create(CONFIG, folder, None, out), out)
    next(steps)
    assert not any(leftover.exists() for leftover in leftovers)
    assert (out / trainer.CACHE).exists()
    list(steps)
    kept = ["log.jsonl", "model.safetensors", "run.json", "samples", "state.safetensors"]
    assert sorted(path.name for path in out.iterdir()) == kept


def test_a_log_that_cannot_be_written_is_one_line(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    steps = events(runs.create(CONFIG, folder, None, out), out)
    next(steps)
    (out / "log.jsonl").mkdir()
    with pytest.raises(DreamSRError, match=r"log\.jsonl cannot be written"):
        list(steps)


@pytest.mark.parametrize("line", ["5", "[]", "{}", '{"step": null}', '{"step": 1', ""])
def test_strange_lines_of_a_log_are_dropped(line: str, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(f'{{"step": 1, "loss": 0.5}}\n{line}\n')
    assert journal.has(log, 1, "loss")
    assert not journal.has(log, 1, "psnr_y")
    journal.forget(log, 3)
    assert log.read_text() == '{"step": 1, "loss": 0.5}\n'


def test_held_out_photos_are_not_trained_on(folder: Path) -> None:
    val = folder / "val"
    for i in range(3):
        images.write(val / f"{i}.png", Picture(photo("rocket")[:, i : i + 40, :40]))
    training, held_out = sources.split(folder, val)
    assert (len(training), len(held_out)) == (24, 3)
    assert not set(training) & set(held_out)
    assert sum(map(len, sources.split(folder, None))) == 27  # without --val they are photos like others


def test_of_many_held_out_photos_16_are_looked_at(folder: Path) -> None:
    (folder / "val").mkdir()
    for i in range(31):
        (folder / "val" / f"{i:02}.png").touch()
    training, held_out = sources.split(folder, folder / "val")
    assert (len(training), len(held_out)) == (24, 16)


def test_photos_are_known_by_name_and_size(folder: Path) -> None:
    path = images.find(folder)[0]
    digests = [sources.digest(folder, None, None)]
    path.write_bytes(path.read_bytes() + b"more")
    digests.append(sources.digest(folder, None, None))
    path.rename(path.with_name("other.png"))
    digests.append(sources.digest(folder, None, None))
    assert len(set(digests)) == 3


def test_a_broken_held_out_photo_is_named(folder: Path, tmp_path: Path) -> None:
    val = tmp_path / "val"
    images.write(val / "good.png", Picture(photo("coffee")[:, :40, :40]))
    (val / "bad.png").write_bytes(b"no picture")
    started, *rest = events(runs.create(CONFIG, folder, val, tmp_path / "run"), tmp_path / "run")
    assert isinstance(started, trainer.Started)
    assert started.held_out == 1
    assert any("bad.png is not a PNG" in line for line in started.skipped)
    assert any(isinstance(event, trainer.Validated) for event in rest)


def test_a_warm_start_begins_with_the_weights(tiny_model: checkpoint.Model) -> None:
    state = optimize.new_state(CONFIG, CPU, tiny_model.network)
    for name, value in tiny_model.network.state_dict().items():
        assert torch.equal(state.network.state_dict()[name], value)
        assert torch.equal(state.ema.state_dict()[name], value)


def test_a_run_is_not_started_twice(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    list(events(runs.create(CONFIG, folder, None, out), out, stop_at=1))
    with pytest.raises(UsageError, match="already holds a training run"):
        runs.create(CONFIG, folder, None, out)
    with pytest.raises(UsageError, match="holds no training run"):
        runs.reopen(tmp_path / "nothing")


def test_one_process_trains_in_a_folder(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = runs.create(CONFIG, folder, None, out)
    first = events(run, out, stop_at=2)
    next(first)
    with pytest.raises(UsageError, match="another process is training in"):
        next(events(run, out))
    list(first)
    assert len(list(events(runs.reopen(out), out, stop_at=1))) > 1


@pytest.fixture
def low(folder: Path, tmp_path: Path) -> Path:
    """Of every block of 4 x 4 pixels of the photos one; they are cut to whole blocks."""
    for path in images.find(folder):
        color = images.read(path).color
        images.write(path, Picture(color[:, : color.shape[1] // 4 * 4, : color.shape[2] // 4 * 4]))
        images.write(tmp_path / "low" / path.with_suffix(".bmp").name, Picture(images.read(path).color[:, 1::4, 1::4]))
    return tmp_path / "low"


PAIRS = replace(CONFIG, model=replace(TINY, degradation="pairs"))


def test_a_run_of_pairs(folder: Path, low: Path, tmp_path: Path) -> None:
    """It is exact to resume, and validates on the inputs that are given."""
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    seen = list(events(runs.create(PAIRS, folder, None, straight, low), straight))
    list(events(runs.create(PAIRS, folder, None, broken, low), broken, stop_at=3))
    list(events(runs.reopen(broken), broken))
    (_, a), (_, b) = (checkpoint.load_state(out / runs.STATE) for out in (straight, broken))
    for name, value in a["network"].items():
        assert torch.equal(value, b["network"][name]), name
    assert checkpoint.load_model(straight / "model.safetensors").config.degradation == "pairs"

    training, (held_out,) = dataset.hold_out(images.find(folder))
    original, given = images.read(held_out).color, images.read(low / held_out.with_suffix(".bmp").name).color
    enlarged = bicubic(given[None], (original.shape[1], original.shape[2]))[0]
    validated = next(event for event in seen if isinstance(event, trainer.Validated))
    assert validated.psnr_y["bicubic"] == pytest.approx(trainer._psnr_y(enlarged, original, 4))
    started = seen[0]
    assert isinstance(started, trainer.Started)
    assert started.photos == len(training)

    (low / held_out.with_suffix(".bmp").name).unlink()
    with pytest.raises(UsageError, match="are not those that the run began with"):
        runs.reopen(broken)


def test_partners_of_held_out_photos_are_looked_for_too(folder: Path, low: Path, tmp_path: Path) -> None:
    val = tmp_path / "val"
    val.mkdir()
    for name in ("more_00", "more_01"):
        (folder / f"{name}.png").rename(val / f"{name}.png")
    (low / "more_01.bmp").unlink()
    started = next(events(runs.create(PAIRS, folder, val, tmp_path / "run", low), tmp_path / "run"))
    assert isinstance(started, trainer.Started)
    assert (started.photos, started.held_out) == (22, 1)
    assert started.skipped == [f"{val / 'more_01.png'} has no partner"]


def test_pairs_and_inputs_that_are_made_exclude_each_other(folder: Path, low: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="learns from given pairs"):
        runs.create(PAIRS, folder, None, tmp_path / "run")
    with pytest.raises(UsageError, match="they are not made by photo"):
        runs.create(replace(CONFIG, model=replace(TINY, degradation="photo")), folder, None, tmp_path / "run", low)
    with pytest.raises(ConfigError, match=r"model\.smallest_scale"):
        replace(TINY, degradation="pairs", smallest_scale=2.0)


@pytest.mark.parametrize("role", ["data", "val"])
def test_a_run_inside_its_photos_is_refused(role: str, folder: Path, tmp_path: Path) -> None:
    """The sheets of its validations would be photos of the next piece."""
    others = tmp_path / "others"
    images.write(others / "a.png", Picture(photo("coffee")[:, :40, :40]))
    data, val = (folder, others) if role == "data" else (others, folder)
    with pytest.raises(UsageError, match=f"lies inside {re.escape(str(folder))}"):
        runs.create(CONFIG, data, val, folder / "runs" / "a")


def test_a_run_inside_its_partners_is_refused(folder: Path, low: Path) -> None:
    with pytest.raises(UsageError, match=f"lies inside {re.escape(str(low))}"):
        runs.create(PAIRS, folder, None, low / "run", low)


def test_held_out_photos_do_not_keep_what_is_cut_off(tmp_path: Path) -> None:
    images.write(tmp_path / "large.png", Picture(photo("astronaut").repeat(1, 2, 2)))
    (kept,) = sources.held_out([tmp_path / "large.png"], TINY, None).originals
    assert kept.shape == (3, 512, 512)
    assert kept.untyped_storage().nbytes() == 4 * kept.numel()


def test_a_run_knows_its_photos_from_any_folder(
    folder: Path, low: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    places = (path.relative_to(tmp_path) for path in (folder, folder, low))
    run = runs.create(PAIRS, next(places), next(places), Path("run"), next(places))
    assert (run.data, run.val, run.low) == (folder, folder, low)


def test_only_the_length_of_a_run_can_change(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = runs.create(CONFIG, folder, None, out)
    list(events(run, out, stop_at=1))
    longer = runs.reconfigure(runs.reopen(out), ["steps=20"])
    list(events(longer, out, stop_at=1))
    assert runs.reopen(out).config.steps == 20
    with pytest.raises(UsageError, match="lr cannot change in a resumed run"):
        runs.reconfigure(run, ["lr=1e-5"])
