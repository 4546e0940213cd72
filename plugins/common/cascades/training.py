"""Training of cascades: a stage for each part, and the upsampler's trainer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from t2i.core.families.cascade import LEVEL, PREVIOUS, CascadeGenerator, low_res
from t2i.core.interfaces.noise import Noise
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Stage, Trainer
from t2i.plugins.common.cascades.augmentation import augmented
from t2i.plugins.common.cascades.config import PartConfig, UpsamplerSettings
from t2i.plugins.common.cascades.networks import UpsamplerGenerator
from t2i.plugins.common.diffusion.training import DenoisingTrainer


class UpsamplerTrainer(DenoisingTrainer):
    """Trains an upsampler on pairs of an image and the same image made smaller.

    The smaller image gets noise of a level that is uniform up to `augmentation`.

    Args:
        config: Settings of the upsampler.
        networks: The model's networks; the generator is an `UpsamplerGenerator`.
        text: Whether a text encoder that can be trained is. Without `config.text` it never is.
    """

    def __init__(self, config: UpsamplerSettings, networks: Networks, text: bool = True) -> None:
        super().__init__(config, networks, text and config.text)
        assert isinstance(networks.generator, UpsamplerGenerator)
        self.upsampler, self.settings = networks.generator, config

    def step(self, batch: Batch, engine: Engine) -> Losses:
        with torch.no_grad():
            images = self.clean(batch)
            z_0, low = self.pairs(images, batch.noise)
            level = batch.noise.uniform("level", 0, ()) * self.settings.augmentation
            added = batch.noise.normal("augmentation", 0, low.shape[1:])
            low = augmented(low, level, added, self.upsampler.levels)
        eps = batch.noise.normal("eps", 0, z_0.shape[1:])
        text = self.captions(batch)
        text = replace(text, extras={**text.extras, PREVIOUS: low, LEVEL: level})
        return self.learn(z_0, eps, self.times(batch.noise), text, engine)

    def pairs(self, images: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Make what is trained on of images: the images or parts of them, and both made smaller.

        Args:
            images: Images, (B, 3, H, W).
            noise: Source of the places of the parts.

        Returns:
            Images (B, 3, crop, crop), and the same at the smaller size.
        """
        config, ratio = self.settings, self.settings.ratio_of_sizes
        low = low_res(images, config.low_size)
        if not config.crop or config.crop == config.image_size:
            return images, low
        side = config.crop // ratio
        places = noise.integers("crop", 0, config.low_size - side + 1, (2,)).tolist()
        cut = [low[i, :, y : y + side, x : x + side] for i, (y, x) in enumerate(places)]
        large = [
            images[i, :, y * ratio : (y + side) * ratio, x * ratio : (x + side) * ratio]
            for i, (y, x) in enumerate(places)
        ]
        return torch.stack(large), torch.stack(cut)


class PartTrainer(Trainer):
    """Trains one part of a cascade by the trainer that it would have alone.

    The images are reduced to the part's size, and its random numbers come from the scope of its
    name. Sample grids show the cascade up to this part, unless its trainer has its own preview.

    Args:
        name: Name of the part.
        size: Height and width of the part's images.
        trainer: Its trainer.
    """

    def __init__(self, name: str, size: int, trainer: Trainer) -> None:
        self.part, self.size, self.trainer = name, size, trainer
        self.modules, self.optimizers = trainer.modules, trainer.optimizers
        self.eager, self.shows = trainer.eager, name
        self.encode, self.previews = self._encoded if trainer.encode else None, trainer.previews

    def _encoded(self, images: Tensor) -> Tensor:
        assert self.trainer.encode is not None
        return self.trainer.encode(low_res(images, self.size))

    def _own(self, batch: Batch) -> Batch:
        """Return the batch as the part's trainer receives it."""
        images = batch.images if batch.encoded is not None else low_res(batch.images, self.size)
        return replace(batch, images=images, noise=batch.noise.scope(self.part))

    def step(self, batch: Batch, engine: Engine) -> Losses:
        return self.trainer.step(self._own(batch), engine)

    def validation(self, batch: Batch, engine: Engine) -> Losses:
        return self.trainer.validation(self._own(batch), engine)

    def preview(self, batch: Batch) -> Tensor | None:
        return self.trainer.preview(self._own(batch))

    def finish(self, batches: Callable[[], Batch]) -> None:
        self.trainer.finish(lambda: self._own(batches()))


def part_stage(
    name: str,
    config: PartConfig,
    trainer: Callable[[Networks], Trainer],
    settings: dict[str, object] | None = None,
) -> Stage:
    """Make the stage that trains one part of a cascade.

    Args:
        name: Name of the part, and of the stage.
        config: Settings of the part. Its `share` and `training` are those of the stage.
        trainer: Makes the part's trainer of its networks: the generator among them is the part. All
            parts share one text encoder; only one of them should train it (usually the first).
        settings: Engine settings of this stage, beneath `training`. None: the run's.

    Returns:
        The stage.
    """

    def made(networks: Networks) -> Trainer:
        assert isinstance(networks.generator, CascadeGenerator)
        own = replace(networks, generator=networks.generator.part(name))
        return PartTrainer(name, config.image_size, trainer(own))

    return Stage(name, config.share, made, {**(settings or {}), **config.training})
