"""Kinds of values in the configurations of diffusers' networks.

diffusers does not check them: a wrong one ends in an error of any class, far from its cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from t2i.core.errors import UserError

Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Counts = Annotated[tuple[Count, ...], Field(min_length=1)]
Words = Annotated[tuple[Annotated[str, Field(strict=True)], ...], Field(min_length=1)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]


class NetworkTypes(BaseModel):
    """Settings of U-Nets and autoencoders that are read here, as their config.json has them."""

    model_config = ConfigDict(extra="ignore")

    block_out_channels: Counts = (1,)
    """Channels of each level."""

    down_block_types: Words = ("",)
    """Class of each level of the first half."""

    up_block_types: Words = ("",)
    """Class of each level of the second half."""

    layers_per_block: Count | Counts = 1
    """Residual blocks of each level."""

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


def check_types(config: Mapping[str, Any], file: Path) -> None:
    """Check that the settings of a network are of the kinds that they must be.

    Args:
        config: The settings by name.
        file: The file that they are from, for errors.

    Raises:
        UserError: One is not.
    """
    try:
        NetworkTypes.model_validate(dict(config))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = str(first["loc"][0])
        raise UserError(
            f"{file}: {key} = {str(config[key])[:60]!r}: {first['msg']}; get this file again from "
            "where the folder is from"
        ) from None
