"""Noise schedules of tokens: with time they are masked, or replaced by others."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class TokenSchedule(ABC):
    """q(x_t | x_0): a clean token stays with probability abar(t), is masked with gbar(t), and else becomes any of the K
    tokens, each with probability bbar(t) = (1 - abar(t) - gbar(t)) / K (VQ-Diffusion, Gu et al. 2022, eq. 8)."""

    @abstractmethod
    def kept(self, t: Tensor) -> Tensor:
        """abar(t) (B,) float, for times t (B,)."""

    @abstractmethod
    def masked(self, t: Tensor) -> Tensor:
        """gbar(t) (B,) float, for times t (B,)."""
