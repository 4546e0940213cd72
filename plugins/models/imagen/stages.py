"""The generators of DeepFloyd IF's stages, on diffusers' network.

Source: DeepFloyd IF; Saharia et al. 2022.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.families.cascade import LEVEL, PREVIOUS, Enlarging, rounded
from t2i.core.families.continuous import named_schedule
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.interfaces.noise import Noise
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.cascades.augmentation import augmented, enlarged
from t2i.plugins.common.diffusion.sampling import schedule_of
from t2i.plugins.common.diffusion.text_map import conditioned
from t2i.plugins.common.weights.diffusers_folders import described_network, keep_description
from t2i.plugins.models.imagen.deepfloyd import DeepFloydConfig

POOLED = "pooled words"  # name of the vector that joins the time embedding, in the text's extras


def pooled_before(emb: Tensor, encoder_hidden_states: Tensor, added_cond_kwargs: Any) -> Tensor:
    """Return the vector that was pooled before the network was called, once for all steps.

    It takes the place of the method `get_aug_embed` of diffusers' network.

    Args:
        emb: Not used.
        encoder_hidden_states: Not used.
        added_cond_kwargs: Holds the vector under `POOLED`.

    Returns:
        The vector, float (B, width).
    """
    vector: Tensor = added_cond_kwargs[POOLED]
    return vector


class FirstStage(DiffusionGenerator):
    """The stage that draws the smallest images.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model that describes the network with its own configuration. None:
            it is built or loaded as the settings say.

    Raises:
        UserError: A pretrained network cannot be loaded, or does not fit.
    """

    def __init__(
        self, config: DeepFloydConfig, text: TextShape, assets: Path | None = None
    ) -> None:
        super().__init__()
        self.config, self.image_size = config, config.image_size
        self.noise_shape = (3, config.image_size, config.image_size)
        self.size_step = config.step
        self.schedule, self.prediction = schedule_of(config), config.prediction
        self.learned_range = config.learned_range
        given = described_network(UNet2DConditionModel, config.weights, "unet", assets)
        self.unet = cast(Any, given or UNet2DConditionModel(**unet_of(config, text)))
        _check_fit(self.unet.config, config, text)
        self.unet.get_aug_embed = pooled_before

    def condition(self, text: TextFeatures) -> TextFeatures:
        pool, words = self.unet.add_embedding, text.words
        if self.config.masked:  # a caption's vector does not depend on the padding of its batch
            lengths = text.mask.sum(1).clamp_min(1).tolist()
            vector = torch.cat([pool(words[i : i + 1, :n]) for i, n in enumerate(lengths)])
        else:
            vector = pool(words)
        return replace(text, extras={**text.extras, POOLED: vector})

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        return self._outputs(x_t, t, text)[:, :3]

    def ranged(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> tuple[Tensor, Tensor]:
        if not self.learned_range:
            return super().ranged(x_t, t, text)
        prediction, v = self._outputs(x_t, t, text).chunk(2, 1)
        return prediction, v

    def _outputs(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        """Call the network."""
        return self._called(x_t, t, text)

    def _called(
        self, x: Tensor, t: Tensor, text: TextFeatures, told: Tensor | None = None
    ) -> Tensor:
        """Call the network, with the timesteps (B,) of the noise in an enlarged image."""
        output: Tensor = self.unet(
            x,
            self.schedule.embedded(t),
            encoder_hidden_states=text.words,
            encoder_attention_mask=text.mask if self.config.masked else None,
            class_labels=told,
            added_cond_kwargs={POOLED: conditioned(text, POOLED)},
            return_dict=False,
        )[0]
        return output

    def save_assets(self, folder: Path) -> None:
        super().save_assets(folder)
        if self.config.weights:
            keep_description(self.unet, "unet", folder)


class SecondStage(Enlarging, FirstStage):
    """The stage that enlarges images.

    Noise is added after the enlargement. Sampled without smaller images, it is given grey and the
    highest level.

    Args:
        config: The model's settings, with `low_size`.
        text: Widths of the text features.
        assets: As of `FirstStage`.
    """

    def __init__(
        self, config: DeepFloydConfig, text: TextShape, assets: Path | None = None
    ) -> None:
        super().__init__(config, text, assets)
        assert config.low_size is not None
        self.low_size = config.low_size
        self.levels = named_schedule(config.augmentation_schedule, config.augmentation_timesteps)

    def enlarging(
        self, images: Tensor, noise: Noise, level: Tensor | None = None
    ) -> dict[str, Tensor]:
        if level is None:
            level = images.new_full((len(images),), self.config.augmentation_sampling)
        ratio = self.image_size // self.low_size
        size = (ratio * images.shape[-2], ratio * images.shape[-1])
        large = enlarged(rounded(images), size, "corners")
        eps = noise.normal("augmentation", 0, large.shape[1:])
        return {PREVIOUS: self.noised(large, level, eps), LEVEL: level}

    def noised(self, large: Tensor, level: Tensor, eps: Tensor) -> Tensor:
        """Add noise to enlarged images.

        Args:
            large: The images, (B, 3, H, W).
            level: Level of each, (B,) from 0 (unchanged) to 1.
            eps: Noise from N(0, I), (B, 3, H, W).

        Returns:
            The images with noise, (B, 3, H, W).
        """
        return augmented(large, level, eps, self.levels)

    def condition(self, text: TextFeatures) -> TextFeatures:
        text = super().condition(text)
        if PREVIOUS in text.extras:
            return text
        side, extras = self.image_size, dict(text.extras)
        extras[PREVIOUS] = text.sentence.new_zeros(len(text), 3, side, side)
        extras[LEVEL] = text.sentence.new_full((len(text),), self.config.augmentation)
        return replace(text, extras=extras)

    def _outputs(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        large = enlarged(conditioned(text, PREVIOUS), (x_t.shape[-2], x_t.shape[-1]))
        told = self.levels.time_at(conditioned(text, LEVEL))
        return self._called(torch.cat([x_t, large], 1), t, text, told)


def generator_of(
    config: DeepFloydConfig, text: TextShape, assets: Path | None = None
) -> FirstStage:
    """Build the generator of a stage.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: As of `FirstStage`.

    Returns:
        The generator; a `SecondStage` with `low_size`.
    """
    kind = FirstStage if config.low_size is None else SecondStage
    return kind(config, text, assets)


def unet_of(config: DeepFloydConfig, text: TextShape) -> dict[str, Any]:
    """Describe a stage's network as settings of diffusers' UNet2DConditionModel.

    Args:
        config: The model's settings.
        text: Widths of the text features.

    Returns:
        The settings.
    """
    second, width = config.low_size is not None, config.words or config.network[-1]
    return {
        "sample_size": config.image_size,
        "in_channels": 6 if second else 3,
        "out_channels": 6 if config.learned_range else 3,
        "block_out_channels": config.network,
        "layers_per_block": config.layers,
        "down_block_types": tuple(
            "SimpleCrossAttnDownBlock2D" if here else "ResnetDownsampleBlock2D"
            for here in config.attention
        ),
        "up_block_types": tuple(
            "SimpleCrossAttnUpBlock2D" if here else "ResnetUpsampleBlock2D"
            for here in reversed(config.attention)
        ),
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "attention_head_dim": config.head_width,
        "cross_attention_dim": width,
        "cross_attention_norm": "group_norm",
        "encoder_hid_dim": text.words,
        "addition_embed_type": "text",
        "addition_embed_type_num_heads": config.pool_heads,
        "class_embed_type": "timestep" if second else None,
        "resnet_time_scale_shift": "scale_shift",
        "resnet_out_scale_factor": 1 / config.skip_scale,
        "mid_block_scale_factor": 1 / config.skip_scale,
        "resnet_skip_time_act": True,
        "act_fn": "gelu",
        "time_embedding_act_fn": "gelu",
        "norm_num_groups": config.groups,
    }


def _check_fit(network: Any, config: DeepFloydConfig, text: TextShape) -> None:
    """Raise UserError if a pretrained network does not fit the settings or the text encoder."""
    where = f"weights = {config.weights}"
    inward, outward = (6 if config.low_size else 3), (6 if config.learned_range else 3)
    if (network.in_channels, network.out_channels) != (inward, outward):
        raise UserError(
            f"{where}: it turns {network.in_channels} channels into {network.out_channels}, not "
            f"{inward} into {outward}"
        )
    width = network.encoder_hid_dim or network.cross_attention_dim
    if width != text.words:
        raise UserError(
            f"{where}: it reads words of width {width}, the text encoder gives {text.words}: name "
            "the one that it was trained with (encoder.weights)"
        )
