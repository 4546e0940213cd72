"""Noise schedules of tokens: with time they are masked, or replaced by others.

Letters as in VQ-Diffusion (Gu et al. 2022), section 3.2: abar(t), bbar(t), gbar(t) are the
cumulative probabilities of equation 8. A token meets two independent fates, so a schedule is two
curves: how many tokens are masked, gbar(t), and how many of the others are still the clean ones,
abar(t) / (1 - gbar(t)).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.interfaces.noise import Noise


class TokenSchedule(ABC):
    """Mask-and-replace noise on tokens 0..K-1; K itself is the mask.

    q(x_t | x_0): a clean token stays with probability abar(t), is masked with gbar(t), and else
    becomes any of the K tokens, each with probability bbar(t) = (1 - abar(t) - gbar(t)) / K (eq.
    8). A masked token stays masked. Time 0 is clean: abar(0) = 1. Special cases: masks only (D3PM's
    absorbing chain, MaskGIT), where bbar = 0, and replacements only (multinomial diffusion), where
    gbar = 0.

    Times `t` are (B,) tensors, or a tensor of one number; all probabilities are float64 of that
    shape.

    Attributes:
        vocabulary: K, how many clean tokens there are.
    """

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    @abstractmethod
    def gbar(self, t: Tensor) -> Tensor:
        """Probability that a token is masked at time t."""

    @abstractmethod
    def intact(self, t: Tensor) -> Tensor:
        """Probability that a token which is not masked at time t has never been replaced: 1 where tokens are only
        masked. (Apart from gbar, so that bbar is exactly 0 then, not a rounding error.)"""

    @abstractmethod
    def times(self, n: int | None = None) -> Tensor:
        """The times of a chain of n steps, noisiest first: (n + 1,), on the processor, of which the last is 0.

        Args:
            n: number of steps; None: the schedule's own.

        Raises:
            UserError: there are not so many.
        """

    @abstractmethod
    def random_times(self, noise: Noise) -> Tensor:
        """Times (B,) to train at, uniform over all but 0."""

    @property
    def mask(self) -> int:
        """The index that stands for the mask: K."""
        return self.vocabulary

    def abar(self, t: Tensor) -> Tensor:
        """Probability that a token is the clean one at time t because nothing has happened to it."""
        return (1 - self.gbar(t)) * self.intact(t)

    def bbar(self, t: Tensor) -> Tensor:
        """Probability, for each of the K tokens, that a replacement has led to it by time t."""
        return (1 - self.gbar(t)) * (1 - self.intact(t)) / self.vocabulary

    def transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """alpha, beta and gamma of q(x_t | x_s), for times s < t: of one step, or of any number of them (eq. 7)."""
        unmasked = _ratio(1 - self.gbar(t), 1 - self.gbar(s))
        intact = _ratio(self.intact(t), self.intact(s))
        return unmasked * intact, unmasked * (1 - intact) / self.vocabulary, 1 - unmasked

    def add_noise(self, tokens: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """Draws x_t from q(x_t | x_0).

        Args:
            tokens: x_0 (B, L) int64, 0..K-1.
            t: times (B,).
            noise: one row an image.

        Returns:
            (B, L) int64, 0..K.
        """
        kept, masked = self.abar(t), self.gbar(t)
        return self._mixed(tokens, torch.stack([kept, 1 - kept - masked, masked], -1), noise)

    def start(self, noise: Noise, length: int) -> Tensor:
        """Tokens (B, L) to begin a chain with, as if nothing of x_0 were left at its noisiest time: masked with
        probability gbar, and else any of the K tokens."""
        masked = self.gbar(self.times()[:1]).to(noise.device)
        fates = torch.stack([torch.zeros_like(masked), 1 - masked, masked], -1).expand(
            len(noise), 3
        )
        return self._mixed(
            torch.zeros(len(noise), length, dtype=torch.long, device=noise.device), fates, noise
        )

    def _mixed(self, tokens: Tensor, fates: Tensor, noise: Noise) -> Tensor:
        """The tokens (B, L), each kept, replaced or masked with the probabilities `fates` (B, 3)."""
        logits = fates.clamp_min(0).log()[:, None].expand(-1, tokens.shape[1], -1)
        fate = noise.categorical("fate", 0, logits)
        replaced = noise.integers("replacement", 0, self.vocabulary, tokens.shape[1:])
        return torch.where(fate == 1, replaced, tokens).masked_fill(fate == 2, self.mask)

    def posterior(self, x_t: Tensor, x_0: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """log q(x_s | x_t) where x_0 is known only as a distribution p (eq. 11, and eq. 5 where p is certain):

            q(x_s | x_t) = sum over x_0 of q(x_t | x_s) q(x_s | x_0) / q(x_t | x_0) p(x_0)

        The denominator depends on x_0. The sum takes O(K) all the same: q(x_s | x_0) is abar_s on
        x_0 and constant elsewhere. A clean token from which x_t cannot come has no part in it,
        whatever p says; if p holds nothing else possible, the possible ones are taken to be equally
        likely.

        Args:
            x_t: (B, L) int64, 0..K.
            x_0: logits (B, L, K) of p; -inf for what is impossible.
            s, t: times (B,), s < t; s = 0 gives the clean tokens.

        Returns:
            (B, L, K + 1) float64, of which exp sums to 1; -inf for what is impossible.
            Differentiable in `x_0`.
        """
        a_s, b_s, c_s = (_like(value, x_0) for value in (self.abar(s), self.bbar(s), self.gbar(s)))
        a_t, b_t, c_t = (_like(value, x_0) for value in (self.abar(t), self.bbar(t), self.gbar(t)))
        alpha, beta, gamma = (_like(value, x_0) for value in self.transition(s, t))
        masked = (x_t == self.mask)[..., None]
        itself = torch.arange(self.vocabulary, device=x_t.device) == x_t[..., None]

        q_t = torch.where(masked, c_t, a_t * itself + b_t)  # q(x_t | x_0) for each x_0
        possible = q_t > 0
        p = torch.where(possible, x_0.double().softmax(-1), 0.0)
        p = torch.where(p.sum(-1, keepdim=True) > 0, p, possible.double())
        weight = torch.where(possible, p / torch.where(possible, q_t, 1.0), 0.0)
        whole = weight.sum(-1, keepdim=True)

        # q(x_t | x_s) times the sum over x_0, for x_s one of the tokens, and for x_s the mask.
        tokens = torch.where(masked, gamma, alpha * itself + beta) * (a_s * weight + b_s * whole)
        joint = torch.cat([tokens, torch.where(masked, c_s * whole, 0.0)], -1)
        found = joint > 0
        joint = torch.where(found, joint, 1.0) / joint.sum(-1, keepdim=True)
        return torch.where(found, joint.log(), -torch.inf)


class DiscreteTokenSchedule(TokenSchedule):
    """A chain of T steps: `t` is an index 0..T (int64), of which 0 is clean.

    Args:
        vocabulary: K.
        gbar, intact: (T + 1,), from time 0 on: what the methods of that name return.

    Raises:
        ValueError: they begin unclean, or noise is taken away again.
    """

    def __init__(self, vocabulary: int, gbar: Tensor, intact: Tensor) -> None:
        super().__init__(vocabulary)
        self._gbar, self._intact = gbar.double(), intact.double()
        clean = self._gbar[0] == 0 and self._intact[0] == 1
        rising = (self._gbar.diff() >= 0).all() and (self._intact.diff() <= 0).all()
        within = self._gbar[-1] <= 1 and self._intact[-1] >= 0
        if not (gbar.shape == intact.shape and gbar.dim() == 1 and clean and rising and within):
            raise ValueError(
                "tokens are clean at time 0, and masks and replacements never become fewer"
            )

    def __len__(self) -> int:
        return len(self._gbar) - 1

    @classmethod
    def linear(cls, vocabulary: int, steps: int, masked: float = 0.9) -> DiscreteTokenSchedule:
        """gbar_t from 0 to `masked` and abar_t from 1 to 0, linear in t.

        0.9 is VQ-Diffusion's paper, 1 the absorbing chain of D3PM (which only masks), 0 multinomial
        diffusion (which only replaces).
        """
        u = torch.linspace(0, 1, steps + 1, dtype=torch.float64, device="cpu")
        intact = torch.ones_like(u) if masked == 1 else (1 - u) / (1 - masked * u)
        return cls(vocabulary, masked * u, intact)

    @classmethod
    def vq_diffusion(cls, vocabulary: int, steps: int = 100) -> DiscreteTokenSchedule:
        """The schedule of VQ-Diffusion's released code: abar_t from 0.99999 to 0.000009 and gbar_t from 0.000009 to
        0.99999, linear in t = 1..T. K bbar_t is 1e-6 throughout: in effect, tokens are only
        masked.
        """
        kept = torch.linspace(0.99999, 0.000009, steps, dtype=torch.float64, device="cpu")
        gbar = torch.linspace(0.000009, 0.99999, steps, dtype=torch.float64, device="cpu")
        zero, one = gbar.new_zeros(1), gbar.new_ones(1)
        return cls(vocabulary, torch.cat([zero, gbar]), torch.cat([one, kept / (1 - gbar)]))

    def gbar(self, t: Tensor) -> Tensor:
        return self._gbar.to(t.device)[t]

    def intact(self, t: Tensor) -> Tensor:
        return self._intact.to(t.device)[t]

    def times(self, n: int | None = None) -> Tensor:
        most = len(self)
        n = most if n is None else n
        if n > most:
            raise UserError(
                f"{n} sampling steps: the model was trained with {most}; ask for at most so many"
            )
        return torch.tensor([round(i * most / n) for i in range(n, -1, -1)], device="cpu")

    def random_times(self, noise: Noise) -> Tensor:
        return 1 + noise.integers("t", 0, len(self))


MASKING_STEPS = 12
"""Steps of a chain of masks where nothing names another number: MaskGIT's (Chang et al. 2022, table 3)."""


class MaskingSchedule(TokenSchedule):
    """Masks only, in continuous time: `t` is a real number, 0 (clean) to 1 (all masked).

    Args:
        vocabulary: K.
        curve: gbar(t) = sin(pi t / 2) for "cosine" (MaskGIT, whose u is 1 - t), t for "linear".
    """

    def __init__(self, vocabulary: int, curve: Literal["cosine", "linear"] = "cosine") -> None:
        super().__init__(vocabulary)
        self.curve = curve

    def gbar(self, t: Tensor) -> Tensor:
        t = t.double()
        return t if self.curve == "linear" else torch.sin(math.pi / 2 * t)

    def intact(self, t: Tensor) -> Tensor:
        return torch.ones_like(t, dtype=torch.float64)

    def times(self, n: int | None = None) -> Tensor:
        return torch.linspace(1, 0, (MASKING_STEPS if n is None else n) + 1, device="cpu")

    def random_times(self, noise: Noise) -> Tensor:
        return 1 - noise.uniform("t", 0, ())  # (0, 1]


def _ratio(later: Tensor, earlier: Tensor) -> Tensor:
    """later / earlier; 1 where both are 0, and nothing can change any more."""
    gone = earlier == 0
    return torch.where(gone, 1.0, later / torch.where(gone, 1.0, earlier))


def _like(value: Tensor, logits: Tensor) -> Tensor:
    """Values (B,) or (1,), to go with logits (B, L, K)."""
    return value.to(logits.device).view(-1, 1, 1)
