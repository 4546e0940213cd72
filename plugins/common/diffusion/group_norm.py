"""Group normalisation as in the U-Nets of Song et al. 2021 and Karras et al. 2022."""

from __future__ import annotations

from torch import nn

from t2i.core.errors import UserError


def group_norm(channels: int, eps: float) -> nn.GroupNorm:
    """Build a group normalisation of up to 32 groups of at least 4 channels.

    Args:
        channels: Channels.
        eps: Number that is added to the variance.

    Returns:
        The layer.

    Raises:
        UserError: The channels cannot be divided into such groups.
    """
    groups = min(32, channels // 4)
    if not groups or channels % groups:
        raise UserError(
            f"a normalisation of {channels} channels: they cannot be divided into {groups} groups; "
            "choose the network's channels so that those of each level are a multiple of 32"
        )
    return nn.GroupNorm(groups, channels, eps)
