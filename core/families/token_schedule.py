"""Noise schedules of tokens, which are masked, or replaced by other tokens, as t grows.

Letters as in VQ-Diffusion (Gu et al. 2022), section 3.2: abar(t), bbar(t) and gbar(t) are the
cumulative probabilities of equation 8. Masking and replacement are independent, so a schedule is
two curves: the share of tokens that are masked, gbar(t), and the share of the others that are still
clean, abar(t) / (1 - gbar(t)).
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
    """The base class of token schedules: mask-and-replace noise on tokens 0 to K - 1.

    The index K is the mask.

    q(x_t | x_0): a clean token stays with probability abar(t), is masked with probability gbar(t),
    and becomes each of the K tokens with probability bbar(t) = (1 - abar(t) - gbar(t)) / K (eq. 8).
    A masked token stays masked. Tokens are clean at timestep 0: abar(0) = 1. If tokens are only
    masked (D3PM's absorbing chain, MaskGIT), bbar = 0. If they are only replaced (multinomial
    diffusion), gbar = 0.

    Timesteps `t` are tensors (B,), or of one number. All probabilities are float64 of that shape.

    Args:
        vocabulary: Number K of clean tokens.

    Attributes:
        replaces: Whether tokens are replaced, too. False: bbar is 0 at every timestep.
    """

    replaces: bool = True

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    @abstractmethod
    def gbar(self, t: Tensor) -> Tensor:
        """Compute the probability that a token is masked.

        Args:
            t: Timesteps, (B,).

        Returns:
            Probabilities, float64 (B,).
        """

    @abstractmethod
    def intact(self, t: Tensor) -> Tensor:
        """Compute the probability that a token which is not masked has never been replaced.

        It is 1 if tokens are only masked. It is a curve of its own so that bbar is then exactly 0.

        Args:
            t: Timesteps, (B,).

        Returns:
            Probabilities, float64 (B,).
        """

    @abstractmethod
    def times(self, n: int | None = None) -> Tensor:
        """Choose the timesteps of a chain.

        Args:
            n: Number of steps, at least 1. None: the schedule's own.

        Returns:
            Timesteps (n + 1,), noisiest first, on the CPU. The last one is 0.

        Raises:
            UserError: The schedule has fewer steps.
        """

    @abstractmethod
    def random_times(self, noise: Noise) -> Tensor:
        """Draw timesteps for training, uniformly over all but 0.

        Args:
            noise: Source of random numbers for B images.

        Returns:
            Timesteps, (B,).
        """

    @property
    def mask(self) -> int:
        """The index of the mask, K."""
        return self.vocabulary

    def abar(self, t: Tensor) -> Tensor:
        """Compute the probability that a token was neither masked nor replaced.

        Args:
            t: Timesteps, (B,).

        Returns:
            Probabilities, float64 (B,).
        """
        return (1 - self.gbar(t)) * self.intact(t)

    def bbar(self, t: Tensor) -> Tensor:
        """Compute the probability of each of the K tokens to be the result of a replacement.

        Args:
            t: Timesteps, (B,).

        Returns:
            Probabilities, float64 (B,).
        """
        return (1 - self.gbar(t)) * (1 - self.intact(t)) / self.vocabulary

    def transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the probabilities of q(x_t | x_s), for one step or for several (eq. 7).

        Args:
            s: Timesteps, (B,).
            t: Later timesteps, (B,), t > s.

        Returns:
            alpha (the token stays), beta (a replacement leads to a given token) and gamma (the
            token is masked), each float64 (B,).
        """
        unmasked = _ratio(1 - self.gbar(t), 1 - self.gbar(s))
        intact = _ratio(self.intact(t), self.intact(s))
        return unmasked * intact, unmasked * (1 - intact) / self.vocabulary, 1 - unmasked

    def add_noise(self, tokens: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """Draw x_t from q(x_t | x_0).

        Args:
            tokens: Clean tokens x_0, int64 (B, L), from 0 to K - 1.
            t: Timestep of each image, (B,).
            noise: Source of random numbers for B images.

        Returns:
            Noisy tokens, int64 (B, L), from 0 to K.
        """
        kept, masked = self.abar(t), self.gbar(t)
        return self._mixed(tokens, torch.stack([kept, 1 - kept - masked, masked], -1), noise)

    def start(self, noise: Noise, length: int) -> Tensor:
        """Draw the tokens that a chain begins with.

        A token is masked with probability gbar of the noisiest timestep, and is any of the K tokens
        otherwise, as if nothing of x_0 were left.

        Args:
            noise: Source of random numbers for B images.
            length: Number L of tokens of an image.

        Returns:
            Tokens, int64 (B, L), from 0 to K.
        """
        masked = self.gbar(self.times()[:1]).to(noise.device)
        fates = torch.stack([torch.zeros_like(masked), 1 - masked, masked], -1).expand(
            len(noise), 3
        )
        return self._mixed(
            torch.zeros(len(noise), length, dtype=torch.long, device=noise.device), fates, noise
        )

    def _mixed(self, tokens: Tensor, fates: Tensor, noise: Noise) -> Tensor:
        """Keep, replace or mask each of the tokens (B, L) with the probabilities `fates` (B, 3)."""
        logits = fates.clamp_min(0).log()[:, None].expand(-1, tokens.shape[1], -1)
        fate = noise.categorical("fate", 0, logits)
        replaced = noise.integers("replacement", 0, self.vocabulary, tokens.shape[1:])
        return torch.where(fate == 1, replaced, tokens).masked_fill(fate == 2, self.mask)

    def posterior(self, x_t: Tensor, x_0: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """Compute log q(x_s | x_t) for a distribution p of x_0.

        Eq. 11, and eq. 5 if p is certain:

            q(x_s | x_t) = sum over x_0 of q(x_t | x_s) q(x_s | x_0) / q(x_t | x_0) p(x_0)

        The denominator depends on x_0. The sum still takes O(K) only, because q(x_s | x_0) has one
        value at x_0 and is constant elsewhere. Clean tokens from which x_t cannot come are left
        out, whatever p is. If p has no other tokens, the possible ones are taken to be equally
        likely.

        Args:
            x_t: Noisy tokens, int64 (B, L), from 0 to K.
            x_0: Logits of p, (B, L, K); -inf for impossible tokens.
            s: Timesteps, (B,). At s = 0 the result is the distribution of clean tokens.
            t: Later timesteps, (B,), t > s.

        Returns:
            Log-probabilities of x_s, float64 (B, L, K + 1); -inf for impossible tokens.
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

        # q(x_t | x_s) times the sum over x_0: first for each token x_s, then for the mask.
        tokens = torch.where(masked, gamma, alpha * itself + beta) * (a_s * weight + b_s * whole)
        joint = torch.cat([tokens, torch.where(masked, c_s * whole, 0.0)], -1)
        found = joint > 0
        joint = torch.where(found, joint, 1.0) / joint.sum(-1, keepdim=True)
        return torch.where(found, joint.log(), -torch.inf)

    def divergence(self, x_t: Tensor, x_0: Tensor, logits: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """Compute KL(q(x_s | x_t, x_0) || q(x_s | x_t)), the latter for a distribution p of x_0.

        These are the terms of the variational bound (eq. 9 and 10). At s = 0 the result is
        -log p(x_0). It equals what `posterior` gives for both, in closed form. With
        w(v) = p(v) / q(x_t | v), and W the sum of w over v,

            q(x_s = v | x_t) = q(x_t | x_s = v) (a_s w(v) + b_s W)

        so q(x_t | x_s) cancels in the ratio, and one sum over the K tokens remains.

        Args:
            x_t: Noisy tokens that can come from `x_0`, int64 (B, L), from 0 to K.
            x_0: Clean tokens, int64 (B, L), from 0 to K - 1.
            logits: Finite logits of p, (B, L, K).
            s: Timesteps, (B,).
            t: Later timesteps, (B,), t > s.

        Returns:
            Nats, float64 (B, L). Differentiable in `logits`.
        """
        a_s, b_s = (_like(f(s), logits)[..., 0] for f in (self.abar, self.bbar))
        a_t, b_t, c_t = (_like(f(t), logits)[..., 0] for f in (self.abar, self.bbar, self.gbar))
        alpha, beta, gamma = (_like(value, logits)[..., 0] for value in self.transition(s, t))
        masked, kept = x_t == self.mask, x_t == x_0
        log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
        log_p_0 = log_p.gather(-1, x_0[..., None])[..., 0].double()
        if not self.replaces:  # what is not masked is certain
            share = gamma * a_s / torch.where(masked, c_t, 1.0)
            return torch.where(masked, -share * log_p_0, 0.0)

        # q(x_t | x_0 = v) for v = x_t, for other v, and for the true x_0.
        at_itself, at_others = torch.where(masked, c_t, a_t + b_t), torch.where(masked, c_t, b_t)
        certain = at_others == 0
        at_others = at_others.masked_fill(certain, 1.0)
        q_0 = torch.where(kept, at_itself, at_others)
        # log (a_s w(v) + b_s W): its sum over v, and its values at x_0 and at x_t.
        itself = x_t.masked_fill(masked, 0)[..., None]
        p = log_p.exp()
        w = p / at_others[..., None].to(p)
        w = w.scatter(-1, itself, p.gather(-1, itself) / at_itself[..., None].to(p))
        mixed = a_s[..., None].to(p) * w + b_s[..., None].to(p) * w.sum(-1, keepdim=True)
        log_mixed = mixed.clamp_min(torch.finfo(p.dtype).tiny).log()
        whole = log_mixed.sum(-1, dtype=torch.float64)
        at_0 = log_mixed.gather(-1, x_0[..., None])[..., 0].double()
        at_t = log_mixed.gather(-1, itself)[..., 0].double()
        at_0 = torch.where(b_s == 0, a_s.log() + log_p_0 - q_0.log(), at_0)

        # q(x_t | x_s = v) = stay [v = x_t] + come, times a_s [v = x_0] + b_s, over q_0.
        stay, come = torch.where(masked, 0.0, alpha), torch.where(masked, gamma, beta)
        k, log_q, log_ab = self.vocabulary, q_0.log(), (a_s + b_s).log()
        other = come * b_s * ((k - 1) * _log(b_s) + log_ab - k * log_q - whole)
        clean = (come + stay * kept) * a_s * (log_ab - log_q - at_0)
        seen = stay * b_s * (_log(a_s * kept + b_s) - log_q - at_t)
        return torch.where(certain, 0.0, (other + clean + seen) / q_0)


class DiscreteTokenSchedule(TokenSchedule):
    """A chain of T steps. Timesteps are the indexes 0 to T (int64), of which 0 is clean.

    Args:
        vocabulary: Number K of clean tokens.
        gbar: Values of the method `gbar` at the indexes 0 to T, (T + 1,).
        intact: Values of the method `intact` at the indexes 0 to T, (T + 1,).

    Raises:
        ValueError: The tokens are not clean at index 0, or the noise decreases.
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
        self.replaces = bool(intact[-1] < 1)

    def __len__(self) -> int:
        return len(self._gbar) - 1

    @classmethod
    def linear(cls, vocabulary: int, steps: int, masked: float = 0.9) -> DiscreteTokenSchedule:
        """Make the schedule where gbar_t grows to `masked` and abar_t falls to 0, linearly in t.

        Args:
            vocabulary: Number K of clean tokens.
            steps: Number T of steps.
            masked: Share of tokens that are masked at the end, from 0 to 1. 0.9 is the value of
                VQ-Diffusion's paper. At 1 tokens are only masked (D3PM's absorbing chain). At 0
                they are only replaced (multinomial diffusion).

        Returns:
            The schedule.
        """
        u = torch.linspace(0, 1, steps + 1, dtype=torch.float64, device="cpu")
        intact = torch.ones_like(u) if masked == 1 else (1 - u) / (1 - masked * u)
        return cls(vocabulary, masked * u, intact)

    @classmethod
    def vq_diffusion(cls, vocabulary: int, steps: int = 100) -> DiscreteTokenSchedule:
        """Make the schedule of VQ-Diffusion's released code.

        abar_t falls from 0.99999 to 0.000009 and gbar_t grows from 0.000009 to 0.99999, both linear
        in t = 1..T. K bbar_t is always 1e-6, so that tokens are in effect only masked.

        Args:
            vocabulary: Number K of clean tokens.
            steps: Number T of steps.

        Returns:
            The schedule.
        """
        kept = torch.linspace(0.99999, 0.000009, steps, dtype=torch.float64, device="cpu")
        gbar = torch.linspace(0.000009, 0.99999, steps, dtype=torch.float64, device="cpu")
        zero, one = gbar.new_zeros(1), gbar.new_ones(1)
        return cls(vocabulary, torch.cat([zero, gbar]), torch.cat([one, kept / (1 - gbar)]))

    @classmethod
    def cosine(cls, vocabulary: int, steps: int) -> DiscreteTokenSchedule:
        """Make the schedule that only masks, by MaskGIT's cosine: gbar_t = sin(pi t / (2 T)).

        Args:
            vocabulary: Number K of clean tokens.
            steps: Number T of steps.

        Returns:
            The schedule.
        """
        u = torch.linspace(0, 1, steps + 1, dtype=torch.float64, device="cpu")
        return cls(vocabulary, torch.sin(math.pi / 2 * u), torch.ones_like(u))

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
"""Default number of steps of a `MaskingSchedule`. Source: MaskGIT (Chang et al. 2022), table 3."""


class MaskingSchedule(TokenSchedule):
    """A schedule in continuous time that only masks, with t from 0 (clean) to 1 (all masked).

    Args:
        vocabulary: Number K of clean tokens.
        curve: "cosine" for gbar(t) = sin(pi t / 2), which is MaskGIT's (its u is 1 - t); "linear"
            for gbar(t) = t.
    """

    replaces = False

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
    """Divide `later` by `earlier`; the result is 1 where both are 0 and nothing can change."""
    gone = earlier == 0
    return torch.where(gone, 1.0, later / torch.where(gone, 1.0, earlier))


def _like(value: Tensor, logits: Tensor) -> Tensor:
    """Reshape values (B,) or (1,) so that they broadcast with logits (B, L, K)."""
    return value.to(logits.device).view(-1, 1, 1)


def _log(value: Tensor) -> Tensor:
    """Return the logarithm, finite at 0, where it is multiplied by 0."""
    return value.clamp_min(torch.finfo(value.dtype).tiny).log()
