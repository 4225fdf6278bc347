"""Configurations: frozen dataclasses that check their values.

Nothing here imports torch, so that a configuration is checked before anything heavy is loaded.
"""

from dreamsr.config.model import ModelConfig, Prediction
from dreamsr.config.network import NetworkConfig, SR3Config
from dreamsr.config.photo import PhotoConfig
from dreamsr.config.process import ETA_ROOT_END, ProcessConfig
from dreamsr.config.sampling import Grid, SamplerName, SamplingConfig, TunedGrid
from dreamsr.config.training import Spread, TrainConfig

__all__ = [
    "ETA_ROOT_END",
    "Grid",
    "ModelConfig",
    "NetworkConfig",
    "PhotoConfig",
    "Prediction",
    "ProcessConfig",
    "SR3Config",
    "SamplerName",
    "SamplingConfig",
    "Spread",
    "TrainConfig",
    "TunedGrid",
]
