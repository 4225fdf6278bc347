"""A model, its weights aside."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from dreamsr.config.checks import require
from dreamsr.config.network import NetworkConfig, SR3Config
from dreamsr.config.photo import PhotoConfig
from dreamsr.config.process import ProcessConfig
from dreamsr.config.sampling import SamplingConfig, TunedGrid

Prediction = Literal["eps", "x0", "v", "flow"]


@dataclass(frozen=True)
class ModelConfig:
    """Everything that is needed to rebuild and run a model, its weights aside."""

    name: str = "model"
    scale: int = 4
    """Output size / input size, by default and at most."""
    degradation: Literal["bicubic", "photo", "pairs"] = "bicubic"
    """How inputs came to be: by bicubic reduction, as everyday pictures do (`photo`), or given beside the originals."""
    prediction: Prediction = "x0"
    network: NetworkConfig | SR3Config = field(default_factory=NetworkConfig)
    process: ProcessConfig = field(default_factory=ProcessConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    smallest_scale: float | None = None
    """The network is trained on every scale from here to `scale`; None: on `scale` alone."""
    photo: PhotoConfig = field(default_factory=PhotoConfig)
    """What happens to inputs of degradation `photo`."""

    def __post_init__(self) -> None:
        line = len(self.name.splitlines()) == 1 and bool(self.name.strip())
        require(line, "model.name", "a line of text", self.name)
        require(self.scale >= 1, "model.scale", "at least 1", self.scale)
        least = self.least_scale
        require(1 <= least <= self.scale, "model.smallest_scale", f"between 1 and {self.scale}", least)
        many = self.degradation == "pairs" and self.smallest_scale is not None
        require(not many, "model.smallest_scale", "none, as pairs have one scale", least)

    def with_tuned(self, grids: Iterable[TunedGrid] = ()) -> "ModelConfig":
        """The same configuration with `grids` as its only tuned grids; none by default."""
        return replace(self, sampling=replace(self.sampling, tuned=tuple(grids)))

    @property
    def least_scale(self) -> float:
        """The smallest scale that the network knows."""
        return self.scale if self.smallest_scale is None else self.smallest_scale

    @property
    def scales(self) -> str:
        """The scales that it makes, in words: `x4`, or `x1.5 to x4`."""
        least = self.least_scale
        return f"x{self.scale}" if least == self.scale else f"x{least:g} to x{self.scale}"
