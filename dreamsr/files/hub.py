"""Where models come from: bundled ones, local files and the Hugging Face Hub."""

import os
import re
from pathlib import Path

from dreamsr.errors import CheckpointError, UsageError

DEFAULT_MODEL = "bicubic-x4"
HUB_FILE = RUN_FILE = "model.safetensors"
_WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".onnx")
_HUB_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?(:(?P<file>[\w./-]+))?")


def bundled() -> dict[str, Path]:
    """The models that come with dreamsr by name: inside an installed wheel, or in weights/ of a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "weights", package.parent / "weights"):
        if found := sorted(folder.glob("*.safetensors")):
            return {path.stem: path for path in found}
    return {}


def resolve(name: str) -> Path:
    """The file of a bundled name, a local file or run folder, or `org/repo[@revision][:file]` on the Hub."""
    if name in (known := bundled()):
        return known[name]
    path = Path(name)
    if (path / RUN_FILE).is_file():
        return path / RUN_FILE
    if path.is_file():
        return path
    hint = f"give a bundled name ({', '.join(known) or 'none here'}), a .safetensors file, or org/repo"
    if path.is_dir():
        raise UsageError(f"{name} is a folder without {RUN_FILE}", hint)
    match = _HUB_NAME.fullmatch(name)
    if match is None or Path(match["repo"]).suffix in _WEIGHT_SUFFIXES:
        is_file = path.suffix in _WEIGHT_SUFFIXES
        raise UsageError(f"there is no file {name}" if is_file else f"model {name!r} is unknown", hint)
    return download(match["repo"], match["file"] or HUB_FILE, match["revision"])


def download(repo: str, file: str, revision: str | None) -> Path:
    """A file of a Hub repository, from the cache when it is there; raises CheckpointError in one line."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"{repo}@{revision}" if revision else repo
    try:
        return Path(hf_hub_download(repo, file, revision=revision))
    except LocalEntryNotFoundError:
        raise CheckpointError(
            f"{file} of {where} is not in the cache, and {constants.ENDPOINT} cannot be reached",
            "check the connection, HF_ENDPOINT and HF_HUB_OFFLINE, or give a local file",
        ) from None
    except RevisionNotFoundError:
        raise CheckpointError(f"{repo} on the Hub has no revision {revision!r}") from None
    except RepositoryNotFoundError:
        raise CheckpointError(f"there is no model {repo!r} on the Hub (or it is private)") from None
    except EntryNotFoundError:
        raise CheckpointError(f"{where} on the Hub has no file {file!r}", f"name one: {where}:FILE") from None
    except Exception as error:  # the HTTP library's own errors differ between versions of huggingface-hub
        raise CheckpointError(f"{where} cannot be downloaded: {(str(error) or repr(error)).splitlines()[0]}") from error


def cache_folder() -> Path:
    """dreamsr's own cache, by the XDG convention."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dreamsr"
