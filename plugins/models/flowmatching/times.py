"""Timesteps at which a flow is trained, drawn by inversion so that each image keeps its number."""

from __future__ import annotations

import torch
from torch import Tensor

from t2i.plugins.models.flowmatching.config import FlowMatchingConfig


def timesteps(config: FlowMatchingConfig, u: Tensor) -> Tensor:
    """Turn uniform numbers into timesteps of the density that the settings name.

    A logit-normal timestep is sigmoid(n), with n ~ N(mean, std^2) (Esser et al. 2024, section 3.1).
    A shift by k then moves timesteps towards the noise: k t / (1 + (k - 1) t) (there, section
    5.3.2).

    Args:
        config: Settings of the model.
        u: Numbers from U[0, 1), (B,).

    Returns:
        Timesteps (B,), from 0 to 1.
    """
    t = u
    if config.times == "logit-normal":
        normal = torch.special.ndtri(u.double()) * config.logit_std + config.logit_mean
        t = torch.sigmoid(normal).to(u.dtype)
    return config.shift * t / (1 + (config.shift - 1) * t)
