"""Evaluations: intervals, paired differences, sweeps, forms, and who is measured on what."""

import csv
import hashlib
import io
import json
import math
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from browser import browser
from conftest import photo
from programs import Program, small

from dreamsr.config import ModelConfig
from dreamsr.data.degrade import degrade
from dreamsr.engine import contest, evaluation, reports, statistics, sweep
from dreamsr.engine.contest import Contest
from dreamsr.engine.evaluation import Evaluation
from dreamsr.engine.evaluator import Results, Row, Sampled
from dreamsr.engine.schedule import Settings
from dreamsr.engine.upscaler import Upscaler
from dreamsr.errors import ConfigError, UsageError
from dreamsr.files import images, page
from dreamsr.files.checkpoint import Model
from dreamsr.files.images import Picture
from dreamsr.files.manifest import file_digest
from dreamsr.files.page import Page, Plot, Point


@pytest.fixture
def originals(tmp_path: Path) -> Path:
    """Three photos of 64 pixels."""
    for i, name in enumerate(("astronaut", "chelsea", "coffee")):
        small(tmp_path / "hr" / f"{name}.png", photo(name)[:, 100:164, 100 + i : 164 + i])
    return tmp_path / "hr"


def darker(folder: Path, out: Path, levels: int) -> Path:
    """Copies of pictures, every value lower by `levels` (and at least 0)."""
    for path in images.find(folder):
        images.write(out / path.name, Picture((images.read(path).color - levels / 127.5).clamp_min(-1)))
    return out


def test_the_interval_is_the_bootstraps_of_scipy() -> None:
    from scipy.stats import bootstrap

    values = np.random.default_rng(3).gamma(2, size=40)
    found = statistics.mean(values)
    expected = bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=5).confidence_interval
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_the_interval_follows_scale_and_shift_and_is_the_same_again() -> None:
    values = [28.4, 31.0, 25.5, 27.7]
    first, again = statistics.mean(values), statistics.mean(values)
    moved = statistics.mean([2 * value + 1 for value in values])
    assert first == again
    assert (moved.low, moved.high) == pytest.approx((2 * first.low + 1, 2 * first.high + 1))
    assert min(values) < first.low < first.value < first.high < max(values)


def test_infinite_and_missing_values_are_left_out_of_means() -> None:
    found = statistics.mean([math.inf, 30, math.nan, 32])
    assert (found.value, found.count) == (31, 2)
    assert statistics.mean([math.inf, math.inf]).value == math.inf
    assert math.isnan(statistics.mean([math.nan]).value)
    assert math.isnan(statistics.mean([3.0]).low)


def test_of_the_peak_memory_the_largest_counts() -> None:
    rows = [Row(str(mib), "m", {"peak_mib": mib}) for mib in (100.0, 300.0, 200.0)]
    found = statistics.means(rows)["m"]["peak_mib"]
    assert (found.value, found.count) == (300, 3)


def test_paired_differences_are_narrower_than_the_means() -> None:
    """A constant lead is known exactly, however much the pictures differ."""
    rows = [Row(f"{i}", name, {"psnr_y": 20.0 + i + lead}) for i in range(9) for name, lead in (("a", 0.5), ("b", 0))]
    difference = statistics.differences(rows, "a", "b")["psnr_y"]
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.5, 0.5, 0.5))
    assert statistics.means(rows)["a"]["psnr_y"].high - statistics.means(rows)["a"]["psnr_y"].low > 2


def test_differences_leave_out_pictures_without_two_finite_values() -> None:
    rows = [
        Row("x", "a", {"psnr_y": math.inf}),
        Row("x", "b", {"psnr_y": 30.0}),
        Row("y", "a", {"psnr_y": 31.0}),
        Row("y", "b", {"psnr_y": 30.0}),
    ]
    assert statistics.differences(rows, "a", "b")["psnr_y"].value == 1
    assert statistics.differences(rows, "b", "a")["psnr_y"].value == -1


def test_differences_are_of_measures_that_both_have_and_that_have_means() -> None:
    scores = {"psnr_y": 30.0, "peak_mib": 100.0}
    rows = [Row("x", "a", {**scores, "lpips": 0.2}), Row("x", "b", scores)]
    assert statistics.differences(rows, "a", "b").keys() == statistics.differences(rows, "b", "a").keys() == {"psnr_y"}


def test_a_sweep_is_a_cartesian_product_of_typed_values() -> None:
    axes = sweep.parse(["steps=1,4", "sampler=ddim,dpmpp-2m", "tile=512"])
    found = sweep.combinations(Settings(seed=7), axes)
    assert list(found) == [
        "1 step, sampler=ddim, tile=512",
        "1 step, sampler=dpmpp-2m, tile=512",
        "4 steps, sampler=ddim, tile=512",
        "4 steps, sampler=dpmpp-2m, tile=512",
    ]
    assert found["4 steps, sampler=ddim, tile=512"] == Settings(steps=4, sampler="ddim", seed=7, tile=512)
    assert sweep.parse(["grid=lambda,karras"]) == {"grid": ["lambda", "karras"]}
    assert sweep.parse(["grid=-4,-1,.5"]) == {"grid": ["-4,-1,.5"]}


def test_levels_say_how_many_steps_there_are(program: Program, tiny_file: Path, originals: Path) -> None:
    model = ("eval", "-m", tiny_file, "--data", originals, "--json")
    code, out, err = program(*model, "--sweep", "grid=-4,-1,.5", "fidelity=0,1")
    assert code == 0, err
    assert list(json.loads(out)["methods"]) == [
        "bicubic",
        "grid=-4,-1,.5, fidelity=0.0",
        "grid=-4,-1,.5, fidelity=1.0",
    ]
    assert [facts["steps"] for facts in json.loads(out)["methods"].values() if "steps" in facts] == [3, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stepz=1", "unknown key 'stepz'"),
        ("steps=many", "steps is 'many'; expected a whole number"),
        ("steps", "'steps' is no sweep"),
        ("steps=", "'steps=' is no sweep"),
        ("grid=lambda,-4,2", "grid=lambda,-4,2 mixes names and levels"),
    ],
)
def test_wrong_sweeps(text: str, words: str) -> None:
    with pytest.raises((UsageError, ConfigError), match=words):
        sweep.parse([text])


def test_who_is_compared_with_whom(tmp_path: Path) -> None:
    a, b, c, d = (Results(name, tmp_path, {}) for name in "abcd")
    assert Contest([a, b]).pairs == []
    assert Contest([a, b], [c, d]).pairs == [("a", "c"), ("b", "d")]
    assert Contest([a, b], [c]).pairs == [("a", "c"), ("b", "c")]


def test_the_scale_and_the_inputs_of_models(tiny_model: Model, tmp_path: Path) -> None:
    def sampled(scale: int, degradation: Literal["bicubic", "photo"] = "bicubic") -> Sampled:
        config = replace(tiny_model.config, scale=scale, degradation=degradation)
        return Sampled("m", Upscaler(replace(tiny_model, config=config), Settings(steps=1)))

    there = Results("there", tmp_path, {})
    assert (Contest([there]).agreed_scale(None), Contest([there]).agreed_scale(3.5)) == (None, 3.5)
    assert Contest([sampled(4)], [there]).agreed_scale(None) == 4
    assert Contest([sampled(4)], [sampled(8)]).agreed_scale(4) == 4
    with pytest.raises(UsageError, match="the models make x4 and x8"):
        Contest([sampled(4)], [sampled(8)]).agreed_scale(None)
    with pytest.raises(UsageError, match="--scale is 6; this model makes x4") as raised:
        Contest([sampled(8)], [sampled(4)]).agreed_scale(6)
    assert raised.value.hint == "use --scale 4"
    assert Contest([sampled(4)], [there]).agreed_scale(2) == 2
    both = Contest([sampled(4)], [sampled(4, "photo")])
    assert (both.inputs("bicubic").degradation, both.inputs("photo")) == ("bicubic", both.models[1])
    assert Contest([there]).inputs("auto") == ModelConfig()
    assert Contest([there]).inputs("photo") == ModelConfig(degradation="photo")
    assert Contest([there], [sampled(8, "photo")]).inputs("auto") == sampled(8, "photo").upscaler.model.config
    with pytest.raises(UsageError, match="the models expect different inputs"):
        both.inputs("auto")


def test_what_does_nothing_without_a_model_is_refused(tiny_model: Model, tmp_path: Path) -> None:
    there = Results("there", tmp_path, {})
    alone, idle = Contest([there]), {"steps": None, "seed": 0}
    alone.check_idle(idle, "auto", None)
    alone.check_idle(idle, "photo", 4)
    with pytest.raises(UsageError, match="--seed is for models; these pictures are there already"):
        alone.check_idle({**idle, "seed": 3}, "auto", None)
    with pytest.raises(UsageError, match="--degradation makes inputs for bicubic, which takes a --scale"):
        alone.check_idle(idle, "photo", None)
    model = Sampled("m", Upscaler(tiny_model, Settings(steps=1)))
    Contest([there], [model]).check_idle({**idle, "seed": 3}, "photo", None)


def test_a_name_leads_to_pictures_or_to_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").touch()
    for path in ("made/a.png", "hr/a.png", "one.PNG"):
        small(tmp_path / path)
    for name in ("run", "photo-x4", "org/repo"):
        assert contest.pictures(name, Path("hr"), False) is None
    assert contest.pictures("made", Path("hr"), True) == Results("made/", Path("made"), {"a": Path("made/a.png")}, True)
    one = contest.pictures("one.PNG", Path("hr/a.png"), False)
    assert one == Results("one.PNG", Path("one.PNG"), {"a": Path("one.PNG")})


def test_a_model_with_several_settings(tiny_file: Path, tiny_model: Model) -> None:
    ways = {"1 step": Settings(steps=1), "seed=3": Settings(seed=3)}
    made = contest.sampled(str(tiny_file), tiny_file, tiny_model, ways, "b: ")
    assert [(m.name, m.upscaler.settings) for m in made] == [(f"b: {name}", way) for name, way in ways.items()]
    assert {(m.model, m.sha256) for m in made} == {("tiny.safetensors", file_digest(tiny_file))}


def test_steps_are_short_for_a_sweep() -> None:
    assert list(sweep.variants(Settings(), None, [])) == ["1 step", "4 steps"]
    assert list(sweep.variants(Settings(), [2], ["sampler=ddim"])) == ["2 steps, sampler=ddim"]
    assert list(sweep.variants(Settings(), None, ["grid=-4,2"])) == ["grid=-4,2"]
    assert list(sweep.variants(Settings(), [2], ["grid=-4,2"])) == ["2 steps, grid=-4,2"]
    assert list(sweep.variants(Settings(), None, ["sampler=ddim", "steps=3"])) == ["sampler=ddim, 3 steps"]
    with pytest.raises(UsageError, match="steps are given by --steps and by --sweep"):
        sweep.variants(Settings(), [2], ["steps=3"])


def test_a_sweep_of_a_model(program: Program, tiny_file: Path, originals: Path) -> None:
    model = ("-m", tiny_file, "--data", originals)
    code, out, err = program("eval", *model, "--dtype", "fp32", "--sweep", "steps=1,2", "sampler=ddim,ddpm", "--json")
    assert code == 0, err
    document = json.loads(out)
    names = [f"{steps}, sampler={sampler}" for steps in ("1 step", "2 steps") for sampler in ("ddim", "ddpm")]
    assert list(document["means"]) == ["bicubic", *names]
    facts = document["methods"]["2 steps, sampler=ddpm"]
    assert (facts["steps"], facts["sampler"], facts["seed"], facts["dtype"]) == (2, "ddpm", 0, "fp32")
    assert facts["model_sha256"] == hashlib.sha256(tiny_file.read_bytes()).hexdigest()
    assert facts["grid"]
    assert document["protocol"]["mod_crop"] == 4
    assert "not measured" in document["protocol"]["lpips_alexnet"]
    for name in names:
        low, high = document["intervals"][name]["psnr_y"]
        assert low <= document["means"][name]["psnr_y"] <= high
        assert document["means"][name]["s_per_mp"] > 0
        assert document["means"][name]["peak_mib"] > 0


def test_a_broken_result_costs_itself_alone(program: Program, originals: Path, tmp_path: Path) -> None:
    """Though the first one is asked how all were made."""
    shutil.copytree(originals, tmp_path / "sr")
    first, *rest = sorted(path.stem for path in images.find(originals))
    (tmp_path / "sr" / f"{first}.png").write_bytes(b"no picture")
    code, out, err = program("eval", tmp_path / "sr", originals, "--json")
    assert code == 1
    assert f"{first}.png is left out: " in err
    assert [row["picture"] for row in json.loads(out)["pictures"]] == rest
    code, out, err = program("eval", originals, originals, "--against", tmp_path / "sr", "--json")
    assert code == 1
    assert f"{first}.png is left out: " in err
    assert [row["picture"] for row in json.loads(out)["pictures"]] == [name for name in rest for _ in range(2)]


def test_a_broken_picture_costs_itself_alone(program: Program, tiny_file: Path, originals: Path) -> None:
    names = sorted(path.stem for path in images.find(originals))
    whole = program("eval", "-m", tiny_file, "--data", originals, "--steps", 1, "--json")[1]
    (originals / "broken.png").write_bytes((originals / f"{names[0]}.png").read_bytes()[:200])
    images.write(originals / "a_dot.png", Picture(torch.zeros(3, 3, 3)))
    code, out, err = program("eval", "-m", tiny_file, "--data", originals, "--steps", 1, "--json")
    assert code == 1
    assert "a_dot.png is left out: a picture of 3x3 is smaller than the scale of 4" in err
    assert "broken.png is left out: " in err
    rows, before = (json.loads(text)["pictures"] for text in (out, whole))
    assert sorted({row["picture"] for row in rows}) == names
    assert [row["psnr_y"] for row in rows] == [row["psnr_y"] for row in before]
    for path in images.find(originals):
        path.write_bytes(b"no picture")
    code, out, err = program("eval", "-m", tiny_file, "--data", originals, "--steps", 1)
    assert (code, out) == (1, "")
    assert "no picture can be measured" in err


def test_the_protocols(program: Program, originals: Path, tmp_path: Path) -> None:
    """Every value lower by 5 levels: in RGB the PSNR is known; a border left out changes nothing."""
    for path in images.find(originals):
        images.write(path, Picture(images.read(path).color.clamp_min(10 / 127.5 - 1)))
    darker(originals, tmp_path / "sr", 5)
    expected = 10 * math.log10(255**2 / 25)
    code, out, _ = program("eval", "sr", "hr", "--protocol", "dream", "--json")
    document = json.loads(out)
    assert code == 0
    assert set(document["means"]["given"]) == {"psnr_rgb", "ssim_rgb", "ms_ssim_rgb"}
    assert document["means"]["given"]["psnr_rgb"] == pytest.approx(expected, abs=1e-6)
    assert document["protocol"]["protocol"] == "dream"
    code, out, _ = program("eval", "sr", "hr", "--protocol", "sr", "--scale", "3", "--json")
    document = json.loads(out)
    assert document["protocol"]["y"].endswith("crop 3")
    code, out, _ = program("eval", "sr", "hr", "--crop", "0", "--json")
    assert json.loads(out)["protocol"]["y"].endswith("crop 0")
    # 5 levels of RGB are 5 * 219 / 255 of Y
    assert document["means"]["given"]["psnr_y"] == pytest.approx(expected + 20 * math.log10(255 / 219), abs=1e-3)


def test_everyday_inputs(program: Program, tiny_file: Path, originals: Path) -> None:
    """They depend on a picture's name and on nothing else; their agreement with the output is not measured."""

    def scores(*arguments: object) -> dict[str, dict[str, float]]:
        code, out, _ = program("eval", "-m", tiny_file, "--data", originals, "--steps", "1", "--json", *arguments)
        assert code == 0
        document = json.loads(out)
        assert ("everyday" in document["protocol"]["downscaling"]) == ("photo" in arguments)
        return {row["picture"]: row for row in document["pictures"] if row["method"] == "bicubic"}

    clean, first = scores(), scores("--degradation", "photo")
    assert all(first[name]["psnr_rgb"] != clean[name]["psnr_rgb"] for name in clean)
    assert sum(row["psnr_rgb"] for row in first.values()) < sum(row["psnr_rgb"] for row in clean.values()) - 1
    assert "psnr_lr" in clean["coffee"]
    assert "psnr_lr" not in first["coffee"]
    (originals / "astronaut.png").unlink()
    again = scores("--degradation", "photo", "--seed", 1)
    assert {name: first[name] for name in ("chelsea", "coffee")} == again


def test_inputs_that_are_given(program: Program, tiny_file: Path, originals: Path, tmp_path: Path) -> None:
    """Given what it would be reduced to, a picture scores the same; its agreement with them is not measured."""
    for path in images.find(originals):
        small = degrade(images.read(path).color[None], 4)[0]
        images.write(tmp_path / "low" / path.with_suffix(".bmp").name, Picture(small))
    words = ["eval", "-m", tiny_file, "--data", originals, "--steps", "1", "--json"]

    def rows(*arguments: object) -> tuple[int, list[dict[str, object]], str]:
        code, out, err = program(*words, *arguments)
        costs = ("s_per_mp", "peak_mib")
        found = json.loads(out)["pictures"]
        return code, [{k: v for k, v in row.items() if k not in costs} for row in found], err

    code, given, _ = rows("--low", tmp_path / "low")
    _, made, _ = rows()
    agreement = ("psnr_lr", "mse_lr")
    assert code == 0
    assert given == [{k: v for k, v in row.items() if k not in agreement} for row in made]
    assert len(given) == 6

    (tmp_path / "low" / "chelsea.bmp").unlink()
    images.write(tmp_path / "low" / "coffee.bmp", Picture(torch.zeros(3, 15, 16)))
    code, left, err = rows("--low", tmp_path / "low")
    assert (code, {row["picture"] for row in left}) == (1, {"astronaut"})
    assert "chelsea.png has no partner and is left out" in err
    assert "coffee.png is 64x64, not 4 times" in err


def test_models_of_pairs_need_them(program: Program, tiny_file: Path, originals: Path, tmp_path: Path) -> None:
    model = tmp_path / "pairs.safetensors"
    assert program("export", tiny_file, model, "degradation=pairs")[0] == 0
    words = ["eval", "-m", model, "--data", originals, "--steps", "1"]
    code, out, err = program(*words)
    assert (code, out) == (2, "")
    assert "learned from given pairs; inputs like theirs cannot be made\n  hint: give them: --low FOLDER" in err
    assert program(*words, "--degradation", "bicubic")[0] == 0


def test_models_of_different_inputs(program: Program, tiny_file: Path, originals: Path, tmp_path: Path) -> None:
    blind = tmp_path / "blind.safetensors"
    assert program("export", tiny_file, blind, "name=blind", "degradation=photo")[0] == 0
    words = ["eval", "-m", tiny_file, "--against", blind, "--data", originals, "--steps", "1"]
    code, _, err = program(*words)
    assert code == 2
    assert "the models expect different inputs\n  hint: give --degradation bicubic or --degradation photo" in err
    assert program(*words, "--degradation", "photo")[0] == 0


def test_against_another_folder(program: Program, originals: Path, tmp_path: Path) -> None:
    darker(originals, tmp_path / "near", 2)
    darker(originals, tmp_path / "far", 4)
    code, out, err = program("eval", "near", "hr", "--against", "far", "--json")
    assert code == 0, err
    (difference,) = json.loads(out)["differences"]
    assert (difference["method"], difference["against"]) == ("given", "far/")
    assert difference["means"]["difference"]["psnr_rgb"] == pytest.approx(20 * math.log10(2), abs=0.1)
    low, high = difference["intervals"]["difference"]["psnr_rgb"]
    assert 0 < low <= high
    code, out, _ = program("eval", "near", "hr", "--against", "far")
    assert [line.split("\t")[0] for line in out.splitlines()] == [
        "mean of 3",
        "given",
        "far/",
        "difference",
        "given - far/",
    ]


def test_a_model_against_itself_differs_by_nothing(program: Program, tiny_file: Path, originals: Path) -> None:
    code, out, err = program(
        "eval", "-m", tiny_file, "--data", originals, "--against", tiny_file, "--steps", "1,2", "--json"
    )
    assert code == 0, err
    differences = json.loads(out)["differences"]
    pairs = [(found["method"], found["against"]) for found in differences]
    assert pairs == [(name, f"{tiny_file}: {name}") for name in ("1 step", "2 steps")]
    for found in differences:
        values = {k: v for k, v in found["means"]["difference"].items() if k != "s_per_mp" and not k.startswith("ms_")}
        assert set(values.values()) == {0.0}


def test_results_of_upscale_are_those_of_the_model(program: Program, tiny_file: Path, originals: Path) -> None:
    """A folder that `upscale` made of the reduced pictures, against the model that reduces them itself."""
    from dreamsr.data.degrade import degrade

    for path in images.find(originals):
        images.write(Path("lr") / path.name, Picture(degrade(images.read(path).color[None], 4)[0]))
    assert program("upscale", "lr", "made", "-m", tiny_file, "--steps", 2)[0] == 0
    code, out, err = program("eval", "-m", tiny_file, "--data", originals, "--steps", 2, "--against", "made", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["differences"][0]["means"]["difference"]["psnr_y"] == pytest.approx(0, abs=0.02)
    made = document["methods"]["made/"]
    assert (made["steps"], made["source"]) == (2, "as noted in astronaut.png")
    assert made["model_sha256"] == document["methods"]["2 steps"]["model_sha256"]


def test_sizes_are_cut_to_match_when_that_is_wanted(program: Program, tmp_path: Path) -> None:
    whole = photo("chelsea")[:, :64, :80]
    small(tmp_path / "hr" / "a.png", whole[:, :, :70])
    small(tmp_path / "sr" / "a.png", whole[:, :60])
    code, out, err = program("eval", "sr", "hr")
    assert (code, out) == (1, "")
    assert "sr/a.png is 80x60 and hr/a.png is 70x64" in err
    assert "--crop-to-match" in err
    small(tmp_path / "sr" / "a.png", whole[:, :30, :40])
    assert "hint: results must have the sizes of their originals" in program("eval", "sr", "hr")[2]
    small(tmp_path / "sr" / "a.png", whole[:, :60])
    code, out, err = program("eval", "sr", "hr", "--crop-to-match", "--json")
    assert code == 0, err
    assert json.loads(out)["pictures"][0]["ssim_rgb"] == pytest.approx(1)
    assert "were cut at the bottom and right" in json.loads(out)["protocol"]["sizes"]


def test_results_may_be_as_large_as_the_cut_original(program: Program, tmp_path: Path) -> None:
    whole = photo("chelsea")[:, :63, :82]
    small(tmp_path / "hr" / "a.png", whole)
    small(tmp_path / "sr" / "a.png", whole[:, :60, :80])
    code, out, _ = program("eval", "sr", "hr", "--scale", 4, "--json")
    assert code == 0
    assert "sizes" not in json.loads(out)["protocol"]
    assert program("eval", "sr", "hr")[0] == 1


def test_equal_pictures_do_not_spoil_the_mean(program: Program, originals: Path, tmp_path: Path) -> None:
    darker(originals, tmp_path / "sr", 5)
    small(tmp_path / "sr" / "coffee.png", images.read(originals / "coffee.png").color)
    _, out, err = program("eval", "sr", "hr", "--json")
    document = json.loads(out)
    pictures = {row["picture"]: row["psnr_rgb"] for row in document["pictures"]}
    assert pictures["coffee"] is None
    finite = [value for value in pictures.values() if value is not None]
    assert document["means"]["given"]["psnr_rgb"] == pytest.approx(sum(finite) / 2)
    assert document["counts"]["given"]["psnr_rgb"] == 2
    _, out, err = program("eval", "sr", "hr")
    assert "given: psnr_rgb is infinite (equal pictures) and left out of the mean: coffee" in err


def test_csv_has_a_line_a_picture_and_method(program: Program, tiny_file: Path, originals: Path) -> None:
    code, out, _ = program("eval", "-m", tiny_file, "--data", originals, "--steps", "1,2", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert len(rows) == 9
    header = out.splitlines()[0].split(",")
    assert len(set(header)) == len(header)
    last = rows[-1]
    assert (last["picture"], last["method"], last["steps"], last["protocol"]) == ("coffee", "2 steps", "2", "all")
    assert float(last["psnr_y"]) > 5
    assert last["y"].endswith("crop 4")


def test_markdown(program: Program, originals: Path, tmp_path: Path) -> None:
    darker(originals, tmp_path / "sr", 5)
    code, out, _ = program("eval", "sr", "hr", "--markdown")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith("| mean of 3 | psnr_y |")
    assert re.match(r"\| given \| [\d.]+ \([\d.]+\.\.[\d.]+\) \|", lines[2])
    assert any(
        line.startswith("* lpips_alexnet: not measured, its weights were not found: --lpips-weights") for line in lines
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("hr hr --json --csv", "--json, --csv and --markdown exclude each other"),
        ("hr hr --protocol dream --crop 4", "--protocol dream measures whole pictures"),
        ("-m MODEL --data hr --steps 1 --sweep steps=2", "steps are given by --steps and by --sweep"),
        ("-m MODEL --data hr --sweep stepz=1", "did you mean 'steps'?"),
        ("-m MODEL --data hr --sweep steps=0", "--steps is 0"),
        ("-m MODEL --data hr --against nothing", "model 'nothing' is unknown"),
        ("hr hr --against empty", "no picture of hr and empty has a partner"),
        ("-m MODEL --data hr hr", "hr and --model, --data are given"),
        ("hr hr --steps 2", "--steps is for models; these pictures are there already"),
        ("hr hr --seed 1", "--seed is for models"),
        ("hr hr --sweep fidelity=0,1", "--sweep is for models"),
        ("hr hr --degradation photo", "--degradation makes inputs for bicubic, which takes a --scale"),
        ("hr hr --low hr", "--low goes with --model and --data"),
        ("-m MODEL --data hr --low hr --degradation photo", "--low goes with --model and --data"),
        ("-m MODEL --data hr --low hr --scale 2.5", "--low has pictures of a whole scale, --scale is 2.5"),
        ("-m MODEL --data hr --low empty", "no picture of empty has a partner of the same name in hr"),
    ],
)
def test_wrong_usage(arguments: str, words: str, program: Program, tiny_file: Path, originals: Path) -> None:
    Path("empty").mkdir()
    code, out, err = program("eval", *arguments.replace("MODEL", str(tiny_file)).split())
    assert (code, out) == (2, "")
    assert words in err
    assert sum(line.startswith("error:") for line in err.splitlines()) == 1


def test_a_page_holds_everything(program: Program, tiny_file: Path, originals: Path) -> None:
    """Tables, notes and pictures in one file that names no other."""
    model = ("-m", tiny_file, "--data", originals, "--steps", 1)
    small(originals / "<b>&.png", images.read(originals / "coffee.png").color)
    code, _, err = program("eval", *model, "--html", "report.html")
    assert code == 0, err
    text = Path("report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)|@import|url\(|https?://", text)
    assert text.count("data:image/jpeg;base64,") == 16
    assert "&lt;b&gt;&amp;: PSNR-Y" in text
    assert "not measured, its weights were not found" in text
    assert "<b>&" not in text
    assert len(text) < 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes there")
def test_bars_in_names_are_no_columns() -> None:
    found = Evaluation([Row("a", "x|y", {"psnr_y": 30.0})], {}, {"x|y": {}})
    assert "| x\\|y | 30.00 |" in evaluation.to_markdown(found)


def test_the_best_pictures_have_the_least_lpips(program: Program, originals: Path, shared_metrics: Path) -> None:
    darker(originals, Path("sr"), 25)
    words = ("--lpips-weights", shared_metrics / "lpips-alex.safetensors", "--html", "r.html")
    assert program("eval", "sr", "hr", *words)[0] == 0
    ends = re.findall(r"LPIPS \(AlexNet\) ([\d.]+), among the (best|worst)", Path("r.html").read_text())
    assert [end for _, end in ends] == ["best", "best", "worst"]
    assert ends == sorted(ends)


def test_a_page_shows_where_a_picture_errs_most() -> None:
    error = torch.zeros(1, 700, 1300)
    error[:, 600:610, 900:910] = 1
    _, rows, columns = reports._worst_part(error)
    assert float(error[:, rows, columns].sum()) == 100


@pytest.mark.parametrize("width", [0.0, 0.003, 1.0, 1.5, 1.9, 2.1, 3.0, 4.4, 5.0, 7.0, 9.0, 120.0])
def test_the_axes_of_a_page_have_a_few_round_values(width: float, tmp_path: Path) -> None:
    points = [Point(str(x), x, x, (x, x), (x, x)) for x in (27.3, 27.3 + width)]
    page.write(tmp_path / "a.html", Page("title", "summary", plot=Plot("plot", "x", "y", points)))
    text = (tmp_path / "a.html").read_text()
    for anchor in ("middle", "end"):
        ticks = re.findall(rf'text-anchor="{anchor}">(-?[\d.]+)</text>', text)
        assert 3 <= len(ticks) <= 10


def test_points_lie_on_the_axes_of_a_page(tmp_path: Path) -> None:
    points = [Point(str(x), x, 10 * x, (x, x), (10 * x, 10 * x)) for x in (27.0, 28.0, 31.0)]
    page.write(tmp_path / "a.html", Page("title", "summary", plot=Plot("plot", "x", "y", points)))
    text = (tmp_path / "a.html").read_text()
    placed = zip(*re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', text), strict=True)
    for axis, factor, tick in (
        ("x", 1, r'<text x="([\d.]+)" y="[\d.]+" text-anchor="middle">([\d.]+)<'),
        ("y", 10, r'y1="([\d.]+)" y2="[\d.]+"/>\n<text .* text-anchor="end">([\d.]+)<'),
    ):
        low, middle, high = map(float, next(placed))
        assert abs(high - low) > 250, axis
        assert middle == pytest.approx(low + (high - low) / 4, abs=0.1)
        for place, value in re.findall(tick, text):
            assert float(place) == pytest.approx(low + (high - low) * (float(value) / factor - 27) / 4, abs=0.1)


def test_a_page_with_a_name_that_is_no_utf8(program: Program, tiny_file: Path) -> None:
    small(Path(os.fsdecode(b"in/caf\xe9.png")))
    code, out, err = program("upscale", "in", "out", "-m", tiny_file, "--steps", 1, "--report", "r.html", "--json")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["summary"]["done"] == 1
    assert "caf?.png" in Path("r.html").read_text()


def test_a_page_of_large_pictures_is_bounded(program: Program, tmp_path: Path) -> None:
    small(tmp_path / "hr" / "a.png", torch.rand(3, 1000, 1200) * 2 - 1)
    small(tmp_path / "sr" / "a.png", torch.rand(3, 1000, 1200) * 2 - 1)
    assert program("eval", "sr", "hr", "--protocol", "dream", "--html", "report.html")[0] == 0
    text = Path("report.html").read_text()
    assert re.findall(r'width="(\d+)" alt', text) == ["432"] * 3
    assert len(text) < 3 * 2**20


def test_a_page_of_a_job(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    for i in range(6):
        small(tmp_path / "in" / f"{i}.png")
    (tmp_path / "in" / "broken.png").write_bytes(b"words")
    code, _, err = program("upscale", "in", "out", "-m", tiny_file, "--steps", 1, "--report", "report.html")
    assert code == 1, err
    text = Path("report.html").read_text()
    assert "6 done, 1 failed" in text
    assert "in/broken.png is not a PNG" in text
    assert text.count("data:image/jpeg;base64,") == 8
    assert text.count("<td>120x80</td>") == 6


def test_the_before_of_a_job_is_the_enlarged_input() -> None:
    """A part of the whole enlargement, where it starts at a fraction of a pixel."""
    picture, made = photo("chelsea")[:, 100:140, 100:160], torch.rand(3, 100, 150) * 2 - 1
    whole, same = images.halves(picture, made, 150)
    assert torch.equal(same, made)
    part, middle = images.halves(picture, made, 61)
    assert torch.equal(middle, made[:, 19:80, 44:105])
    inner = (whole[:, 19:80, 44:105] - part)[:, 8:-8, 8:-8] * 127.5
    assert float(inner.abs().mean()) < 0.1
    beside = (whole[:, 19:80, 45:106] - part)[:, 8:-8, 8:-8] * 127.5
    assert float(beside.abs().mean()) > 1


@pytest.mark.slow
def test_the_slider_moves_in_a_browser(program: Program, tiny_file: Path, originals: Path, tmp_path: Path) -> None:
    assert program("eval", "-m", tiny_file, "--data", originals, "--html", "report.html")[0] == 0
    with browser(tmp_path / "profile") as chromium:
        chromium.open(Path("report.html"))
        assert chromium.run("return [...document.images].every(x => x.complete && x.naturalWidth > 0)")
        assert chromium.run("return document.documentElement.scrollWidth <= window.innerWidth")
        edge = "return document.querySelector('.edge').getBoundingClientRect().left"
        before = chromium.run(edge)
        chromium.press(chromium.element(".slider input"), "\ue012" * 10)  # arrow left
        assert (
            chromium.run("return getComputedStyle(document.querySelector('.slider')).getPropertyValue('--at')") == "40%"
        )
        width = chromium.run("return document.querySelector('.stack').clientWidth")
        assert chromium.run(edge) - before == pytest.approx(-width / 10, abs=1)
        chromium.screenshot(tmp_path / "page.png")
    assert images.read(tmp_path / "page.png").size[1] >= 1000


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_names_that_are_not_utf_8(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    small(tmp_path / os.fsdecode(b"hr/bad\xff.png"))
    code, _, err = program("eval", "-m", tiny_file, "--data", tmp_path / "hr", "--degradation", "photo", "--steps", 1)
    assert code == 0, err
