"""Training steps of one stage on a batch in memory, to measure their time or their memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from t2i.core.devices import best_device
from t2i.core.engine.casting import keeps_casts
from t2i.core.engine.ema import Ema
from t2i.core.engine.local import LocalEngine
from t2i.core.engine.preparing import PreparedStage
from t2i.core.errors import UserError, nearest
from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.text import TextEncoder, TextFeatures
from t2i.core.interfaces.trainer import Batch, Stage
from t2i.core.models.building import build, stage_settings, stages_of
from t2i.core.runs.configure import RunConfig

WORDS = 15  # words in a caption, as in COCO
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Trial:
    """A stage with fresh weights that is ready for steps.

    Images and text features are random, no data set is read, and the weights do not matter. Where
    the text encoder gives more than vectors, such as tokens, the features are its own. Only a stage
    that trains the text encoder runs it in each step. The settings channels_last, compile and
    precision are those of the configuration.

    Args:
        config: The model's configuration.
        stage: Name of the stage. None: the last.
        device: The device.

    Attributes:
        settings: The stage's settings.
        prepared: The stage's networks and optimizers.

    Raises:
        UserError: The model has no such stage, or none at all.
    """

    def __init__(self, config: RunConfig, stage: str | None, device: torch.device) -> None:
        self._device = device
        model = build(config).to(device)
        chosen = _stage(config, model.text_encoder, stage)
        self._encoder = model.text_encoder
        self.settings = stage_settings(config, chosen)
        self.prepared = PreparedStage(model, chosen.trainer(model.networks), self.settings, device)
        self._averages = Ema.of(self.prepared.trained(), self.settings)
        # The whole batch is one micro-batch, whatever `accumulate` is.
        self._engine = LocalEngine(
            self.prepared.trainer, self.settings.model_copy(update={"accumulate": 1}), progress=0.5
        )

    def steps(self, count: int) -> Callable[[], None]:
        """Prepare training steps.

        Args:
            count: Number of images in each step, all in one micro-batch.

        Returns:
            A function that makes one step, and waits until the device has finished it. It may be
            called any number of times.
        """
        device, settings, prepared = self._device, self.settings, self.prepared
        size, captions = settings.image_size, (" ".join(["word"] * WORDS),) * count
        images = torch.rand(count, 3, size, size, device=device) * 2 - 1
        if settings.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        features = _features(self._encoder, captions, device)
        encode = self._encoder.encode if prepared.encoder_trains else lambda _: features
        noise = StepNoise(0, 0, 0, count, count, device)
        cached = keeps_casts(settings)
        dtype, autocast = DTYPES.get(settings.precision), settings.precision != "no"

        def step() -> None:
            batch = Batch(images, captions, captions, noise, encode)
            with torch.autocast(device.type, dtype, enabled=autocast, cache_enabled=cached):
                prepared.trainer.step(batch, self._engine)
            if device.type != "cpu":
                torch.accelerator.synchronize()

        return step


def training_step(
    config: RunConfig, *, stage: str | None = None, batch_size: int | None = None
) -> Callable[[], None]:
    """Prepare a whole training step of a stage, on a batch in memory.

    Text features are made beforehand, as by `Trial`; only a stage that trains the text encoder runs
    it in each step. The settings channels_last, compile and precision are those of the
    configuration.

    Args:
        config: The model's configuration.
        stage: Name of the stage. None: the last.
        batch_size: Images in the batch, all in one micro-batch. None: that of the stage.

    Returns:
        A function that makes one step, and waits until the device has finished it. It may be called
        any number of times.

    Raises:
        UserError: The model has no such stage, or none at all.
    """
    trial = Trial(config, stage, best_device())
    return trial.steps(batch_size or trial.settings.batch_size)


def _stage(config: RunConfig, encoder: TextEncoder, name: str | None) -> Stage:
    stages = stages_of(config, encoder)
    by_name = {stage.name: stage for stage in stages}
    if not stages:
        raise UserError(f"model '{config.model}' has no training stage: there is nothing to time")
    if name is not None and name not in by_name:
        raise UserError(f"model '{config.model}' has no stage '{name}'{nearest(name, by_name)}")
    return stages[-1] if name is None else by_name[name]


def _features(
    encoder: TextEncoder, captions: tuple[str, ...], device: torch.device
) -> TextFeatures:
    """Make features of captions: random ones, or the encoder's where it has more than vectors."""
    count, shape = len(captions), encoder.shape
    with torch.no_grad():
        one = encoder.encode(captions[:1])
    if one.extras:  # such as tokens, whose values cannot be any
        rows = one.map(lambda x: x.repeat(count, *[1] * (x.dim() - 1)))
        return replace(rows, captions=captions)
    sentence = torch.randn(count, shape.sentence, device=device)
    words = torch.randn(count, WORDS, shape.words, device=device)
    mask = torch.ones(count, WORDS, dtype=torch.bool, device=device)
    return TextFeatures(sentence, words, mask, captions)
