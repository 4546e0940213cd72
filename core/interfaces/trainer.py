"""Trainers and the engine: a trainer computes the losses of one stage, the engine does the rest.

The engine reads batches, runs backward passes, steps optimizers, averages weights and saves
checkpoints.
"""

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
"""Scalar losses by name, for the log.

They stay tensors, because reading their values would wait for the device. The engine detaches them.
"""


@dataclass
class Batch:
    """One batch of B training examples, on the engine's device.

    Args:
        images: Images, float (B, 3, H, W) in [-1, 1]. Empty, (B, 3, 0, 0), if `encoded` is given.
        captions: One caption for each image.
        keys: Key of each example (`Example.key`).
        noise: Source of every random number of the step. A resumed run, or a run on another number
            of processes, then draws the same numbers.
        encode: Function that encodes captions, as the stage uses the text encoder.
        extras: The data set's extras: tensors (B, ...) of numbers and of arrays of one shape,
            tuples of B otherwise. Empty if `encoded` is given.
        encode_null: Function that returns n rows of features of "no caption". None: the empty
            caption is encoded.
        encoded: Precomputed result of `Trainer.encode` (B, ...), which replaces the images
            (`cache_views`). None: not precomputed.
        features: Precomputed features of the captions. None: not precomputed, or the stage trains
            the text encoder.
        choices: All captions of each example, of which `captions` has one. Empty if `encoded` is
            given.
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
    choices: tuple[tuple[str, ...], ...] = ()

    @cached_property
    def text(self) -> TextFeatures:
        """Features of the captions, with gradients only if the stage trains the text encoder."""
        return self.encode(self.captions) if self.features is None else self.features

    def null(self) -> TextFeatures:
        """Compute the features of "no caption".

        Returns:
            Features with one row for each image.
        """
        n = len(self.captions)
        return self.encode_null(n) if self.encode_null else self.encode([""] * n)

    def dropped(self, share: float) -> tuple[TextFeatures, Tensor | None]:
        """Replace some captions by "no caption", so that sampling can be guided.

        Each caption is dropped or kept by a random number of its own (`caption_dropout`).

        Args:
            share: Share of the captions to drop, 0 to 1.

        Returns:
            Features of B captions; and which captions were kept, bool (B,), or None for all.
        """
        if not share:
            return self.text, None
        keep = self.noise.uniform("caption_dropout", 0, ()) >= share
        if bool(keep.all()):
            return self.text, None
        return self.text.where(keep, self.null()), keep


class Engine(Protocol):
    """What the engine offers a trainer."""

    @property
    def progress(self) -> float:
        """The share of the stage that is done, from 0 to 1."""

    def update(self, name: str, loss: Tensor) -> None:
        """Run the backward pass of a loss and step one optimizer.

        Gradients go into the parameters of this optimizer only. The step follows once all parts of
        the batch have accumulated (`accumulate`). Before it, gradients are averaged over processes,
        checked to be finite, and clipped.

        Args:
            name: Name of the optimizer in `Trainer.optimizers`.
            loss: Scalar loss of this process's rows.
        """

    def shifted(self, x: Tensor) -> Tensor:
        """Roll a tensor by one row over the global batch, to make mismatched pairs.

        Gradients do not cross processes.

        Args:
            x: Rows of this process, (B, ...).

        Returns:
            (B, ...): row i is row i - 1 of the global batch. With several processes, axis 1 is
            padded with zeros to the longest of all processes.
        """

    def gathered(self, x: Tensor) -> Tensor:
        """Gather the rows of all processes, for losses that compare each row with every other.

        Each process computes the whole loss. Gradients reach its own rows only, multiplied by the
        number of processes, so that their average over processes is the gradient of the loss.

        Args:
            x: Rows of this process, (B, ...).

        Returns:
            The global batch in its order, (B * processes, ...). With several processes, axis 1 is
            padded with zeros to the longest of all processes.
        """


Clip = float | Sequence[float | None]
"""Largest norm of the gradients: one for the whole optimizer, or one for each parameter group.

None or 0: they are not clipped.
"""


@dataclass(frozen=True)
class Optimization:
    """An optimizer with its own clipping and learning-rate schedule.

    Args:
        optimizer: The optimizer. Parameters that are in none of a trainer's optimizers are not
            trained.
        clip: Largest gradient norm, instead of the setting `grad_clip`. None: `grad_clip` applies.
        schedule: Function from the progress of the stage (0 to 1) to a factor. The learning rate of
            each group is multiplied by it, as well as by the engine's factor (`warmup`,
            `lr_schedule`). None: 1.

    Raises:
        ValueError: `clip` is a sequence, but not of one entry for each parameter group.
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
        """The parameters with `requires_grad`. A trainer may change that from step to step."""
        return [
            p for group in self.optimizer.param_groups for p in group["params"] if p.requires_grad
        ]


class Trainer(ABC):
    """The base class of trainers: one training stage.

    Attributes:
        modules: Networks that the stage trains or that checkpoints must contain, by name. They are
            in training mode during a step, and the setting `compile` compiles them. State that must
            survive from step to step belongs into one of them or into an optimizer: other
            attributes are not saved.
        optimizers: Optimizers by the name that is passed to `Engine.update`, with or without
            clipping and a schedule of their own. Only parameters in an optimizer are trained. Those
            of the generator, the text encoder and the helpers are averaged (`ema_decay`), and the
            averages replace them when the stage ends.
        eager: Names of modules that must not be compiled, for example because a double backward
            pass goes through them.
        encode: Function that turns images (B, 3, H, W) into what a step needs of them, row by row,
            by networks that the stage does not train: latents, for example. The engine may then
            precompute it for the whole data set (`cache_views`) and pass `batch.encoded` instead of
            images. None: a step needs the images themselves.
        shows: Name of the part of a cascade that the stage trains: its sample grids show the
            cascade up to there. None: they show the whole model.
        previews: What `preview` shows, a sentence for the head of the grid. "": nothing is said.
    """

    modules: dict[str, nn.Module]
    optimizers: Mapping[str, Optimizer | Optimization]
    eager: tuple[str, ...] = ()
    encode: Callable[[Tensor], Tensor] | None = None
    shows: str | None = None
    previews: str = ""

    @abstractmethod
    def step(self, batch: Batch, engine: Engine) -> Losses:
        """Run one training step: compute each loss and pass it to `engine.update`.

        With `accumulate`, a step of the run calls this method once for each part of the batch.

        Args:
            batch: This process's rows of the batch, or of a part of it.
            engine: The engine that updates the weights.

        Returns:
            Losses for the log.
        """

    def validation(self, batch: Batch, engine: Engine) -> Losses:
        """Compute the losses of held-out examples, for a curve that can be compared over time.

        Called without gradients, with the averaged weights in evaluation mode. It must change
        nothing: no weights, no buffers, no statistics. A trainer whose `step` changes nothing but
        through `engine.update` may call it here, since this engine's `update` does nothing.

        Timesteps should be the middles of equal strata, one for each example
        (`t2i.core.interfaces.strata.stratified`): the same each time, and over all levels.

        Args:
            batch: A few examples with the same noise at each call. The number of examples is a
                multiple of the number of strata, unless the data has fewer.
            engine: An engine that updates nothing and is not shared with other processes.

        Returns:
            Losses that are means over the examples; lower is better. Empty (the default): the
            trainer has no such loss, as most GANs have none.
        """
        return {}

    def preview(self, batch: Batch) -> Tensor | None:
        """Make images for the stage's sample grids, if the generator cannot be sampled yet.

        An autoencoder, for example, shows originals beside reconstructions. Called without
        gradients.

        Args:
            batch: A few examples, the same at each call.

        Returns:
            Images (N, 3, H, W) in [-1, 1], as many of each example, one example after the other.
            None (the default): the generator is sampled.
        """
        return None

    def finish(self, batches: Callable[[], Batch]) -> None:  # noqa: B027 (most stages have nothing to finish)
        """Finish the stage, for example by measuring the scale of latents.

        By default nothing is done.

        Called once when the stage ends, in every process, without gradients. The networks hold
        their averaged weights and are in evaluation mode.

        Args:
            batches: Function that returns the next batch of training data, a whole global one. The
                batches do not depend on interruptions or on the number of processes.
        """


def optimizations(trainer: Trainer) -> dict[str, Optimization]:
    """Return a trainer's optimizers, each as an `Optimization`.

    Args:
        trainer: A trainer.

    Returns:
        The optimizers by name, with their clipping and schedule.
    """
    return {
        name: given if isinstance(given, Optimization) else Optimization(given)
        for name, given in trainer.optimizers.items()
    }


@dataclass(frozen=True)
class Networks:
    """The networks of a model, as a stage's trainer receives them.

    Args:
        generator: The generator.
        text_encoder: The text encoder whose features condition the generator.
        helpers: Networks that `ModelSpec.helpers` built, by name. They outlive a stage and are in
            checkpoints, but are not saved with the model that is sampled.
    """

    generator: Generator
    text_encoder: TextEncoder
    helpers: Mapping[str, nn.Module] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """A stage of a model's training.

    Args:
        name: Name in logs and errors.
        share: Share of the run's budget, relative to the sum of all stages' shares.
        trainer: Function that makes the trainer of the model's networks when the stage begins. It
            may draw random numbers from torch's global generator only, which the engine seeds.
        settings: Engine settings that differ in this stage, by name. Those in
            `t2i.core.settings.engine.STAGE_SETTINGS` are allowed.
    """

    name: str
    share: float
    trainer: Callable[[Networks], Trainer]
    settings: Mapping[str, Any] = field(default_factory=dict)
