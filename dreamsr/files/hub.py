"""Where models come from: bundled ones, local files and the Hugging Face Hub."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from dreamsr.errors import CheckpointError, UsageError
from dreamsr.files import foreign
from dreamsr.files.manifest import file_digest
from dreamsr.files.paths import own_name

DEFAULT_MODEL = "photo-x4"
HUB_FILE = RUN_FILE = "model.safetensors"
_WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".onnx")
_HUB_NAME = re.compile(r"(?P<repo>\w[\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?(:(?P<file>[\w./-]+))?")

_SUM = re.compile(r"\s*(?P<digest>[0-9a-fA-F]{64})\s+\*?(\./)?(?P<name>.*\S)\s*")


def bundled() -> dict[str, Path]:
    """The models that come with dreamsr by name: inside an installed wheel, or in weights/ of a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "weights", package.parent / "weights"):
        if found := sorted(folder.glob("*.safetensors")):
            return {path.stem: path for path in found}
    return {}


def resolve(name: str, online: bool = True) -> Path:
    """The file of a bundled name, a local file or run folder, or `org/repo[@revision][:file]` on the Hub.

    online: download what is not in the Hub's cache, or newer there; else it is an error.
    """
    if name in (known := bundled()):
        return known[name]
    hint = f"give a bundled name ({', '.join(known) or 'none here'}), a .safetensors file, or org/repo"
    if not name:
        raise UsageError("the name of the model is empty", hint)
    path = Path(name)
    if (path / RUN_FILE).is_file():
        return path / RUN_FILE
    if path.is_file():
        return path
    if path.is_dir():
        what = foreign.folder(path)
        raise UsageError(f"{name} is a folder " + (f"of diffusers ({what})" if what else f"without {RUN_FILE}"), hint)
    match = _HUB_NAME.fullmatch(name)
    if match is None or Path(match["repo"]).suffix in _WEIGHT_SUFFIXES:
        is_file = path.suffix in _WEIGHT_SUFFIXES
        raise UsageError(f"there is no file {name}" if is_file else f"model {name!r} is unknown", hint)
    return download(match["repo"], match["file"] or HUB_FILE, match["revision"], online)


def public_name(name: str) -> str:
    """What others may be told of a name that `resolve` takes: of a file or a run folder, nothing of where it lies."""
    if name in bundled() or not Path(name).exists():
        return name
    public = own_name(Path(name))
    return f"./{public}" if public in bundled() else public


def download(repo: str, file: str, revision: str | None, online: bool = True) -> Path:
    """A file of a Hub repository, from the cache when it is there; raises CheckpointError in one line.

    Its SHA-256 is compared with the Hub's; a file that differs is removed from the cache.
    """
    from huggingface_hub import hf_hub_download

    wanted = _Wanted(repo, file, revision)
    try:
        path = Path(hf_hub_download(repo, file, revision=revision, local_files_only=not online))
    except Exception as error:  # the HTTP library's own errors differ between versions of huggingface-hub
        raise _refusal(error, wanted, online) from error
    try:
        verify(path)
    except CheckpointError as error:
        for file_or_link in (path.resolve(), _blob(path), path):
            file_or_link.unlink(missing_ok=True)
        raise CheckpointError(f"{error.message}; it was removed", f"dreamsr models pull {wanted.name}") from None
    return path


@dataclass(frozen=True)
class _Wanted:
    """A file on the Hub."""

    repo: str
    file: str
    revision: str | None

    @property
    def where(self) -> str:
        return f"{self.repo}@{self.revision}" if self.revision else self.repo

    @property
    def name(self) -> str:
        """As `resolve` takes it."""
        return self.where if self.file == HUB_FILE else f"{self.where}:{self.file}"


def _refusal(error: Exception, wanted: _Wanted, online: bool) -> CheckpointError:
    """What to tell the user when the Hub or its cache does not give a file."""
    from huggingface_hub import constants, errors

    repo, where = wanted.repo, wanted.where
    match error:  # subclasses before their bases
        case errors.LocalEntryNotFoundError():
            why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} cannot be reached"
            reason = f", and {why}" if online else ""
            advice = "check the connection, HF_ENDPOINT and HF_HUB_OFFLINE, or give a local file"
            return CheckpointError(
                f"there is no folder {repo} here, and {wanted.file} of {where} is not in the cache{reason}",
                advice if online else f"dreamsr models pull {wanted.name}",
            )
        case errors.RevisionNotFoundError():
            return CheckpointError(f"{repo} on the Hub has no revision {wanted.revision!r}")
        case errors.GatedRepoError():
            page = f"{constants.ENDPOINT}/{repo}"
            return CheckpointError(f"{repo} on the Hub is gated", f"ask for access at {page}, then: hf auth login")
        case errors.RepositoryNotFoundError():
            return CheckpointError(
                f"there is no model {repo!r} on the Hub, and no file or folder of that name here",
                "if it is a private one: hf auth login",
            )
        case errors.EntryNotFoundError():
            return CheckpointError(f"{where} on the Hub has no file {wanted.file!r}", f"name one: {where}:FILE")
    return CheckpointError(f"{where} cannot be downloaded: {(str(error) or repr(error)).splitlines()[0]}")


def recorded_digest(path: Path) -> str | None:
    """The SHA-256 that a model's file should have: of SHA256SUMS beside it, or of the Hub; None if nothing is known."""
    sums = path.with_name("SHA256SUMS")
    if sums.is_file():
        lines = map(_SUM.fullmatch, sums.read_text("utf-8-sig", "replace").splitlines())
        return {line["name"]: line["digest"].lower() for line in lines if line}.get(path.name)
    # the Hub's cache names a large file by its ETag, which is its SHA-256; small ones have a hash of git
    stored = _blob(path)
    return stored.name if stored.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", stored.name) else None


def _blob(path: Path) -> Path:
    """What a link of the Hub's cache names; that may be a link itself, to a store with names of its own."""
    return path.parent / path.readlink() if path.is_symlink() else path


def verify(path: Path) -> tuple[str, str | None]:
    """(SHA-256, recorded SHA-256 or None) of a model's file; raises CheckpointError where they differ."""
    digest, recorded = file_digest(path), recorded_digest(path)
    if recorded not in (None, digest):
        message = f"{path} is damaged: its SHA-256 is {digest}, recorded is {recorded}"
        raise CheckpointError(message, "install it again")
    return digest, recorded


def cache_folder() -> Path:
    """dreamsr's own cache, by the XDG convention."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dreamsr"
