"""t2i: a collection of text-to-image models of all families, to train, sample and score.

    import t2i

    model = t2i.load("runs/ldm-shapes-20261121-101500")
    images = model.sample(["a red circle"], sampler="ddim", steps=50, seed=0)

Importing this module takes almost no time: each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from t2i.api import bench, resume, score, train, votes
    from t2i.core.errors import T2IError, UserError
    from t2i.core.families.autoregressive import AutoregressiveGenerator
    from t2i.core.families.cascade import CascadeGenerator
    from t2i.core.families.diffusion import DiffusionGenerator
    from t2i.core.families.discrete import DiscreteDiffusionGenerator
    from t2i.core.families.flow import FlowGenerator, FlowRun
    from t2i.core.families.guide import GuideGenerator
    from t2i.core.families.one_shot import OneShotGenerator
    from t2i.core.families.optimised import OptimisedGenerator
    from t2i.core.interfaces.dataset import Dataset, Example
    from t2i.core.interfaces.generator import Generator
    from t2i.core.interfaces.noise import Noise, PromptNoise, StepNoise
    from t2i.core.interfaces.request import Request
    from t2i.core.interfaces.sampler import Sampler, SamplerConfig
    from t2i.core.interfaces.scoring import Benchmark, FeatureExtractor, Metric
    from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape
    from t2i.core.interfaces.trainer import Batch, Engine, Stage, Trainer
    from t2i.core.models.loading import load
    from t2i.core.models.model import Model
    from t2i.core.registry.hooks import hookimpl
    from t2i.core.registry.specs import (
        BenchmarkSpec,
        DatasetSpec,
        DownloadFile,
        DownloadSpec,
        FamilySpec,
        FeatureSpec,
        HubFiles,
        MetricSpec,
        ModelSpec,
        SamplerSpec,
        TextEncoderSpec,
    )
    from t2i.core.registry.tables import registry
    from t2i.core.settings import Config, DataConfig, ModelConfig, Preset
    from t2i.core.sharing.pull import pull
    from t2i.core.sharing.push import push

# In the root of a checkout this folder shadows the installed package, whose other parts must still
# be found.
__path__ = extend_path(__path__, __name__)

# The module of each public name.
_HOME = {
    "t2i.api": (
        "bench",
        "resume",
        "score",
        "train",
        "votes",
    ),
    "t2i.core.errors": (
        "T2IError",
        "UserError",
    ),
    "t2i.core.families.autoregressive": ("AutoregressiveGenerator",),
    "t2i.core.families.cascade": ("CascadeGenerator",),
    "t2i.core.families.diffusion": ("DiffusionGenerator",),
    "t2i.core.families.discrete": ("DiscreteDiffusionGenerator",),
    "t2i.core.families.flow": ("FlowGenerator", "FlowRun"),
    "t2i.core.families.guide": ("GuideGenerator",),
    "t2i.core.families.one_shot": ("OneShotGenerator",),
    "t2i.core.families.optimised": ("OptimisedGenerator",),
    "t2i.core.interfaces.dataset": (
        "Dataset",
        "Example",
    ),
    "t2i.core.interfaces.generator": ("Generator",),
    "t2i.core.interfaces.noise": (
        "Noise",
        "PromptNoise",
        "StepNoise",
    ),
    "t2i.core.interfaces.request": ("Request",),
    "t2i.core.interfaces.sampler": (
        "Sampler",
        "SamplerConfig",
    ),
    "t2i.core.interfaces.scoring": (
        "Benchmark",
        "FeatureExtractor",
        "Metric",
    ),
    "t2i.core.interfaces.text": (
        "TextEncoder",
        "TextFeatures",
        "TextShape",
    ),
    "t2i.core.interfaces.trainer": (
        "Batch",
        "Engine",
        "Stage",
        "Trainer",
    ),
    "t2i.core.models.loading": ("load",),
    "t2i.core.models.model": ("Model",),
    "t2i.core.registry.hooks": ("hookimpl",),
    "t2i.core.registry.specs": (
        "BenchmarkSpec",
        "DatasetSpec",
        "DownloadFile",
        "DownloadSpec",
        "FamilySpec",
        "FeatureSpec",
        "HubFiles",
        "MetricSpec",
        "ModelSpec",
        "SamplerSpec",
        "TextEncoderSpec",
    ),
    "t2i.core.registry.tables": ("registry",),
    "t2i.core.settings": (
        "Config",
        "DataConfig",
        "ModelConfig",
        "Preset",
    ),
    "t2i.core.sharing.pull": ("pull",),
    "t2i.core.sharing.push": ("push",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
__all__ = [
    "AutoregressiveGenerator",
    "Batch",
    "Benchmark",
    "BenchmarkSpec",
    "CascadeGenerator",
    "Config",
    "DataConfig",
    "Dataset",
    "DatasetSpec",
    "DiffusionGenerator",
    "DiscreteDiffusionGenerator",
    "DownloadFile",
    "DownloadSpec",
    "Engine",
    "Example",
    "FamilySpec",
    "FeatureExtractor",
    "FeatureSpec",
    "FlowGenerator",
    "FlowRun",
    "Generator",
    "GuideGenerator",
    "HubFiles",
    "Metric",
    "MetricSpec",
    "Model",
    "ModelConfig",
    "ModelSpec",
    "Noise",
    "OneShotGenerator",
    "OptimisedGenerator",
    "Preset",
    "PromptNoise",
    "Request",
    "Sampler",
    "SamplerConfig",
    "SamplerSpec",
    "Stage",
    "StepNoise",
    "T2IError",
    "TextEncoder",
    "TextEncoderSpec",
    "TextFeatures",
    "TextShape",
    "Trainer",
    "UserError",
    "__version__",
    "bench",
    "hookimpl",
    "load",
    "pull",
    "push",
    "registry",
    "resume",
    "score",
    "train",
    "votes",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name == "__version__":
        return _version()
    if name not in _MODULE_OF:
        raise AttributeError(f"module 't2i' has no attribute '{name}'")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _version() -> str:
    """Return the installed version, or "?" if t2i runs from a checkout that is not installed."""
    try:
        return version("t2i-zoo")
    except PackageNotFoundError:
        return "?"
