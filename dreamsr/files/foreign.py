"""What a file of another program is, told from the names in it; nothing of it is ever run."""

import json
import pickletools
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

OURS = "dreamsr runs models of its own: see `dreamsr models list`, or make one with `dreamsr train`"
CONVERT = "convert it: dreamsr export FILE OUT.safetensors --from sr3"
KINDS = (
    ("denoise_fn.downs.", "an SR3 or DREAM network", CONVERT),
    (".rdb1.conv1.", "an ESRGAN or Real-ESRGAN network (RRDBNet)", OURS),
    ("input_blocks.", "a UNet in the layout of guided-diffusion, as ResShift's and Stable Diffusion's", OURS),
    ("down_blocks.", "a network of diffusers", OURS),
)
"""(part of a weight's name, what has it, what to do)"""
PICKLED = (".pt", ".pth", ".ckpt", ".bin")
_TEXT = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE")


def kind(names: Collection[str]) -> tuple[str, str]:
    """(what a file with weights of these names is, what to do with it)."""
    for part, what, hint in KINDS:
        if any(part in name for name in names):
            return what, hint
    return "", OURS


def pickled_names(path: Path) -> set[str]:
    """The texts in a file of torch.save, read without unpickling it; empty if it is none."""
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                return set(_texts(file))
        with zipfile.ZipFile(path) as archive:
            found = [name for name in archive.namelist() if name.endswith("data.pkl")]
            with archive.open(found[0]) as file:
                return set(_texts(file))
    except Exception:  # what a damaged or hostile file comes to is not foreseeable
        return set()


def _texts(file: IO[bytes]) -> Iterator[str]:
    # before 1.6 torch wrote a magic number, a version and facts of the system before the weights
    for _ in range(4):
        for opcode, argument, _position in pickletools.genops(file):
            if opcode.name in _TEXT:
                yield str(argument)
        if isinstance(file, zipfile.ZipExtFile):
            return


def folder(path: Path) -> str:
    """The class of a diffusers pipeline or model in a folder; empty if there is none."""
    for name in ("model_index.json", "config.json"):
        try:
            return str(json.loads((path / name).read_text())["_class_name"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return ""
