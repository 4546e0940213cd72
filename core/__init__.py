"""t2i.core: interfaces, registry, settings, training engine, checkpoints, data contract, noise.

Importing it costs next to nothing: the names below load when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from t2i.core.config import Config, DataConfig, ModelConfig, Preset
    from t2i.core.data import Dataset, Example
    from t2i.core.errors import T2IError, UserError
    from t2i.core.generator import DiffusionGenerator, Generator, OneShotGenerator
    from t2i.core.hooks import hookimpl
    from t2i.core.model import Model, load
    from t2i.core.noise import PromptNoise, StepNoise
    from t2i.core.sampler import Sampler, SamplerConfig
    from t2i.core.scoring import Benchmark, FeatureExtractor, Metric
    from t2i.core.text import TextEncoder, TextFeatures, TextShape
    from t2i.core.trainer import Batch, Engine, Stage, Trainer

_HOME = {
    "config": ("Config", "DataConfig", "ModelConfig", "Preset"),
    "data": ("Dataset", "Example"),
    "errors": ("T2IError", "UserError"),
    "generator": ("DiffusionGenerator", "Generator", "OneShotGenerator"),
    "hooks": ("hookimpl",),
    "model": ("Model", "load"),
    "noise": ("PromptNoise", "StepNoise"),
    "sampler": ("Sampler", "SamplerConfig"),
    "scoring": ("Benchmark", "FeatureExtractor", "Metric"),
    "text": ("TextEncoder", "TextFeatures", "TextShape"),
    "trainer": ("Batch", "Engine", "Stage", "Trainer"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
__all__ = [
    "Batch", "Benchmark", "Config", "DataConfig", "Dataset", "DiffusionGenerator", "Engine", "Example",
    "FeatureExtractor", "Generator", "Metric", "Model", "ModelConfig", "OneShotGenerator", "Preset", "PromptNoise",
    "Sampler", "SamplerConfig", "Stage", "StepNoise", "T2IError", "TextEncoder", "TextFeatures", "TextShape",
    "Trainer", "UserError", "hookimpl", "load",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 't2i.core' has no attribute '{name}'")
    return getattr(import_module(f"t2i.core.{_MODULE_OF[name]}"), name)
