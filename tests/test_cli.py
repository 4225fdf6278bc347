"""The program as people run it: `main` in this process, its words, exit codes and files."""

import hashlib
import io
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import photo
from PIL import Image, ImageCms
from programs import PROGRAM, Program, killed, load, small, visible
from rich.console import Console
from safetensors.torch import save_file

from dreamsr.cli import console, options, train
from dreamsr.config import NetworkConfig
from dreamsr.engine import device, tuner
from dreamsr.errors import UsageError
from dreamsr.files import checkpoint, images
from dreamsr.files.checkpoint import Model
from dreamsr.files.images import Picture


def test_a_single_file_gets_a_name_beside_it(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    source = small(tmp_path / "in" / "cat.jpg")
    code, out, err = program("upscale", source, "-m", tiny_file, "--steps", 2)
    assert (code, out) == (0, "")
    assert load(tmp_path / "in" / "cat_x4.png").size == (120, 80)
    assert "device: CPU" in err
    assert "1 done" in err


def test_a_folder_keeps_its_tree_and_formats(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    for name in ("a.png", "sub/b.jpg", "sub/deep/c.webp", "sub/a.png", "D.JPEG", "e.avif", "f.jfif"):
        small(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    code, _, err = program("upscale", "in", "out", "-m", tiny_file, "--steps", 1)
    assert code == 0, err
    assert visible("out") == ["D.JPEG", "a.png", "e.avif", "f.jfif", "sub/a.png", "sub/b.jpg", "sub/deep/c.webp"]
    formats = {Path(name).name: load(f"out/{name}").format for name in visible("out")}
    jpeg = dict.fromkeys(("b.jpg", "D.JPEG", "f.jfif"), "JPEG")
    assert formats == {"a.png": "PNG", "c.webp": "WEBP", "e.avif": "AVIF"} | jpeg
    assert "[7/7]" in err
    assert "left out: 1 .txt" in err


def test_existing_outputs_are_skipped_and_said_so(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    small(tmp_path / "in" / "a.png")
    small(tmp_path / "in" / "b.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_bytes(b"mine")
    code, _, err = program("upscale", "in", "out", "-m", tiny_file, "--steps", 1)
    assert code == 0
    assert "skipped" in err
    assert "1 done, 1 skipped" in err
    assert Path("out/a.png").read_bytes() == b"mine"
    assert program("upscale", "in", "out", "-m", tiny_file, "--steps", 1, "--overwrite")[0] == 0
    assert load("out/a.png").size == (120, 80)


def test_several_pictures_and_folders(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg", "in/c.png"):
        small(tmp_path / name)
    job = ("upscale", "a.png", "b.jpg", "in")
    assert program(*job, "out", "-m", tiny_file, "--steps", 1)[0] == 0
    assert visible("out") == ["a.png", "b.jpg", "in/c.png"]
    code, _, err = program(*job, "-o", "out", "-m", tiny_file, "--steps", 1)
    assert (code, "3 skipped" in err) == (0, True)


def test_names_are_no_markup(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    small(tmp_path / "in" / "[bold]a.png")
    (tmp_path / "in" / "[red]b.png").write_bytes(b"no picture")
    code, _, err = program("upscale", "in", "out", "-m", tiny_file, "--steps", 1)
    assert code == 1
    assert "] in/[bold]a.png -> out/[bold]a.png 120x80" in err
    assert "failed: in/[red]b.png: is not a PNG" in err


def test_a_broken_file_is_reported_and_the_rest_is_done(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    for name in ("a.png", "z.png"):
        small(tmp_path / "in" / name)
    whole = (tmp_path / "in" / "a.png").read_bytes()
    broken = {"empty.png": b"", "text.jpg": b"words", "cut.png": whole[: len(whole) // 2]}
    for name, content in broken.items():
        (tmp_path / "in" / name).write_bytes(content)
    code, _, err = program("upscale", "in", "out", "-m", tiny_file, "--steps", 1)
    assert code == 1
    assert "2 done, 3 failed" in err
    for words in ("in/empty.png is empty", "in/text.jpg is not a PNG", "in/cut.png cannot be read"):
        assert words in err
    assert visible("out") == ["a.png", "z.png"]
    for name, content in broken.items():
        assert (tmp_path / "in" / name).read_bytes() == content


def test_quiet_says_what_went_wrong_alone(program: Program, photos: Path, tmp_path: Path) -> None:
    small(tmp_path / "in" / "a.png")
    job = ("upscale", "in", "out", "-m", "bicubic-x4", "--steps", 1, "--quiet")
    assert program(*job) == (0, "", "")
    (tmp_path / "in" / "b.png").write_bytes(b"words")
    code, out, err = program(*job)
    assert (code, out) == (1, "")
    assert [line[:7] for line in err.splitlines()] == ["failed:"]
    code, out, err = program("upscale", "in", "out", "-m", "no-such-model", "-q")
    assert (code, out, err[:6]) == (2, "", "error:")
    short = ["steps=2", "batch=2", "crop=32", "model.network.widths=[8]", "model.network.encoder_blocks=0"]
    assert program("train", "--data", photos, "--out", "run", "-q", *short) == (0, "", "")


def test_gray_alpha_orientation(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    base = images.to_pil(Picture(photo("chelsea")[:, :20, :30]))
    base.convert("L").save(folder / "gray.jpg")
    transparent = base.copy()
    transparent.putalpha(Image.linear_gradient("L").resize(base.size))
    transparent.save(folder / "alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    base.save(folder / "turned.jpg", exif=exif)
    assert program("upscale", "in", "out", "-m", tiny_file, "--steps", 1)[0] == 0
    assert load("out/gray.jpg").mode == "L"
    alpha = load("out/alpha.png")
    assert alpha.mode == "RGBA"
    again = alpha.getchannel("A").resize(base.size, Image.Resampling.BICUBIC)
    expected = transparent.getchannel("A")
    assert max(abs(a - b) for a, b in zip(again.tobytes(), expected.tobytes(), strict=True)) <= 6
    turned = load("out/turned.jpg")
    assert turned.size == (80, 120)
    assert turned.getexif()[0x0112] == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 3)])
def test_tiny_pictures(size: tuple[int, int], program: Program, tiny_file: Path, tmp_path: Path) -> None:
    small(tmp_path / "a.png", torch.rand(3, *size) * 2 - 1)
    assert program("upscale", "a.png", "-o", "out.webp", "-m", tiny_file)[0] == 0
    assert load("out.webp").size == (4 * size[1], 4 * size[0])


def test_results_do_not_depend_on_the_folder(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    for i, name in enumerate(("a", "b", "c", "d")):
        small(tmp_path / "in" / f"{name}.png", photo("coffee")[:, 10 * i : 30 + 10 * i, : 40 - 5 * i])
    program("upscale", "in", "out", "-m", tiny_file, "--sampler", "ddpm")
    program("upscale", "in/c.png", "c.png", "-m", tiny_file, "--sampler", "ddpm")
    assert Path("out/c.png").read_bytes() == Path("c.png").read_bytes()


def test_format(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    small(tmp_path / "in" / "a.jpg")
    assert program("upscale", "in", "out", "-f", "webp", "-m", tiny_file, "--steps", 1)[0] == 0
    assert visible("out") == ["a.webp"]


def test_alpha_does_not_fit_into_jpeg(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    images.write(tmp_path / "a.png", Picture(torch.zeros(3, 9, 9), torch.zeros(1, 9, 9)))
    code, _, err = program("upscale", "a.png", "a.jpg", "-m", tiny_file, "--steps", 1)
    assert code == 1
    assert "JPEG has no transparency" in err
    assert not Path("a.jpg").exists()


def bad_inputs(folder: Path) -> None:
    """A folder of pictures, a file where a folder should be, and checkpoints of other kinds."""
    small(folder / "in" / "a.png")
    small(folder / "in" / "a.jpg")
    small(folder / "one" / "a.png")
    (folder / "file").write_text("a file")
    (folder / "empty").mkdir()
    (folder / "bad.toml").write_text("steps =")
    (folder / "model.pth").write_bytes(pickle.dumps({"w": 1}))
    (folder / "model.safetensors").write_bytes(b"not a checkpoint")
    save_file({"w": torch.zeros(1)}, folder / "other.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("upscale in out --steps 0", 2, "--steps is 0; expected a whole number of at least 1"),
        ("upscale in out --steps -5", 2, "--steps is -5"),
        ("upscale in out --steps many", 2, "--steps"),
        ("upscale in out --sampler euler", 2, "sampler 'euler' is unknown"),
        ("upscale in out --model nothing", 2, "model 'nothing' is unknown"),
        ("upscale in out --model none.safetensors", 2, "there is no file none.safetensors"),
        ("upscale in out --model model.pth", 1, "model.pth is not a safetensors file"),
        ("upscale in out --model model.safetensors", 1, "model.safetensors is not a safetensors file"),
        ("upscale in out --model other.safetensors", 1, "other.safetensors is not a dreamsr checkpoint"),
        ("upscale in/a.png file/b.png", 2, "file is a file; expected a folder"),
        ("upscale in/a.png out.png -f jpg", 2, "out.png does not end with .jpg"),
        ("upscale in out --scale 5", 2, "--scale is 5; this model makes 1 to 4"),
        ("upscale in out --scale 0.5", 2, "--scale is 0.5"),
        ("upscale in out --tile 100", 2, "--tile is 100; expected a multiple of 8 above 96"),
        ("upscale in out --batch-size 0", 2, "--batch-size is 0"),
        ("upscale in out --threads 100000", 2, "--threads is 100000; expected a whole number from 1 to 1024"),
        ("eval in in --html in/a.png", 2, "a page would be written to in/a.png"),
        ("export bicubic-x4 a.safetensors scale=2", 2, "bicubic-x4 makes x4, not x2"),
        ("export bicubic-x4 a.onnx scale=2", 2, "bicubic-x4 makes x4, not x2"),
        ("export photo-x4 a.safetensors scale=9", 2, "photo-x4 makes x2 to x4, not x2 to x9"),
        ("export photo-x4 a.safetensors smallest_scale=1", 2, "photo-x4 makes x2 to x4, not x1 to x4"),
        ("export bicubic-x4 a.safetensors sampling.sampler=resshift", 2, "is made for ResShift's process"),
        ("export bicubic-x4 a.safetensors name=", 2, "name is ''; expected a line of text"),
        ("upscale in out --device cuda:99", 2, "device 'cuda:99' cannot be used"),
        ("upscale in out --device toaster", 2, "device 'toaster' cannot be used"),
        ("upscale in out --dtype fp8", 2, "dtype 'fp8' is unknown"),
        ("upscale in file", 2, "file is a file; expected a folder"),
        ("upscale in file/sub", 2, "file is a file; expected a folder"),
        ("upscale in in/out", 2, "in/out lies inside in"),
        ("upscale in in", 2, "in is the input folder, too"),
        ("upscale in", 2, "in is a folder; say where to write"),
        ("upscale in out -o out", 2, "out does not exist"),
        ("upscale in in/a.png file", 2, "file is a file; expected a folder"),
        ("upscale in/a.png in in/out", 2, "in/out lies inside in"),
        ("upscale in/a.png one/a.png out", 2, "would both become out/a.png"),
        ("upscale in/a.png in/a.png", 2, "in/a.png would overwrite an original"),
        ("upscale in/a.png out.gif", 2, "out.gif has no suffix that is written"),
        ("upscale missing out", 2, "missing does not exist"),
        ("upscale empty out", 2, "no PNG, JPEG, WebP, AVIF, HEIC, TIFF or BMP picture in empty"),
        ("upscale in out --colour", 2, "--colour"),
        ("train --out run", 2, "no photos to train on"),
        ("train --data in --out run model.name=", 2, "model.name is ''; expected a line of text"),
        ("info other.safetensors", 2, "other.safetensors is no picture"),
        ("info in", 1, "in cannot be read"),
        ("train --data in --out run stepz=5", 2, "unknown key 'stepz'"),
        ("train --data in --out run -c nothing", 2, "there is no preset and no file 'nothing'"),
        ("train --data in --out file", 2, "file is a file; expected a folder"),
        ("train --data empty --out run", 2, "no PNG, JPEG, WebP, AVIF, HEIC, TIFF or BMP picture in empty"),
        ("train --data in --out run --stop-after soon", 2, "'soon' is not a duration"),
        ("train --data in --out run --device toaster", 2, "device 'toaster' cannot be used"),
        ("train --data in --out run --dtype fp8", 2, "dtype 'fp8' is unknown"),
        ("train --data in --out run --dtype fp16", 2, "training in fp16 loses small gradients"),
        ("train --data in --val empty --out run", 2, "no PNG, JPEG, WebP, AVIF, HEIC, TIFF or BMP picture in empty"),
        ("train --data in --out run -c bad.toml", 2, "bad.toml is not valid TOML"),
        ("train --data in --out run seed=-1", 2, "seed is -1; expected at least 0"),
        (
            "train --data in --out run model.sampling.lambda_start=5 model.sampling.lambda_end=6",
            2,
            "back to more noise",
        ),
        ("train --data in --out run --init MODEL model.network.blocks=3", 2, "--init needs the network of the model"),
        ("train --data in --out run", 2, "photos can be trained on, in crops of 128x128"),
        ("train --data in --val in --out run", 2, "are held out by --val"),
        ("train --resume --out run", 2, "run holds no training run"),
        ("train --resume --out run -c texture", 2, "--resume goes on with the weights and the recipe"),
        ("eval in", 2, "nothing to measure"),
        ("eval one empty", 2, "no picture of one has a partner"),
        ("eval --model MODEL --data in --steps 0", 2, "--steps is '0'"),
        ("eval --model MODEL --data in --steps 4,x", 2, "--steps is '4,x'"),
        ("eval --model MODEL --data in --scale 5", 2, "--scale is 5; this model makes x4"),
        ("eval --model MODEL --data empty", 2, "no PNG, JPEG, WebP, AVIF, HEIC, TIFF or BMP picture in empty"),
        ("eval in/a.png in/a.png --lpips-weights none", 2, "there is no file none"),
        ("eval in/a.png in/a.png --lpips-weights other.safetensors", 1, "other.safetensors holds no LPIPS weights"),
        ("eval in in --scale 0", 2, "--scale is 0"),
        ("eval in in", 2, "have the same name; their partner would be ambiguous"),
        ("export MODEL out.pth", 2, "out.pth has no suffix .safetensors"),
        ("export MODEL out.safetensors --dtype int8", 2, "dtype 'int8' is unknown"),
        ("export MODEL out.safetensors --steps 4", 2, "--steps is for ONNX"),
        ("export MODEL out.onnx --format safetensors", 2, "out.onnx does not end with .safetensors"),
        ("export MODEL out --format onnx", 2, "out does not end with .onnx"),
        ("export MODEL out.onnx --steps 0", 2, "--steps is 0; expected a whole number of at least 1"),
        ("export MODEL out.onnx --steps 9", 2, "--steps is 9; a graph holds 1 to 8"),
        ("export MODEL out.onnx --dtype bf16", 2, "--dtype is 'bf16'; ONNX takes fp32 or fp16"),
        ("export MODEL out.onnx sampling.sampler=ddpm", 2, "sampler 'ddpm' draws noise at every step"),
        ("export MODEL out.safetensors colour=red", 2, "unknown key 'colour'"),
        ("export none.safetensors out.safetensors", 2, "there is no file none.safetensors"),
        ("export model.pth out.safetensors", 1, "model.pth is not a safetensors file"),
        ("export MODEL model.safetensors", 2, "model.safetensors exists"),
        ("export MODEL model.safetensors network.blocks=3 --overwrite", 2, "tiny.safetensors are of another network"),
    ],
)
def test_bad_input(arguments: str, code: int, words: str, program: Program, tiny_file: Path, tmp_path: Path) -> None:
    bad_inputs(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    named = arguments.replace("MODEL", str(tiny_file)).split()
    if named[0] == "upscale" and "--model" not in named:
        named += ["--model", str(tiny_file)]
    got, out, err = program(*named)
    assert (got, out) == (code, "")
    assert words in err
    assert "Traceback" not in err
    # an unknown option and a value that is no number are Typer's own messages, in a box
    if not {"--colour", "many"} & set(named):
        assert sum(line.startswith("error:") for line in err.splitlines()) == 1
        assert len(err.splitlines()) <= 4
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_file_that_cannot_be_written(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    small(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    (tmp_path / "b.png" / "a.png").mkdir()
    code, _, err = program("upscale", "a.png", "b.png", "-m", tiny_file, "--steps", 1, "--overwrite")
    assert code == 1
    assert "failed: b.png/a.png cannot be written" in err
    assert [p.name for p in (tmp_path / "b.png").iterdir()] == ["a.png"]


def test_a_corrected_second_try_works_after_a_wrong_start(program: Program, photos: Path) -> None:
    short = ["steps=1", "batch=2", "warmup=1", "model.network.widths=[8]"]
    assert program("train", "--data", photos, "--out", "run", *short)[0] == 2
    code, _, err = program("train", "--data", photos, "--out", "run", *short, "crop=32")
    assert code == 0, err


def test_a_name_without_a_known_suffix_is_read_all_the_same(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    small(tmp_path / "a.jpg").rename(tmp_path / "a.photo")
    assert program("upscale", "a.photo", "out/", "-m", tiny_file, "--steps", 1)[0] == 0
    assert load("out/a.png").size == (120, 80)


def test_train_eval_export_upscale(program: Program, photos: Path, tmp_path: Path) -> None:
    tiny = ["model.network.widths=[8, 16]", "model.network.blocks=1", "model.network.encoder_blocks=1"]
    short = ["steps=4", "batch=2", "crop=32", "val_every=2", "warmup=1"]
    shutil.copytree(photos, "val")
    code, out, err = program("train", "--data", photos, "--val", "val", "--out", "run", *short, *tiny)
    assert (code, out) == (0, ""), err
    assert "4 photos, 4 held out" in err
    assert "step 4: finished" in err
    assert re.search(r"step \d+/4  loss [\d.]+  lr \S+  images/s [\d.]+  left \d+:\d\d", err)
    Path("card.toml").write_text('licence = "mine"\ndate = 2026-01-02\n')
    settings = ["name=mine", "sampling.steps=2", "--card", "card.toml"]
    code, out, err = program("export", "run", "mine.safetensors", *settings)
    assert (code, out) == (0, "mine.safetensors\n"), err
    exported = checkpoint.load_model(Path("mine.safetensors"))
    assert (exported.card["licence"], exported.card["step"], exported.config.sampling.steps) == ("mine", 4, 2)
    _, state = checkpoint.load_state(Path("run/state.safetensors"))
    weights = exported.network.state_dict()
    assert all(torch.equal(weights[name], value.half().float()) for name, value in state["ema"].items())
    assert any(not torch.equal(weights[name], value.half().float()) for name, value in state["network"].items())
    Path("card.toml").write_text('licence = "another"\n')
    assert program("export", "mine.safetensors", "other.safetensors", "--card", "card.toml")[0] == 0
    other = checkpoint.load_model(Path("other.safetensors")).card
    assert (other["licence"], other["step"]) == ("another", 4)
    code, _, err = program("upscale", photos, "out", "-m", "mine.safetensors", "-s", "1")
    assert code == 0
    assert "with mine, 2 steps" in err
    code, out, _ = program("eval", "out", photos, "--json")
    document = json.loads(out)
    assert code == 0
    assert [row["picture"] for row in document["pictures"]] == ["astronaut", "chelsea", "coffee", "rocket"]
    assert set(document["means"]["given"]) == {
        f"{measure}_{color}" for measure in ("psnr", "ssim", "ms_ssim") for color in ("y", "rgb")
    }
    code, out, _ = program("eval", "-m", "run", "--data", photos, "--steps", "1,2")
    rows = [line.split("\t")[0] for line in out.splitlines()]
    assert (code, rows) == (0, ["mean of 4", "bicubic", "1 step", "2 steps"])
    code, _, err = program("train", "--resume", "--out", "run", "steps=6")
    assert code == 0
    assert "from step 4" in err
    still = ["steps=1", "batch=2", "crop=32", "lr=1e-30", "weight_decay=0"]
    code, _, err = program("train", "--data", photos, "--out", "warm", "--init", "mine.safetensors", *still)
    assert code == 0, err
    warm = checkpoint.load_model(Path("warm/model.safetensors"))
    assert all(torch.equal(value, weights[name]) for name, value in warm.network.state_dict().items())


def test_of_two_pictures_the_second_is_not_lost(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    """`upscale *.png --overwrite` where there are two: the second would be OUT."""
    before = [small(tmp_path / name).read_bytes() for name in ("a.png", "b.png")][1]
    job = ("upscale", "a.png", "b.png", "-m", tiny_file, "--steps", 1)
    code, _, err = program(*job, "--overwrite")
    assert code == 2
    assert "b.png exists, and nothing in it tells that dreamsr made it" in err
    assert "-o b.png --overwrite replaces it" in err
    code, _, err = program(*job)
    assert code == 0  # left as it is
    assert "a folder as the last argument takes any number" in err
    assert Path("b.png").read_bytes() == before
    assert program("upscale", "a.png", "-o", "b.png", "-m", tiny_file, "--steps", 1, "--overwrite")[0] == 0
    assert load("b.png").size == (120, 80)
    assert program(*job, "--overwrite")[0] == 0  # now it is an output
    small(tmp_path / "out" / "a.png")
    assert (
        program("upscale", "a.png", "out/", "-m", tiny_file, "--steps", 1, "--overwrite")[0] == 0
    )  # a folder is no photo


def test_a_run_that_is_called_as_a_bundled_model(program: Program, tiny_file: Path, photos: Path) -> None:
    """A name means the same model everywhere: the bundled one."""
    job = ("train", "--data", photos, "--init", tiny_file, "steps=1", "batch=2", "crop=32", "model.name=mine")
    assert program(*job, "--out", "photo-x4")[0] == 0
    assert program("export", "photo-x4", "a.safetensors")[0] == 0
    assert checkpoint.load_model(Path("a.safetensors")).config.name == "photo-x4"
    assert program("export", "./photo-x4", "b.safetensors")[0] == 0
    assert checkpoint.load_model(Path("b.safetensors")).config.name == "mine"


def test_what_was_tuned_can_be_sampled_or_is_not_exported(program: Program, tiny_model: Model) -> None:
    grid = tuner.tuned_grid(tiny_model, tuner.Candidate("ddim", (-3.0, 1.0)), "psnr", "photos")
    checkpoint.save_model(Path("tuned.safetensors"), tuner.with_tuned(tiny_model, [grid]), torch.float32)
    job = ("export", "tuned.safetensors", "out.safetensors", "process.lambda_noise=-2", "sampling.lambda_start=-2")
    code, _, err = program(*job)
    assert code == 2
    assert "what was tuned for 2 steps: the grid runs from lambda -3.000" in err
    assert not Path("out.safetensors").exists()
    assert program(*job, "sampling.tuned=[]")[0] == 0


def test_what_was_tuned_stays_with_its_weights(program: Program, tiny_model: Model, photos: Path) -> None:
    """A run that begins with them trains, and samples, with the levels of its configuration."""
    candidate = tuner.Candidate("ddim", (-3.0, -1.0, 0.5, 1.0), 1.1)
    grid = tuner.tuned_grid(tiny_model, candidate, "psnr", "photos")
    checkpoint.save_model(Path("tuned.safetensors"), tuner.with_tuned(tiny_model, [grid]), torch.float32)
    job = ["train", "-c", "texture", "--data", photos, "--out", "run", "--init", "tuned.safetensors"]
    code, _, err = program(*job, "steps=1", "batch=2", "crop=32")
    assert code == 0, err
    config = json.loads(Path("run/run.json").read_text())["config"]
    assert config["model"]["sampling"]["tuned"] == []
    assert config["energy"] > 0
    assert config["model"]["sampling"]["sampler"] == "unipc"


def test_a_model_of_one_scale_becomes_one_of_many(program: Program, tiny_file: Path, photos: Path) -> None:
    """Only what is told of the scale is new; a model that knows it is not made one that does not."""
    short = ["steps=1", "batch=2", "crop=32", "lr=1e-30", "weight_decay=0"]
    job = ["train", "--data", photos, "-c", "many-scales"]
    code, _, err = program(*job, "--out", "run", "--init", tiny_file, *short)
    assert code == 0, err
    before, after = checkpoint.load_model(tiny_file), checkpoint.load_model(Path("run/model.safetensors"))
    assert after.config.scales == "x1.5 to x4"
    learned, weights = after.network.state_dict(), before.network.state_dict()
    assert all(torch.equal(learned[name], value.half().float()) for name, value in weights.items())
    assert {name.split(".")[0] for name in learned.keys() - weights.keys()} == {"scale"}
    back = ["--init", "run", "model.network.scale_embedding=false"]
    code, _, err = program(*job, "--out", "back", *back, *short)
    assert code == 2
    assert "--init needs the network of the model" in err


def test_a_model_goes_on_with_a_longer_encoder(program: Program, tiny_file: Path, photos: Path) -> None:
    before = checkpoint.load_model(tiny_file)
    assert isinstance(before.config.network, NetworkConfig)
    blocks = before.config.network.encoder_blocks
    job = [
        "train",
        "--data",
        photos,
        "--init",
        tiny_file,
        "steps=1",
        "batch=2",
        "crop=32",
        "lr=1e-30",
        "weight_decay=0",
    ]
    code, _, err = program(*job, "--out", "run", f"model.network.encoder_blocks={blocks + 1}")
    assert code == 0, err
    after = checkpoint.load_model(Path("run/model.safetensors"))
    assert after.config.network == replace(before.config.network, encoder_blocks=blocks + 1)
    learned, weights = after.network.state_dict(), before.network.state_dict()
    assert all(torch.equal(learned[name], value.half().float()) for name, value in weights.items())
    for changes in (f"model.network.encoder_blocks={blocks - 1}", "model.network.blocks=3"):
        code, _, err = program(*job, "--out", "other", changes)
        assert code == 2
        assert "or one with more encoder_blocks" in err


@pytest.mark.parametrize("preset", ["bicubic-x4", "fine-tune", "many-scales"])
def test_a_model_of_many_scales_learns_from_pairs_of_one(preset: str, program: Program, tiny_model: Model) -> None:
    for i in range(2):
        small(Path(f"high/{i}.png"), photo("coffee")[:, :64, 64 * i : 64 * i + 64])
        small(Path(f"low/{i}.png"), photo("coffee")[:, :16, 16 * i : 16 * i + 16])
    free = replace(tiny_model, config=replace(tiny_model.config, smallest_scale=1.5))
    checkpoint.save_model(Path("free.safetensors"), free, torch.float32)
    job = ["train", "-c", preset, "--data", "high", "--low", "low", "--init", "free.safetensors"]
    code, _, err = program(*job, "--out", "run", "steps=1", "batch=2", "crop=32")
    assert code == 0, err
    config = checkpoint.load_model(Path("run/model.safetensors")).config
    assert (config.scales, config.degradation) == ("x4", "pairs")


def test_a_run_on_a_single_photo_goes_on(program: Program, photos: Path) -> None:
    one, other, *_ = sorted(photos.iterdir())
    short = ["steps=1", "batch=2", "crop=32", "model.network.widths=[8]"]
    code, _, err = program("train", "--data", one, "--val", other, "--out", "run", *short)
    assert code == 0, err
    code, _, err = program("train", "--resume", "--out", "run", "steps=2")
    assert code == 0, err
    assert "from step 1" in err
    code, _, err = program("info", "run")
    assert code == 2
    assert "hint: what a model is: dreamsr models info run" in err


def test_stop_after_and_a_configuration_file(program: Program, photos: Path) -> None:
    Path("mine.toml").write_text("batch = 2\ncrop = 32\nsteps = 1000\n[model.network]\nwidths = [8]\n")
    code, _, err = program("train", "--data", photos, "--out", "run", "-c", "mine.toml", "--stop-after", "0s")
    assert code == 0, err
    assert "step 1: saved" in err
    code, _, err = program("train", "--resume", "--out", "run", "steps=2")
    assert code == 0, err
    assert "from step 1" in err
    assert "step 2: finished" in err
    moved = photos.rename("moved")
    code, _, err = program("train", "--resume", "--out", "run", "steps=3")
    assert code == 2
    assert f"there is no folder {photos}, where photos of the run were" in err
    assert "--resume --data FOLDER" in err
    code, _, err = program("train", "--resume", "--out", "run", "--data", moved, "steps=3")
    assert code == 0, err
    small(moved / "another.png")
    code, _, err = program("train", "--resume", "--out", "run", "steps=4")
    assert code == 2
    assert "are not those that the run began with" in err
    Path("run/run.json").write_text("{")
    code, _, err = program("train", "--resume", "--out", "run", "steps=4")
    assert code == 2
    assert "run/run.json, which describes the run, cannot be read" in err


def test_a_model_is_called_as_the_folder_of_its_run(program: Program, tiny_file: Path, photos: Path) -> None:
    Path("own.toml").write_text("model.name = 'own'")
    job = ("train", "--data", photos, "--init", tiny_file, "steps=1", "batch=2", "crop=32")
    for out, words, name in (
        ("a", [], "a"),
        ("x/../b/", ["-c", "bicubic-x4"], "b"),
        ("c", ["-c", "own.toml"], "own"),
        ("👨‍👩‍👧 　x", [], "👨‍👩‍👧 x"),
        ("d", ["-c", "own.toml", "model.name=7"], "7"),
    ):
        code, _, err = program(*job, "--out", out, *words)
        assert code == 0, err
        assert checkpoint.load_model(Path(out, "model.safetensors")).config.name == name


def test_a_finish_of_nothing_is_warned_of(program: Program, tiny_file: Path, photos: Path) -> None:
    tiny = ["model.network.widths=[8, 16]", "model.network.blocks=1", "model.network.encoder_blocks=1"]
    job = ("train", "-c", "fine-tune", "--data", photos, "steps=1", "batch=2", "crop=32")
    for out, words, warned in (("a", tiny, True), ("b", ["--init", tiny_file], False)):
        code, _, err = program(*job, "--out", out, *words)
        assert (code, "warning: fine-tune goes on with a trained model" in err) == (0, warned), err


def test_a_resumed_run_keeps_its_precision_and_its_recipe(program: Program, photos: Path) -> None:
    tiny = ("batch=2", "crop=32", "model.network.widths=[8]")
    for dtype in ("fp32", "bf16"):
        code, _, err = program("train", "--data", photos, "--out", dtype, "--dtype", dtype, *tiny, "steps=1")
        assert code == 0, err
        code, _, err = program("train", "--resume", "--out", dtype, "steps=2")
        assert code == 0, err
        assert re.search(rf"^device: CPU, \d+ threads?, {dtype}$", err, re.MULTILINE)
    code, _, err = program("train", "--resume", "--out", "bf16", "--dtype", "fp32", "steps=3")
    assert re.search(r"^device: CPU, \d+ threads?, fp32$", err, re.MULTILINE)
    code, _, err = program("train", "--resume", "--out", "bf16", "-c", "photo-x4", "steps=3")
    assert code == 2
    assert "leave out --init and --config" in err


def test_fifty_steps_on_twenty_pictures(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    for i in range(20):
        small(tmp_path / "in" / f"{i:02}.png", photo("coffee")[:, i : i + 8, :9])
    code, _, err = program("upscale", "in", "out", "--steps", 50, "-m", tiny_file)
    assert code == 0
    assert "20 done" in err
    assert re.search(r"\[20/20\] .* \([\d.]+ MP/s, \d+:\d\d left\)", err)


def test_camera_metadata_survives_every_way(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    """Exif and GPS in their own directories, as cameras write them, at x4 and reduced to x2."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    exif.get_ifd(0x8769)[0x9003] = "2026:01:02 03:04:05"
    exif.get_ifd(0x8825)[1] = "N"
    images.to_pil(Picture(photo("chelsea")[:, :20, :30])).save("a.jpg", exif=exif, icc_profile=profile)
    for scale in (4, 2):
        assert program("upscale", "a.jpg", f"x{scale}.png", "-s", scale, "-m", tiny_file, "--steps", 1)[0] == 0
        made = load(f"x{scale}.png")
        assert made.info["icc_profile"] == profile
        assert made.getexif()[0x010F] == "a camera"
        assert made.getexif().get_ifd(0x8769)[0x9003] == "2026:01:02 03:04:05"
        assert made.getexif().get_ifd(0x8825)[1] == "N"
    reduced = load("x4.png").resize((60, 40), Image.Resampling.BICUBIC)
    assert load("x2.png").tobytes() == reduced.tobytes()


def test_a_terminal_gets_a_bar_and_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(console, "_talk", Console(file=screen, force_terminal=True, width=100, no_color=True))
    with console.progress(3, "pictures") as advance:
        advance("a.png", "skipped: a.png", remark=True, idle=True)
        advance("b.png", "b.png -> out/b.png")
    with console.board() as board:
        board({"step": "1/5", "loss": "0.5"})
    shown = screen.getvalue()
    assert "skipped: a.png" in shown
    assert "2/3" in shown
    assert re.search(r"[\d.]+ pictures/s, \d+:\d\d left", shown)
    assert "loss" in shown
    assert "b.png -> out/b.png" not in shown


def test_a_wide_table_is_turned_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("COLUMNS", "80")
    keys = [f"measure {i}" for i in range(12)]
    console.table(["mean", *keys], [["one", *("1.2345 (1.1000..1.3000)" for _ in keys)]], turn=True)
    lines = screen.getvalue().splitlines()
    assert sum("1.2345 (1.1000..1.3000)" in line for line in lines) == 12
    assert all(len(line) <= 80 for line in lines if "1.2345" in line)


def test_every_control_character_is_visible() -> None:
    """The 65 of Unicode's category Cc, and nothing else."""
    changed = [code for code in range(0x3000) if console.visible(chr(code)) != chr(code)]
    assert changed == [code for code in range(0x3000) if unicodedata.category(chr(code)) == "Cc"]
    assert console.visible("a\tb\x00\x7f\x9f[é") == r"a\tb\x00\x7f\x9f[é"


def test_a_cell_of_a_table_is_one_field(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    console.table(["name", "size"], [["a\tb\n\x1b[2Jc", "[red]"]])
    assert capfd.readouterr().out.replace("\r", "") == "name\tsize\n" + r"a\tb\n\x1b[2Jc" + "\t[red]\n"
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdout", screen)
    console.table(["name"], [["a\n\x1b[2Jc[red]"]])
    assert r"a\n\x1b[2Jc[red]" in screen.getvalue()


@pytest.mark.skipif(os.name == "nt", reason="names have no control characters there")
def test_control_characters_of_names_reach_no_terminal(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    """A line stays a line, and what looks like a terminal's commands stays text."""
    small(tmp_path / "in" / "a\n\x1b[2Jb.png")
    code, _, err = program("upscale", "in", "out", "-m", tiny_file, "--steps", 1)
    assert code == 0
    assert r"a\n\x1b[2Jb.png" in err
    assert "\x1b" not in err
    code, out, _ = program("info", tmp_path / "out" / "a\n\x1b[2Jb.png")
    assert code == 0
    assert r"file: a\n\x1b[2Jb.png" in out.splitlines()
    assert "\x1b" not in out


def test_it_is_loud_when_cuda_is_missing(
    program: Program, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(tmp_path / "a.png")
    monkeypatch.setattr(device, "why_no_cuda", lambda: "there is a reason")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    _, _, err = program("upscale", "a.png", "b.png", "-m", tiny_file, "--steps", 1, "--device", "auto")
    assert "warning: CUDA is not used: there is a reason" in err
    assert re.search(r"device: \w+.*, (bf16|fp32)", err)


def test_eval_with_a_scale_measures_bicubic_beside(program: Program, tmp_path: Path) -> None:
    small(tmp_path / "hr" / "a.png", photo("chelsea")[:, :41, :62])
    code, out, err = program("eval", "hr", "hr", "--scale", 4, "--json")
    assert code == 0, err
    means = json.loads(out)["means"]
    assert set(means) == {"bicubic", "given"}
    assert means["given"]["psnr_lr"] is None
    assert means["bicubic"]["psnr_y"] < 45


def test_eval_names_what_has_no_partner(program: Program, tmp_path: Path) -> None:
    for name in ("sr/a.png", "sr/b.png", "hr/a.jpg", "hr/c.png"):
        small(tmp_path / name)
    code, out, err = program("eval", "sr", "hr")
    assert code == 0
    assert "sr/b.png has no partner" in err
    assert "hr/c.png has no partner" in err
    assert "mean of 1" in out


def test_eval_of_different_sizes_is_an_error(program: Program, tmp_path: Path) -> None:
    small(tmp_path / "sr" / "a.png")
    small(tmp_path / "hr" / "a.png", torch.zeros(3, 8, 9))
    code, _, err = program("eval", "sr", "hr")
    assert code == 1
    assert "sr/a.png is 30x20 and hr/a.png is 9x8" in err


def test_equal_pictures_survive_json(program: Program, tmp_path: Path) -> None:
    small(tmp_path / "hr" / "a.png")
    code, out, _ = program("eval", "hr", "hr", "--json")
    assert code == 0
    assert json.loads(out)["means"]["given"]["psnr_y"] is None


def test_models_lists_what_is_bundled(program: Program) -> None:
    code, out, _ = program("models")
    assert code == 0
    assert any(line.startswith("bicubic-x4\tx4\t") for line in out.splitlines())
    code, out, _ = program("models", "--json")
    assert json.loads(out)[0]["card"]["licence"] == "CC BY-SA 4.0"


def test_models_info_path_and_verify(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    code, out, _ = program("models", "info", "bicubic-x4")
    rows = dict(line.split("\t", 1) for line in out.splitlines())
    assert code == 0
    assert rows["licence"] == "CC BY-SA 4.0"
    assert rows["command"].startswith("dreamsr train")
    assert "28.43 dB" in rows["measured.Set5"]
    assert rows["model.process.k"] == "2.0"
    assert program("models", "path", "bicubic-x4")[1].strip() == rows["file"]
    assert program("models", "list") == program("models")
    code, out, err = program("models", "verify", tiny_file)
    assert (code, out.split()[1]) == (0, str(tiny_file))
    assert "no SHA-256 of it is recorded" in err
    copy = tmp_path / "copy" / tiny_file.name
    copy.parent.mkdir()
    copy.write_bytes(tiny_file.read_bytes())
    digest = hashlib.sha256(copy.read_bytes()).hexdigest()
    copy.with_name("SHA256SUMS").write_bytes(f"{digest.upper()} *./{copy.name}\n".encode() + b"\xff\n")
    code, _, err = program("models", "verify", copy)
    assert code == 0, err
    assert "as recorded" in err
    copy.with_name("SHA256SUMS").write_text(f"{'0' * 64}  {copy.name}\n")
    code, _, err = program("models", "verify", copy)
    assert code == 1
    assert f"recorded is {'0' * 64}" in err


def test_names_that_the_terminal_cannot_print(tiny_file: Path, tmp_path: Path) -> None:
    small(tmp_path / "in" / "a.png").rename(tmp_path / "in" / "\udcff.png")
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    command = [*PROGRAM, "upscale", "in", "out", "-m", str(tiny_file), "--device", "cpu", "--dry-run"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "in/\\udcff.png" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_behind_standard_output_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run([*PROGRAM, "models", "list", "--json"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 1
    assert ended.stderr == "error: cannot write to standard output: No space left on device\n"


@pytest.mark.skipif(os.name == "nt", reason="pipes end otherwise there")
def test_a_reader_that_has_enough_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        ended = subprocess.run([*PROGRAM, "models", "list", "--json"], stdout=pipe, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (1, "")


def test_pillow_keeps_its_limits_for_those_who_import_dreamsr() -> None:
    code = (
        "import PIL.Image\nbefore = PIL.Image.MAX_IMAGE_PIXELS\nimport dreamsr\ndreamsr.load()\n"
        "from dreamsr.files import images\nassert PIL.Image.MAX_IMAGE_PIXELS == before"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_version(program: Program) -> None:
    code, out, _ = program("--version")
    assert code == 0
    assert out.startswith("dreamsr 0.")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_training_saves_and_stops(number: signal.Signals, photos: Path, tmp_path: Path) -> None:
    tiny = ["model.network.widths=[8]", "model.network.blocks=1", "batch=2", "crop=32", "steps=100000"]
    command = [*PROGRAM, "train", "--data", str(photos), "--out", "run", *tiny]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process, killed(process):
        assert process.stderr
        for line in process.stderr:
            if line.startswith("step"):
                break
        process.send_signal(number)
        rest = process.stderr.read()
    assert process.returncode == 0, rest
    assert "saved" in rest
    assert (tmp_path / "run" / "state.safetensors").exists()


def test_ctrl_c_prints_nothing_in_the_middle_of_a_print(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffered files refuse a write from a signal handler that interrupted another."""
    said: list[str] = []
    monkeypatch.setattr(console, "say", said.append)
    with train.Stopper(None, alone=True) as stop:
        stop.listen()
        assert not stop()
        signal.raise_signal(signal.SIGINT)
        assert said == []
        assert stop()
        assert len(said) == 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_there_is_something_to_save_a_signal_ends_at_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with train.Stopper(None, alone=True), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    assert signal.getsignal(number) == before


def test_under_torchrun_a_signal_may_come_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the terminal, and passed on."""
    monkeypatch.setattr(console, "say", lambda _: None)
    with train.Stopper(None, alone=False) as stop:
        stop.listen()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert stop()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_while_upscaling_keeps_what_is_finished(tiny_file: Path, tmp_path: Path) -> None:
    for i in range(60):
        small(tmp_path / "in" / f"{i:02}.png", photo("coffee")[:, :100, :150])
    command = [*PROGRAM, "upscale", "in", "out", "-m", str(tiny_file), "--steps", "8"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process, killed(process):
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("out/*.png")):
            assert time.monotonic() < deadline, "no picture after two minutes"
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "finished pictures are kept" in err
    made = visible(tmp_path / "out")
    assert 0 < len(made) < 60
    assert all(name.endswith(".png") and images.read(tmp_path / "out" / name).size == (400, 600) for name in made)
    assert not list((tmp_path / "out").glob("*.part"))


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("25m", 1500), ("2h", 7200), ("1h30m", 5400), ("1m5s", 65)]
)
def test_durations(text: str, seconds: float) -> None:
    assert options.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "1d", "-5", "5 m"])
def test_no_durations(text: str) -> None:
    with pytest.raises(UsageError):
        options.seconds(text)
