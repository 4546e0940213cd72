"""Settings of everything in this plugin."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, field_validator

from t2i.core.interfaces.sampler import SamplerConfig
from t2i.core.settings import Config, DataConfig, ModelConfig, Preset


class Nothing(Config):
    """Of what has no settings."""


class RetrievalConfig(ModelConfig):
    """capacity: images remembered; when the memory is full, the oldest go. key: size of the space in which captions
    are compared. lr: of the map into it. memory_share: part of the budget in which the memory is filled."""

    capacity: int = Field(20_000, ge=1)
    key: int = Field(64, ge=1)
    lr: float = Field(3e-3, gt=0)
    memory_share: float = Field(0.2, gt=0, lt=1)

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        tiny = {"steps": 1000, "batch_size": 64, "capacity": 8192, "ema_decay": 0.99}
        return {"tiny": Preset(tiny, encoder=("hashed-words", {}), sampler=("nearest", {}))}


class HashedWordsConfig(Config):
    """width: of the vectors. max_words: longer captions are cut."""

    width: int = Field(512, ge=8)
    max_words: int = Field(64, ge=1)


class NearestConfig(SamplerConfig):
    """nearest: images that one is drawn from. temperature: of the draw, in units of the kernel that the map was
    trained under; 0 takes the nearest one always. steps is ignored."""

    nearest: int = Field(8, ge=1)
    temperature: float = Field(0.25, ge=0)

    @field_validator("guidance")
    @classmethod
    def _unguided(cls, guidance: float) -> float:
        if guidance != 1:
            raise ValueError("a memory has no guidance: leave it out, or at 1")
        return guidance


class StripesConfig(DataConfig):
    """seed: another seed gives other images. train_length, val_length: of the splits; train is endless."""

    seed: int = Field(0, ge=0, lt=2**63)
    train_length: int = Field(10_000, ge=1)
    val_length: int = Field(1_000, ge=1)
