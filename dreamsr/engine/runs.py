"""What a training run is: a recipe, photos, and the folder that remembers both (RUN/run.json)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dreamsr.config import TrainConfig
from dreamsr.engine import sources
from dreamsr.engine.optimize import most_steps
from dreamsr.engine.schedule import Settings, schedule
from dreamsr.errors import UsageError
from dreamsr.files import atomic, images
from dreamsr.files.checkpoint import Model
from dreamsr.files.paths import real
from dreamsr.tables import apply_overrides, from_dict, to_dict

STATE, RUN = "state.safetensors", "run.json"
CHANGEABLE = ("steps", "val_every", "save_every")


@dataclass(frozen=True)
class Run:
    """What a run folder remembers."""

    config: TrainConfig
    data: Path
    val: Path | None
    photos: str
    """Digest of the names and sizes of all photo files."""
    low: Path | None = None
    """Where the low-resolution partners of the photos are, of the same names."""
    compiled: bool = False
    """Whether the network runs compiled: recorded, since it changes the last bits."""
    dtype: str = "auto"
    """The precision by name: recorded, since it changes more than these."""
    begun_with: Mapping[str, str] = field(default_factory=dict)
    """Entries for the card: name and licence of the model whose weights it began with."""

    @property
    def work(self) -> float:
        """Megapixels times passes of the network, a backward counted as two.

        DREAM has 4; two samples have their steps and a backward each, and the average looks at both and at the truth.
        """
        passes = 4 if self.config.energy == 0 else 4 + 2 * (self.config.model.sampling.steps + 2 + 3) + 1
        return self.config.steps * self.config.batch * self.config.crop**2 * passes / 1e6


def create(
    config: TrainConfig,
    data: Path,
    val: Path | None,
    out: Path,
    low: Path | None = None,
    start: Model | None = None,
) -> Run:
    """A new run; an error if `out` holds one already, or `data`, `val` and `low` are no folders of photos.

    start: the model whose weights it begins with.
    """
    if (out / STATE).exists():
        raise UsageError(f"{out} already holds a training run", "go on with --resume, or give another --out")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; expected a folder for the run")
    degradation = config.model.degradation
    if degradation == "pairs" and low is None:
        raise UsageError("this model learns from given pairs", "give --low FOLDER, or model.degradation=bicubic")
    if degradation != "pairs" and low is not None:
        raise UsageError(f"--low gives the inputs; they are not made by {degradation}", "leave out model.degradation")
    for folder in filter(None, (data, val, low)):
        if not images.find(folder):
            raise UsageError(f"no {images.KINDS} picture in {folder}")
        if real(out).is_relative_to(real(folder)):  # its sheets would be photos to train on
            raise UsageError(f"{out} lies inside {folder}", "give --out a folder outside of the photos")
    schedule(config.model, Settings())  # a model that cannot be sampled is not worth training
    if config.energy:
        schedule(config.model, Settings(steps=most_steps(config)))
    data, val, low = data.absolute(), val and val.absolute(), low and low.absolute()
    photos, origin = sources.digest(data, val, low), _origin(start) if start else {}
    return Run(config, data, val, photos, low, begun_with=origin)


def _origin(start: Model) -> dict[str, str]:
    """What the card of a model tells of the one that it began with."""
    licence = start.card.get("licence")
    return {"begun_with": start.config.name, **({"licence": str(licence)} if licence else {})}


def reopen(out: Path, data: Path | None = None, val: Path | None = None, low: Path | None = None) -> Run:
    """The run of a folder; an error if there is none, or its photos are others than at its start.

    data, val, low: where its photos are now, if they have moved.
    """
    if not (out / STATE).exists():
        raise UsageError(f"{out} holds no training run", "start one without --resume")
    document, was = _described(out / RUN)
    now = [new.absolute() if new else old for new, old in zip((data, val, low), was, strict=True)]
    for key, folder in zip(("data", "val", "low"), now, strict=True):
        if folder and not folder.exists():  # or it may be a single photo
            raise UsageError(
                f"there is no folder {folder}, where photos of the run were",
                f"if they have moved: --resume --{key} FOLDER",
            )
    kept = {key: document[key] for key in ("compiled", "dtype", "begun_with") if key in document}
    assert now[0] is not None
    run = Run(from_dict(TrainConfig, document["config"]), now[0], now[1], document["photos"], low=now[2], **kept)
    if sources.digest(*now) != run.photos:
        places = ", ".join(str(folder) for folder in now if folder)
        raise UsageError(f"the photos in {places} are not those that the run began with", "start a new run with --init")
    return run


def _described(path: Path) -> tuple[dict[str, Any], list[Path | None]]:
    """What `write` has put down, and the folders in it: data, val, low."""
    try:
        document = json.loads(path.read_text())
        folders = [Path(document["data"]), *(document.get(key) and Path(document[key]) for key in ("val", "low"))]
        return {"config": document["config"], "photos": document["photos"], **document}, folders
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"{path}, which describes the run, cannot be read: {error}", f"start a new run with --init {path.parent}"
        ) from error


def reconfigure(run: Run, overrides: Sequence[str]) -> Run:
    """The run with another length or other intervals; anything else would make it another run."""
    config = from_dict(TrainConfig, apply_overrides(TrainConfig, to_dict(run.config), overrides))
    for key, value in to_dict(config).items():
        if key not in CHANGEABLE and value != to_dict(run.config)[key]:
            raise UsageError(f"{key} cannot change in a resumed run", f"only {', '.join(CHANGEABLE)} can")
    return replace(run, config=config)


def write(run: Run, out: Path) -> None:
    """Write RUN/run.json, which `reopen` reads."""
    atomic.write(out / RUN, json.dumps(to_dict(run), indent=2, default=str).encode())  # paths as text
