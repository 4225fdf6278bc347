"""Who is measured against whom, and on which inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

from dreamsr.config import ModelConfig
from dreamsr.engine.evaluator import Contender, Results, Sampled, results
from dreamsr.engine.schedule import Settings
from dreamsr.engine.upscaler import Upscaler
from dreamsr.errors import UsageError
from dreamsr.files import hub, images
from dreamsr.files.checkpoint import Model
from dreamsr.files.manifest import file_digest

Degradation = Literal["auto", "bicubic", "photo", "pairs"]


@dataclass(frozen=True)
class Contest:
    """Contenders, and rivals that each is compared with: with its own where there are as many."""

    own: Sequence[Contender]
    rivals: Sequence[Contender] = ()

    @property
    def contenders(self) -> list[Contender]:
        return [*self.own, *self.rivals]

    @property
    def models(self) -> list[ModelConfig]:
        """Configurations of the contenders that are models, not folders of results."""
        return [c.upscaler.model.config for c in self.contenders if isinstance(c, Sampled)]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(contender, rival) by name."""
        alike = len(self.own) == len(self.rivals)
        together = zip(self.own, self.rivals, strict=True) if alike else product(self.own, self.rivals)
        return [(a.name, b.name) for a, b in together]

    def check_idle(self, options: Mapping[str, object], degradation: Degradation, scale: float | None) -> None:
        """Raises UsageError for what was given and does nothing without a model; `options` by name, without dashes."""
        if self.models:
            return
        if name := next((name for name, value in options.items() if value), ""):
            raise UsageError(f"--{name} is for models; these pictures are there already", f"leave --{name} out")
        if degradation != "auto" and not scale:
            raise UsageError("--degradation makes inputs for bicubic, which takes a --scale", "add --scale 4")

    def agreed_scale(self, given: float | None) -> float | None:
        """The scale that was given, up to the scales of all models, or that of the models, which must be one."""
        for model in self.models:
            if given is not None and given > model.scale:
                raise UsageError(f"--scale is {given:g}; this model makes {model.scales}", f"use --scale {model.scale}")
        own = sorted({model.scale for model in self.models})
        if given is None and len(own) > 1:
            raise UsageError(f"the models make x{' and x'.join(map(str, own))}", "compare models of one scale")
        return given or next(iter(own), None)

    def inputs(self, degradation: Degradation) -> ModelConfig:
        """The model whose degradation makes the inputs: of the contenders one that is made for it."""
        if degradation != "auto":
            made_for = (config for config in self.models if config.degradation == degradation)
            return next(made_for, ModelConfig(degradation=degradation))
        if len({config.degradation for config in self.models}) > 1:
            raise UsageError("the models expect different inputs", "give --degradation bicubic or --degradation photo")
        return next(iter(self.models), ModelConfig())


def sampled(name: str, file: Path, model: Model, variants: Mapping[str, Settings], prefix: str = "") -> list[Sampled]:
    """A model, which `name` led to and `file` holds, with settings by their names."""
    public, sha256 = hub.public_name(name), file_digest(file)
    return [Sampled(prefix + label, Upscaler(model, s), public, sha256) for label, s in variants.items()]


def pictures(name: str, originals: Path, cut: bool) -> Results | None:
    """The results that `name` leads to; None where it is a model's: of a run folder, a file, or none here."""
    path = Path(name)
    if path.suffix.lower() in images.SUFFIXES or (path.is_dir() and not (path / hub.RUN_FILE).is_file()):
        return results(path, originals, f"{path}/" if path.is_dir() else name, cut)
    return None
