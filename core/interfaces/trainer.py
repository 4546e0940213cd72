"""Trainers: one training stage each. The engine gives batches and updates; a trainer holds the mathematics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.text import TextEncoder, TextFeatures

Losses = dict[str, Tensor]
"""Named scalars for the log. Tensors, detached by the engine: reading them would wait for the device."""


@dataclass
class Batch:
    """One batch, on the engine's device.

    images: (B, 3, H, W) float in [-1, 1]. captions, keys: B of each. extras: the data set's, as tensors (B, ...) where
    they are numbers or arrays, else as tuples of B.
    noise: the draws of this step; every random number of a step comes from here, so that a resumed run, or one on
    another number of processes, sees the same ones. encode, encode_null: the text encoder, as the stage uses it
    (encode_null None: no caption is the empty caption).
    encoded, features: what was stored (`Trainer.encode`) in place of the images, which are empty then (B, 3, 0, 0), as
    are the extras; and for the captions, unless the stage trains the encoder.
    """

    images: Tensor
    captions: tuple[str, ...]
    keys: tuple[str, ...]
    noise: StepNoise
    encode: Callable[[Sequence[str]], TextFeatures]
    extras: Mapping[str, Any] = field(default_factory=dict)
    encode_null: Callable[[int], TextFeatures] | None = None
    encoded: Tensor | None = None
    features: TextFeatures | None = None

    @cached_property
    def text(self) -> TextFeatures:
        """Features of the captions. With gradients if the stage trains the encoder; else cached, without."""
        return self.encode(self.captions) if self.features is None else self.features

    def null(self) -> TextFeatures:
        """Features of "no caption", one row an image."""
        n = len(self.captions)
        return self.encode_null(n) if self.encode_null else self.encode([""] * n)


class Engine(Protocol):
    """What a trainer may ask of the engine."""

    @property
    def progress(self) -> float:
        """How much of the stage is done, 0 to 1."""

    def update(self, name: str, loss: Tensor) -> None:
        """Backward into the parameters of `optimizers[name]` only, then (when enough batches have accumulated)
        averaging over processes, finite check, clipping, and the optimizer's and schedule's step."""

    def shifted(self, x: Tensor) -> Tensor:
        """`x` (B, ...) rolled by one row over the GLOBAL batch: mismatched pairs. No gradient crosses processes."""

    def gathered(self, x: Tensor) -> Tensor:
        """The rows of all processes for `x` (B, ...): the GLOBAL batch, in its order, for losses that compare each row
        with every other. Each process computes the whole loss; its gradients reach its own rows alone, grown by the
        number of processes, so that their average over processes is the gradient of the loss."""


Clip = float | Sequence[float | None]
"""Largest norm of the gradients: of all of an optimizer's parameters, or one for each of its parameter groups (None or
0: not clipped)."""


@dataclass(frozen=True)
class Optimization:
    """An optimizer with clipping and a learning-rate schedule of its own.

    Attributes:
        optimizer: the optimizer. A parameter in none of a trainer's optimizers is not trained.
        clip: takes the place of the engine's `grad_clip`. None: `grad_clip`.
        schedule: progress of the stage, 0 to 1 -> factor, which multiplies each group's learning rate beside the
            engine's own factor (`warmup`, `lr_schedule`). None: 1.
    """

    optimizer: Optimizer
    clip: Clip | None = None
    schedule: Callable[[float], float] | None = None

    def __post_init__(self) -> None:
        groups = len(self.optimizer.param_groups)
        if isinstance(self.clip, Sequence) and len(self.clip) != groups:
            raise ValueError(
                f"clip has {len(self.clip)} entries, the optimizer has {groups} parameter groups"
            )

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that ask for gradients; a trainer may change that from step to step."""
        return [
            p for group in self.optimizer.param_groups for p in group["params"] if p.requires_grad
        ]


class Trainer(ABC):
    """One training stage.

    Attributes:
        modules: the networks that the stage trains or needs saved, by name; also what `compile` may compile, and what
            is in training mode during a step. What a trainer keeps from step to step must be in one of them, or in an
            optimizer: the rest of its attributes are not saved.
        optimizers: by the name given to `engine.update`; each alone, or with clipping and schedule of its own. The
            parameters of generator, text encoder and helpers that are in one are averaged, and hold their averages once
            the stage is over.
        eager: names of modules that must not be compiled (those under a double backward pass).
        encode: what a step needs of the images (B, 3, H, W), row by row, where networks that the stage does not train
            compute it: latents. The engine may then do so once for the whole data set (`cache_views`), and give the
            steps `batch.encoded` in place of images. None: the images themselves are needed.
    """

    modules: dict[str, nn.Module]
    optimizers: Mapping[str, Optimizer | Optimization]
    eager: tuple[str, ...] = ()
    encode: Callable[[Tensor], Tensor] | None = None

    @abstractmethod
    def step(self, batch: Batch, engine: Engine) -> Losses:
        """One training step: computes each loss and hands it to `engine.update`."""

    def preview(self, batch: Batch) -> Tensor | None:
        """Images (N, 3, H, W) in [-1, 1] for the stage's grids, without gradients, where the generator cannot draw
        yet: an autoencoder shows originals beside reconstructions. Default: None, the generator draws."""
        return None

    def finish(self, batches: Callable[[], Batch]) -> None:  # noqa: B027 (most stages have nothing to finish)
        """Called once when the stage ends, with the averaged weights in place: e.g. to measure a latent's scale.

        Runs without gradients, networks in evaluation mode, in every process alike.

        Args:
            batches: gives another (whole, global) batch of training data at each call, the same ones however the stage
                was interrupted and on however many processes it ran.
        """


def optimizations(trainer: Trainer) -> dict[str, Optimization]:
    """A trainer's optimizers by name, each with its clipping and schedule."""
    return {
        name: given if isinstance(given, Optimization) else Optimization(given)
        for name, given in trainer.optimizers.items()
    }


@dataclass(frozen=True)
class Networks:
    """The networks of a model as its trainers find them.

    Attributes:
        generator: what is sampled.
        text_encoder: what it is conditioned on.
        helpers: what `ModelSpec.helpers` built, by name: networks that outlive a stage and are in checkpoints, but are
            not saved with what is sampled.
    """

    generator: Generator
    text_encoder: TextEncoder
    helpers: Mapping[str, nn.Module] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """A stage of a model's training.

    Attributes:
        name: what the log and errors call it.
        share: its part of the whole budget (shares are normalised to sum 1).
        trainer: called with the model's networks when the stage begins; it must not draw random numbers other than from
            torch's global generator, which the engine seeds.
        settings: settings of the engine that are others in this stage (`t2i.core.settings.STAGE_SETTINGS`).
    """

    name: str
    share: float
    trainer: Callable[[Networks], Trainer]
    settings: Mapping[str, Any] = field(default_factory=dict)
