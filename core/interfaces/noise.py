"""Noise is a source, not a tensor: draws are keyed, so they depend on nothing but their key.

Sampling: `PromptNoise` keys every image by (seed, prompt index, sample index); batch size, order and number of
processes do not matter, and two models get the same draws (paired noise).
Training: `StepNoise` keys every draw by (seed, step) for the whole global batch and hands each process its rows, so
that training needs no random state to resume and does not depend on the number of processes.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor


def random_stream(*key: int | str) -> np.random.Generator:
    """A counter-based random stream (Philox) that depends only on the key, on every machine."""
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def seeded(*key: int | str) -> None:
    """Seeds torch's global generators by the key: initial weights, dropout."""
    torch.manual_seed(int(random_stream(*key).integers(2**63)))


class Noise(ABC):
    """Random draws for a batch of images. `name` and `step` say which draw: the same ones give the same numbers."""

    device: torch.device | str

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _draw(self, kind: str, name: str, step: int, shape: Sequence[int]) -> Tensor: ...

    @abstractmethod
    def _seeds(self, name: str, step: int) -> list[int]:
        """One seed an image, below 2**63."""

    @abstractmethod
    def scope(self, name: str) -> Self:
        """The same source under a name of its own: a part of a model shares no draw with another part.

        Scopes nest. A start that was given (`PromptNoise.given`) belongs to the source it was given to, not to its
        scopes.

        Args:
            name: the part's name, such as "upsampler".
        """

    def normal(self, name: str, step: int, shape: Sequence[int]) -> Tensor:
        """(B, *shape) float32 from N(0, 1), on the source's device."""
        return self._draw("standard_normal", name, step, shape)

    def uniform(self, name: str, step: int, shape: Sequence[int]) -> Tensor:
        """(B, *shape) float32 from U[0, 1), on the source's device."""
        return self._draw("random", name, step, shape)

    def integers(self, name: str, step: int, high: int, shape: Sequence[int] = ()) -> Tensor:
        """(B, *shape) int64, uniform on 0..high-1."""
        return (self.uniform(name, step, shape) * high).long().clamp_(max=high - 1)

    def categorical(self, name: str, step: int, logits: Tensor) -> Tensor:
        """Draws classes with probabilities softmax(logits), by inversion of the distribution function.

        Args:
            logits: (B, *shape, K), K classes; -inf forbids a class.

        Returns:
            (B, *shape) int64.
        """
        coarse, fine = self.uniform(name, step, (*logits.shape[1:-1], 2)).double().unbind(-1)
        u = (
            coarse + fine * 2.0**-24
        )  # float32 draws are multiples of 2^-24, too coarse for rare classes
        cumulative = logits.double().softmax(-1).cumsum(-1)
        threshold = (u * cumulative[..., -1]).unsqueeze(-1)
        # The first class beyond the threshold: one of probability 0 adds nothing, so it is never the first.
        return (
            torch.searchsorted(cumulative, threshold, right=True)
            .squeeze(-1)
            .clamp_(max=logits.shape[-1] - 1)
        )

    def start(self, name: str, shape: Sequence[int]) -> Tensor:
        """(B, *shape): what a sampler starts from, drawn from N(0, 1) unless it was given."""
        return self.normal(name, 0, shape)

    def generators(self, name: str, step: int) -> list[torch.Generator]:
        """One torch.Generator an image, for libraries that draw by themselves (diffusers' `randn_tensor`)."""
        return [torch.Generator().manual_seed(seed) for seed in self._seeds(name, step)]


def _values(stream: np.random.Generator, kind: str, shape: Sequence[int]) -> np.ndarray:
    draw = stream.standard_normal if kind == "standard_normal" else stream.random
    return draw(tuple(shape), dtype=np.float32)


@dataclass(frozen=True)
class PromptNoise(Noise):
    """Noise for sampling. keys: for each image of the batch, (prompt index, sample index). given: what the images
    start from (B, ...), where that is not drawn. path: the names of the scopes, the outermost first."""

    seed: int
    keys: tuple[tuple[int, int], ...]
    device: torch.device | str = "cpu"
    given: Tensor | None = None
    path: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: slice) -> PromptNoise:
        given = None if self.given is None else self.given[index]
        return replace(self, keys=self.keys[index], given=given)

    def scope(self, name: str) -> PromptNoise:
        return replace(self, given=None, path=(*self.path, name))

    def start(self, name: str, shape: Sequence[int]) -> Tensor:
        return super().start(name, shape) if self.given is None else self.given

    def _draw(self, kind: str, name: str, step: int, shape: Sequence[int]) -> Tensor:
        streams = (
            random_stream(self.seed, "prompt", *key, *_scoped(self.path), name, step)
            for key in self.keys
        )
        return torch.from_numpy(np.stack([_values(stream, kind, shape) for stream in streams])).to(
            self.device
        )

    def _seeds(self, name: str, step: int) -> list[int]:
        streams = (
            random_stream(self.seed, "torch", *key, *_scoped(self.path), name, step)
            for key in self.keys
        )
        return [int(stream.integers(2**63)) for stream in streams]


@dataclass(frozen=True)
class StepNoise(Noise):
    """Noise for one training step. The global batch has `total` rows; this process has `count` from `start_row` on."""

    seed: int
    at: int
    start_row: int
    count: int
    total: int
    device: torch.device | str = "cpu"
    path: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.count

    def scope(self, name: str) -> StepNoise:
        return replace(self, path=(*self.path, name))

    def _draw(self, kind: str, name: str, step: int, shape: Sequence[int]) -> Tensor:
        stream = random_stream(self.seed, "train", self.at, *_scoped(self.path), name, step)
        rows = _values(stream, kind, (self.total, *shape))[
            self.start_row : self.start_row + self.count
        ]
        return torch.from_numpy(rows).to(self.device)

    def _seeds(self, name: str, step: int) -> list[int]:
        stream = random_stream(self.seed, "torch-train", self.at, *_scoped(self.path), name, step)
        seeds: list[int] = stream.integers(2**63, size=self.total).tolist()
        return seeds[self.start_row : self.start_row + self.count]


def _scoped(path: tuple[str, ...]) -> tuple[str, ...]:
    """Scopes as parts of a key: marked, so that a scope "a" is never a draw named "a"."""
    return tuple(f"scope:{name}" for name in path)


def slerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Spherical interpolation (N, ...) from a to b (...), at each share (N,) of the way: half way between two draws
    from N(0, I) their mean would be too small a vector to be such a draw (DDIM, appendix D.5)."""
    shape = (-1, *[1] * a.dim())
    cosine = (a * b).sum() / (a.norm() * b.norm())
    angle = torch.acos(cosine.clamp(-1, 1)).clamp_min(1e-4)
    first, second = torch.sin((1 - share) * angle), torch.sin(share * angle)
    return (first.view(shape) * a + second.view(shape) * b) / torch.sin(angle)
