"""How a picture was made, inside it; and `dreamsr info`."""

import hashlib
import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import photo
from PIL import Image
from programs import Program

from dreamsr.files import decode, images, provenance
from dreamsr.files.images import Metadata, Picture, Provenance

MADE = Provenance(
    software="dreamsr 1.2",
    model="some/model@main",
    model_sha256="ab" * 32,
    sampler="ddim",
    grid="auto",
    schedule="ddim, lambda -4 2",
    steps=4,
    fidelity=0.25,
    samples=1,
    consistency=0.0,
    seed=7,
    scale=3.5,
    tile=416,
    dtype="fp32",
    source="a cat.jpg",
    quality=20,
)
XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="5"/></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)
KINDS = [("png", 8), ("png", 16), ("tif", 8), ("tif", 16), ("jpg", 8), ("webp", 8), ("avif", 8)]
NAMES = ['Zoë & "friends" <1>.jpg', "it's.png", "日本語\U0001f600.webp", "a\x01\tb.png", "\udcff.png", "-f.png"]


@pytest.mark.parametrize("xmp", [b"", XMP])
@pytest.mark.parametrize("source", NAMES)
def test_it_comes_back(xmp: bytes, source: str) -> None:
    made = replace(MADE, source=source)
    packet = provenance.embed(xmp, made)
    found = provenance.extract(packet)
    readable = source.replace("\x01", "?").replace("\udcff", "?")
    assert found == replace(made, source=readable)
    assert provenance.removed(packet) == xmp
    assert (b'xmp:Rating="5"' in packet) == bool(xmp)


@pytest.mark.parametrize(
    "xmp", [b"", XMP, b"<x:xmpmeta", b"<a/>", b'<a xmlns:d="urn:dreamsr:provenance#" d:steps="4"/>']
)
def test_there_may_be_none(xmp: bytes) -> None:
    assert provenance.extract(xmp) is None


def test_other_programs_may_write_it_in_another_form() -> None:
    elements = "".join(f"<d:{k}>{v}</d:{k}>" for k, v in vars(MADE).items())
    packet = XMP.replace(b"</rdf:RDF>", f'<o xmlns:d="{provenance.NAMESPACE}">{elements}</o></rdf:RDF>'.encode())
    assert provenance.extract(packet) == MADE
    assert provenance.removed(packet) == packet.replace(elements.encode(), b"")


def test_what_others_wrote_into_the_same_element_stays() -> None:
    compact = b'<rdf:Description rdf:about="" xmlns:dreamsr="urn:dreamsr:provenance#" dreamsr:seed="1" xmp:Rating="4"/>'
    packet = XMP.replace(b"</rdf:RDF>", compact + b"</rdf:RDF>")
    rest = packet.replace(b' dreamsr:seed="1"', b"")
    assert provenance.removed(packet) == rest
    assert provenance.removed(provenance.embed(packet, MADE)) == rest


def test_nothing_is_left_where_others_broke_lines_or_renamed_the_prefix() -> None:
    packet = provenance.embed(XMP, MADE)
    assert provenance.removed(packet.replace(b" dreamsr:", b"\n   dreamsr:")) == XMP
    assert provenance.removed(packet.replace(b"xmlns:dreamsr", b"xmlns:ns1").replace(b" dreamsr:", b" ns1:")) == XMP


def test_names_do_not_become_options() -> None:
    assert replace(MADE, source="-f.png").command("-o.png").startswith("dreamsr upscale ./-f.png ./-o.png --model")


def test_the_command_writes_over_no_input() -> None:
    assert replace(MADE, source="a.png").command("a.png").startswith("dreamsr upscale a.png out/a.png --model")
    assert replace(MADE, source="a.png").command("b.png").startswith("dreamsr upscale a.png b.png --model")


@pytest.mark.parametrize(("suffix", "depth"), KINDS)
def test_every_format_holds_it(suffix: str, depth: int, tmp_path: Path) -> None:
    picture = Picture(photo("chelsea")[:, :8, :9], depth=depth, metadata=Metadata(xmp=XMP, provenance=MADE))
    images.write(tmp_path / f"a.{suffix}", picture)
    block = images.read(tmp_path / f"a.{suffix}").metadata
    assert block.provenance == MADE
    assert b'xmp:Rating="5"' in block.xmp
    images.write(tmp_path / f"b.{suffix}", replace(picture, metadata=replace(block, provenance=None)))
    assert b"dreamsr" not in (tmp_path / f"b.{suffix}").read_bytes()


def test_it_does_not_push_the_metadata_of_jpeg_out(tmp_path: Path) -> None:
    long = XMP.replace(b'"5"', b'"' + b"5" * 63_000 + b'"')
    block = Metadata(xmp=long, provenance=replace(MADE, source="n" * 255))
    assert images.write(tmp_path / "a.jpg", Picture(torch.zeros(3, 8, 8), metadata=block)) == ()
    assert images.read(tmp_path / "a.jpg").metadata == block
    longer = replace(block, xmp=XMP.replace(b'"5"', b'"' + b"5" * 64_500 + b'"'))
    said = images.write(tmp_path / "a.jpg", Picture(torch.zeros(3, 8, 8), metadata=longer))
    assert said == ("XMP is too long for JPEG and left out",)
    assert images.read(tmp_path / "a.jpg").metadata == replace(block, xmp=b"")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    images.write(tmp_path / "in" / "a cat.png", Picture(photo("chelsea")[:, :20, :30]))
    return tmp_path / "in" / "a cat.png"


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "avif", "tif"])
def test_the_command_makes_the_same_file_again(
    suffix: str, program: Program, picture: Path, tiny_file: Path, tmp_path: Path
) -> None:
    target = tmp_path / f"out.{suffix}"
    options = ["--grid", "-3,1", "--seed", 3, "-s", 3, "--sampler", "ddpm", "--tile", 128, "--fidelity", 0.3]
    options += ["--samples", 2, "--consistency", 0.5]
    assert program("upscale", picture, target, "-m", tiny_file, *options)[0] == 0
    first = target.read_bytes()
    assert str(tmp_path).encode() not in first
    code, out, err = program("info", target)
    assert (code, err) == (0, "")
    facts = dict(line.split(": ", 1) for line in out.splitlines())
    assert facts["model"] == "tiny.safetensors"
    assert facts["model_sha256"] == hashlib.sha256(tiny_file.read_bytes()).hexdigest()
    assert (facts["source"], facts["steps"], facts["seed"], facts["scale"]) == ("a cat.png", "2", "3", "3.0")
    assert (facts["sampler"], facts["grid"], facts["schedule"]) == ("ddpm", "-3,1", "ddpm, -3,1")
    assert (facts["fidelity"], facts["samples"], facts["consistency"]) == ("0.3", "2", "0.5")
    assert facts["software"].startswith("dreamsr ")
    assert (facts["size"], facts["mode"], facts["depth"]) == ("90x60", "RGB", "8")
    target.unlink()
    picture.rename(tmp_path / picture.name)
    assert program(*shlex.split(facts["command"])[1:])[0] == 0
    assert target.read_bytes() == first


def test_sizes_and_qualities_come_back(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    images.write(tmp_path / "a.png", Picture(photo("chelsea")[:, :300, :150].repeat(1, 1, 4)))
    job = ("upscale", "a.png", "out.jpg", "-m", tiny_file, "--steps", 1)
    assert program(*job, "--width", 1103, "--quality", 20)[0] == 0
    first = Path("out.jpg").read_bytes()
    command = shlex.split(provenance_of(program, "out.jpg")["command"])
    Path("out.jpg").unlink()
    assert program(*command[1:])[0] == 0
    assert Path("out.jpg").read_bytes() == first
    assert program("upscale", "a.png", "out.png", "-m", tiny_file, "--grid=-4,0", "--fidelity", 1)[0] == 0
    assert program(*shlex.split(provenance_of(program, "out.png")["command"])[1:], "--overwrite")[0] == 0


def provenance_of(program: Program, name: str) -> dict[str, str]:
    _, out, _ = program("info", name)
    return dict(line.split(": ", 1) for line in out.splitlines())


def test_a_quality_is_that_of_what_has_one(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg"):
        images.write(tmp_path / "in" / name, Picture(photo("chelsea")[:, :20, :30]))
    assert program("upscale", "in", "out", "-m", tiny_file, "--steps", 1, "--quality", 50)[0] == 0
    made = [images.read(tmp_path / "out" / name).metadata.provenance for name in ("a.png", "b.jpg")]
    assert [found and found.quality for found in made] == [None, 50]


def test_it_can_be_left_out(program: Program, picture: Path, tiny_file: Path) -> None:
    made = ["upscale", picture, "-m", tiny_file, "--steps", 1]
    assert program(*made, "-o", "a.png")[0] == 0
    # neither that of this run nor that of an earlier one
    assert program("upscale", "a.png", "b.png", "-m", tiny_file, "--steps", 1, "--no-provenance")[0] == 0
    assert b"dreamsr" not in Path("b.png").read_bytes()
    code, out, err = program("info", "b.png")
    assert code == 0
    assert "no provenance" in err
    assert out.splitlines() == [
        "file: b.png",
        "format: PNG",
        "size: 480x320",
        "mode: RGB",
        "depth: 8",
        "metadata: none",
    ]


def test_stripping_leaves_provenance_and_profile(program: Program, tiny_file: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    images.write(Path("a.jpg"), Picture(torch.zeros(3, 9, 9), metadata=Metadata(b"icc", exif.tobytes(), XMP, (72, 72))))
    assert program("upscale", "a.jpg", "b.jpg", "-m", tiny_file, "--steps", 1, "--strip-metadata")[0] == 0
    block = images.read(Path("b.jpg")).metadata
    assert block.kinds == ("ICC",)
    first, command = Path("b.jpg").read_bytes(), provenance_of(program, "b.jpg")["command"]
    Path("b.jpg").unlink()
    assert program(*shlex.split(command)[1:])[0] == 0
    assert Path("b.jpg").read_bytes() == first


def test_a_run_is_called_as_its_folder(program: Program, picture: Path, tiny_file: Path) -> None:
    Path("runs/mine").mkdir(parents=True)
    shutil.copy(tiny_file, "runs/mine/model.safetensors")
    assert program("upscale", picture, "a.png", "-m", "runs/mine", "--steps", 1)[0] == 0
    assert provenance_of(program, "a.png")["model"] == "mine"
    assert program("upscale", picture, "b.png", "-m", tiny_file, "--steps", 1)[0] == 0
    assert provenance_of(program, "b.png")["model"] == "tiny.safetensors"
    Path("runs/mine").rename("photo-x4")
    assert program("upscale", picture, "c.png", "-m", "./photo-x4", "--steps", 1)[0] == 0
    assert provenance_of(program, "c.png")["model"] == "./photo-x4"


def test_info_for_programs(program: Program, picture: Path, tiny_file: Path) -> None:
    assert program("upscale", picture, "a.tif", "-m", tiny_file, "--steps", 1)[0] == 0
    code, out, _ = program("info", "a.tif", "--json")
    assert code == 0
    facts = json.loads(out)
    assert (facts["format"], facts["steps"], facts["scale"]) == ("TIFF", 1, 4.0)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "avif", "tif"])
def test_outputs_of_more_pixels_than_are_read(
    suffix: str, program: Program, picture: Path, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Path(f"a.{suffix}")
    job = ("upscale", picture, target, "-m", tiny_file, "--steps", 1)
    assert program(*job)[0] == 0
    monkeypatch.setattr(decode, "MAX_PIXELS", 5000)
    code, out, err = program("info", target)
    assert (code, err) == (0, "")
    assert {"size: 120x80", "source: a cat.png", "steps: 1"} <= set(out.splitlines())
    code, _, err = program(*job, "--overwrite")
    assert code == 0, err


def test_info_of_no_picture(program: Program) -> None:
    Path("a.txt").write_text("words")
    code, out, err = program("info", "a.txt")
    assert (code, out) == (1, "")
    assert "a.txt is not a PNG, JPEG, WebP, AVIF, HEIC, TIFF or BMP picture" in err
    assert program("info", "missing.png")[0] == 1
