"""t2i.core: interfaces, registry, settings, training engine, checkpoints, data contract, noise.

Importing it costs next to nothing: the names below load when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from t2i.core.errors import T2IError, UserError
    from t2i.core.families.autoregressive import AutoregressiveGenerator
    from t2i.core.families.cascade import CascadeGenerator
    from t2i.core.families.diffusion import DiffusionGenerator
    from t2i.core.families.discrete import DiscreteDiffusionGenerator
    from t2i.core.families.guide import GuideGenerator
    from t2i.core.families.one_shot import OneShotGenerator
    from t2i.core.families.optimised import OptimisedGenerator
    from t2i.core.interfaces.dataset import Dataset, Example
    from t2i.core.interfaces.generator import Generator
    from t2i.core.interfaces.noise import PromptNoise, StepNoise
    from t2i.core.interfaces.request import Request
    from t2i.core.interfaces.sampler import Sampler, SamplerConfig
    from t2i.core.interfaces.scoring import Benchmark, FeatureExtractor, Metric
    from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape
    from t2i.core.interfaces.trainer import Batch, Engine, Stage, Trainer
    from t2i.core.models.loading import load
    from t2i.core.models.model import Model
    from t2i.core.registry.hooks import hookimpl
    from t2i.core.settings import Config, DataConfig, ModelConfig, Preset

_HOME = {
    "t2i.core.settings": ("Config", "DataConfig", "ModelConfig", "Preset"),
    "t2i.core.interfaces.dataset": ("Dataset", "Example"),
    "t2i.core.errors": ("T2IError", "UserError"),
    "t2i.core.families.autoregressive": ("AutoregressiveGenerator",),
    "t2i.core.families.cascade": ("CascadeGenerator",),
    "t2i.core.families.diffusion": ("DiffusionGenerator",),
    "t2i.core.families.discrete": ("DiscreteDiffusionGenerator",),
    "t2i.core.families.guide": ("GuideGenerator",),
    "t2i.core.families.one_shot": ("OneShotGenerator",),
    "t2i.core.families.optimised": ("OptimisedGenerator",),
    "t2i.core.interfaces.generator": ("Generator",),
    "t2i.core.interfaces.request": ("Request",),
    "t2i.core.registry.hooks": ("hookimpl",),
    "t2i.core.models.model": ("Model",),
    "t2i.core.models.loading": ("load",),
    "t2i.core.interfaces.noise": ("PromptNoise", "StepNoise"),
    "t2i.core.interfaces.sampler": ("Sampler", "SamplerConfig"),
    "t2i.core.interfaces.scoring": ("Benchmark", "FeatureExtractor", "Metric"),
    "t2i.core.interfaces.text": ("TextEncoder", "TextFeatures", "TextShape"),
    "t2i.core.interfaces.trainer": ("Batch", "Engine", "Stage", "Trainer"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
__all__ = [
    "AutoregressiveGenerator", "Batch", "Benchmark", "CascadeGenerator", "Config", "DataConfig", "Dataset",
    "DiffusionGenerator", "DiscreteDiffusionGenerator", "Engine", "Example", "FeatureExtractor", "Generator",
    "GuideGenerator", "Metric", "Model", "ModelConfig", "OneShotGenerator", "OptimisedGenerator", "Preset",
    "PromptNoise", "Request", "Sampler", "SamplerConfig", "Stage", "StepNoise", "T2IError", "TextEncoder",
    "TextFeatures", "TextShape", "Trainer", "UserError", "hookimpl", "load",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 't2i.core' has no attribute '{name}'")
    return getattr(import_module(_MODULE_OF[name]), name)
