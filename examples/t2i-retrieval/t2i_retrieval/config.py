"""The settings of everything in this plugin."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, field_validator

from t2i.core.interfaces.sampler import SamplerConfig
from t2i.core.settings import Config, DataConfig, ModelConfig, Preset


class Nothing(Config):
    """Settings of things that have none."""


class RetrievalConfig(ModelConfig):
    """Settings of the model `retrieval`."""

    capacity: int = Field(20_000, ge=1)
    """Number of images in the memory. When it is full, new images replace the oldest."""
    key: int = Field(64, ge=1)
    """Width of the keys, the vectors by which captions are compared."""
    lr: float = Field(3e-3, gt=0)
    """Learning rate of the map from sentences to keys."""
    memory_share: float = Field(0.2, gt=0, lt=1)
    """Fraction of the budget in which the memory is filled. The rest trains the map."""

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        tiny = {"steps": 1000, "batch_size": 64, "capacity": 8192, "ema_decay": 0.99}
        return {"tiny": Preset(tiny, encoder=("hashed-words", {}), sampler=("nearest", {}))}


class HashedWordsConfig(Config):
    """Settings of the text encoder `hashed-words`."""

    width: int = Field(512, ge=8)
    """Width of the features of words and sentences."""
    max_words: int = Field(64, ge=1)
    """Largest number of words in a caption. Longer captions are cut."""


class NearestConfig(SamplerConfig):
    """Settings of the sampler `nearest`. It ignores `steps`."""

    nearest: int = Field(8, ge=1)
    """Number of nearest images from which one is chosen at random."""
    temperature: float = Field(0.25, ge=0)
    """Temperature of the random choice. At 1 the probabilities are those of the kernel that the map
    was trained with. At 0 the nearest image is always chosen."""

    @field_validator("guidance")
    @classmethod
    def _unguided(cls, guidance: float) -> float:
        if guidance != 1:
            raise ValueError("a memory has no guidance: leave it out, or at 1")
        return guidance


class StripesConfig(DataConfig):
    """Settings of the data set `stripes`."""

    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the images. Another seed gives other images."""
    train_length: int = Field(10_000, ge=1)
    """Number of examples in an epoch of the split "train", which is endless."""
    val_length: int = Field(1_000, ge=1)
    """Number of examples in the split "val"."""
