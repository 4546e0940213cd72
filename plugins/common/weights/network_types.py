"""Kinds of values in the configurations of diffusers' networks.

diffusers does not check them: a wrong one ends in an error of any class, far from its cause.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from t2i.core.errors import UserError
from t2i.core.io.json_files import json_object
from t2i.core.models.identify import shapes_of
from t2i.core.settings import MOST_LAYERS

LEAST = 10_000_000  # numbers of tensors that may be missing, such as an unused projection
WIDTHS = ("hidden_size", "vocab_size", "max_position_embeddings", "intermediate_size",
          "projection_dim")  # fmt: skip
"""Settings of a CLIP that are one side of a tensor; `hidden_size` is the other."""

CONDITIONS = ("joint_attention_dim", "caption_projection_dim", "pooled_projection_dim",
              "caption_channels", "cross_attention_dim", "addition_time_embed_dim",
              "projection_class_embeddings_input_dim")  # fmt: skip
"""Settings of a denoiser that are one side of a tensor; its width is the other."""

MOST_LEVELS = 64
Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Counts = Annotated[tuple[Count, ...], Field(min_length=1, max_length=MOST_LEVELS)]
Layers = Annotated[int, Field(strict=True, ge=1, le=MOST_LAYERS)]
LayersOfLevels = Annotated[
    tuple[Layers | Annotated[tuple[Layers, ...], Field(max_length=MOST_LEVELS)], ...],
    Field(min_length=1, max_length=MOST_LEVELS),
]
Words = Annotated[
    tuple[Annotated[str, Field(strict=True)], ...], Field(min_length=1, max_length=MOST_LEVELS)
]
Blocks = Annotated[
    tuple[Annotated[int, Field(strict=True, ge=0)], ...], Field(max_length=MOST_LAYERS)
]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Switch = Annotated[bool, Field(strict=True)]


class NetworkTypes(BaseModel):
    """Settings of diffusers' networks that are read here, as their config.json has them."""

    model_config = ConfigDict(extra="ignore")

    block_out_channels: Counts = (1,)
    """Channels of each level."""

    down_block_types: Words = ("",)
    """Class of each level of the first half."""

    up_block_types: Words = ("",)
    """Class of each level of the second half."""

    layers_per_block: Layers | LayersOfLevels = 1
    """Residual blocks of each level."""

    transformer_layers_per_block: Layers | LayersOfLevels = 1
    """Transformer blocks of each level that attends to words."""

    reverse_transformer_layers_per_block: LayersOfLevels | None = None
    """The same for the second half."""

    cross_attention_dim: Count | Counts | None = None
    """Width of the words that are attended to."""

    dropout: Share = 0.0
    """Share of what the dropouts drop."""

    attention_head_dim: Count | Counts | None = None
    """Channels of an attention head, or the number of heads."""

    sample_size: Count | Counts | None = None
    """Height and width of the input."""

    in_channels: Count = 1
    """Channels of the input."""

    out_channels: Count = 1
    """Channels of the output."""

    latent_channels: Count = 1
    """Channels of an autoencoder's latents."""

    norm_num_groups: Count | None = None
    """Groups of the group normalisations."""

    scaling_factor: Positive = 1.0
    """What an autoencoder's latents are multiplied by."""

    shift_factor: Number | None = None
    """What an autoencoder's latents are shifted by."""

    addition_time_embed_dim: Count | None = None
    """Sinusoids of each number of the size that a U-Net reads."""

    projection_class_embeddings_input_dim: Count | None = None
    """Width of the vector that a U-Net reads besides the words."""

    num_layers: Layers = 1
    """Blocks of a diffusion transformer."""

    num_attention_heads: Count | Counts | None = None
    """Attention heads of each block."""

    patch_size: Count | None = None
    """Side of the squares of latents that are tokens of a diffusion transformer."""

    joint_attention_dim: Count | None = None
    """Width of the words that a diffusion transformer reads."""

    caption_projection_dim: Count | None = None
    """Width to which the words are projected."""

    pooled_projection_dim: Count | None = None
    """Width of the sentence that a diffusion transformer reads."""

    caption_channels: Count | None = None
    """Width of the words that a diffusion transformer reads."""

    pos_embed_max_size: Count | None = None
    """Side, in tokens, of the largest image that has position embeddings."""

    interpolation_scale: Positive | None = None
    """What positions are divided by."""

    dual_attention_layers: Blocks = ()
    """Numbers of the blocks with a second attention."""


class TextTypes(BaseModel):
    """Settings of the halves of a CLIP, as their config.json has them."""

    model_config = ConfigDict(extra="ignore")

    vocab_size: Count = 1
    """Tokens that have an embedding."""

    hidden_size: Count = 1
    """Width of the tokens."""

    intermediate_size: Count = 1
    """Width inside each block."""

    projection_dim: Count = 1
    """Width of the space that text and images share."""

    num_hidden_layers: Layers = 1
    """Transformer blocks."""

    num_attention_heads: Count = 1
    """Attention heads of each block."""

    max_position_embeddings: Count = 1
    """Longest caption, in tokens."""

    image_size: Count = 1
    """Height and width of an image, in pixels."""

    patch_size: Count = 1
    """Height and width of a patch, in pixels."""

    num_channels: Count = 1
    """Channels of an image."""

    layer_norm_eps: Positive = 1e-5
    """What is added to the variance in layer norms."""

    attention_dropout: Share = 0.0
    """Share of what the attention's dropout drops."""


def check_types(
    config: Mapping[str, Any], file: Path, types: type[BaseModel] = NetworkTypes
) -> None:
    """Check that the settings of a network are of the kinds that they must be.

    Args:
        config: The settings by name.
        file: The file that they are from, for errors.
        types: The settings that are checked.

    Raises:
        UserError: One is not.
    """
    try:
        types.model_validate(dict(config))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = str(first["loc"][0])
        raise UserError(
            f"{file}: {key} = {str(config[key])[:60]!r}: {first['msg']}; get this file again from "
            "where the folder is from"
        ) from None


def shapes_saved(assets: Path) -> list[tuple[int, ...]] | None:
    """Read the shapes of the tensors of a saved model.

    Args:
        assets: Folder of the assets of one part of the model, or a folder in it. The part's weights
            are in a file beside its assets.

    Returns:
        The shapes. None if the file is not there, or not sound, or holds only changes of a base.
    """
    places = (assets, assets.parent)
    if any("base" in json_object(place.parent / "config.json") for place in places):
        return None
    found = (shapes_of(place.with_suffix(".safetensors")) for place in places)
    return next(([*shapes.values()] for shapes in found if shapes is not None), None)


def shapes_in(folder: Path) -> list[tuple[int, ...]]:
    """Read the shapes of all tensors in a folder.

    Args:
        folder: The folder.

    Returns:
        The shapes; those of files that are not sound are left out.
    """
    files = folder.glob("*.safetensors")
    return [shape for file in files for shape in (shapes_of(file) or {}).values()]


def check_sizes(
    config: Mapping[str, Any],
    file: Path,
    shapes: Collection[tuple[int, ...]],
    more: Mapping[str, int] | None = None,
) -> None:
    """Check that a network is no larger than its weights, before anything of its size is made.

    Args:
        config: The settings by name, of the kinds that `check_types` allows.
        file: The file that they are from, for errors.
        shapes: Shapes of the tensors that are there, the network's among them.
        more: Numbers in a tensor, by the setting that makes it so large. None: those of diffusers'
            networks and of CLIP only.

    Raises:
        UserError: It has more layers than there are tensors, or larger tensors than there are
            numbers in all.
    """
    numbers = max(sum(map(math.prod, shapes)), LEAST)
    channels = config.get("block_out_channels") or (1,)
    layers = {
        "layers_per_block": _sum(config.get("layers_per_block"), len(channels)),
        "transformer_layers_per_block": _sum(config.get("transformer_layers_per_block"), 1),
        "num_hidden_layers": config.get("num_hidden_layers") or 1,
        "num_layers": config.get("num_layers") or 1,
    }
    width = config.get("hidden_size") or 1
    sizes = {
        "block_out_channels": max(channels) ** 2,
        **{key: width * (config.get(key) or 1) for key in WIDTHS},
        **_of_denoiser(config),
        **(more or {}),
    }
    for key, count in layers.items():
        if count > max(len(shapes), 1):
            raise _too_large(file, key, config, f"{len(shapes)} tensors")
    for key, size in sizes.items():
        if size > numbers:
            raise _too_large(file, key, config, f"{numbers} numbers")


def _of_denoiser(config: Mapping[str, Any]) -> dict[str, int]:
    """Count the numbers in tensors of U-Nets and diffusion transformers, by setting."""
    heads, width = config.get("num_attention_heads"), config.get("attention_head_dim")
    if not (isinstance(heads, int) and isinstance(width, int) and "num_layers" in config):
        inner = min(config.get("block_out_channels") or (1,))
        return {key: inner * _largest(config.get(key)) for key in CONDITIONS}
    inner, patch = heads * width, config.get("patch_size") or 1
    side = config.get("pos_embed_max_size") or _largest(config.get("sample_size")) // patch
    return {
        "num_attention_heads": inner**2,
        "patch_size": inner * patch**2,
        "pos_embed_max_size" if "pos_embed_max_size" in config else "sample_size": inner * side**2,
        **{key: inner * _largest(config.get(key)) for key in CONDITIONS},
    }


def _largest(value: Any) -> int:
    """Return a number, the largest of several, or 1 for None."""
    return max(value, default=1) if isinstance(value, (list, tuple)) else value or 1


def _sum(layers: Any, levels: int) -> int:
    """Count the layers of all levels, from one number for all or a list of theirs."""
    if isinstance(layers, int):
        return layers * levels
    return sum(_sum(each, 1) for each in layers or ())


def _too_large(file: Path, key: str, config: Mapping[str, Any], what: str) -> UserError:
    return UserError(
        f"{file}: {key} = {str(config.get(key))[:60]}, but its weights have only "
        f"{what}: get the folder again from where it is from"
    )
