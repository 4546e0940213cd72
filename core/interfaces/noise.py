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
from dataclasses import dataclass

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

    @abstractmethod
    def _draw(self, kind: str, name: str, step: int, shape: Sequence[int]) -> Tensor: ...

    @abstractmethod
    def __len__(self) -> int: ...

    def normal(self, name: str, step: int, shape: Sequence[int]) -> Tensor:
        """(B, *shape) float32 from N(0, 1), on the source's device."""
        return self._draw("standard_normal", name, step, shape)

    def uniform(self, name: str, step: int, shape: Sequence[int]) -> Tensor:
        """(B, *shape) float32 from U[0, 1), on the source's device."""
        return self._draw("random", name, step, shape)

    def integers(self, name: str, step: int, high: int, shape: Sequence[int] = ()) -> Tensor:
        """(B, *shape) int64, uniform on 0..high-1."""
        return (self.uniform(name, step, shape) * high).long().clamp_(max=high - 1)


def _values(stream: np.random.Generator, kind: str, shape: Sequence[int]) -> np.ndarray:
    draw = stream.standard_normal if kind == "standard_normal" else stream.random
    return draw(tuple(shape), dtype=np.float32)


@dataclass(frozen=True)
class PromptNoise(Noise):
    """Noise for sampling. keys: for each image of the batch, (prompt index, sample index). given: what the pictures
    start from (B, ...), where that is not drawn."""

    seed: int
    keys: tuple[tuple[int, int], ...]
    device: torch.device | str = "cpu"
    given: Tensor | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: slice) -> PromptNoise:
        given = None if self.given is None else self.given[index]
        return PromptNoise(self.seed, self.keys[index], self.device, given)

    def start(self, name: str, shape: Sequence[int]) -> Tensor:
        """(B, *shape): what a sampler starts from, given or drawn from N(0, 1)."""
        return self.normal(name, 0, shape) if self.given is None else self.given

    def _draw(self, kind: str, name: str, step: int, shape: Sequence[int]) -> Tensor:
        rows = [_values(random_stream(self.seed, "prompt", *key, name, step), kind, shape) for key in self.keys]
        return torch.from_numpy(np.stack(rows)).to(self.device)

    def generators(self, name: str, step: int) -> list[torch.Generator]:
        """One torch.Generator an image, for libraries that draw by themselves (diffusers' `randn_tensor`)."""
        seeds = [int(random_stream(self.seed, "torch", *key, name, step).integers(2**63)) for key in self.keys]
        return [torch.Generator().manual_seed(seed) for seed in seeds]


def slerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Spherical interpolation (N, ...) from a to b (...), at each share (N,) of the way: half way between two draws
    from N(0, I) their mean would be too small a vector to be such a draw (DDIM, appendix D.5)."""
    shape = (-1, *[1] * a.dim())
    cosine = (a * b).sum() / (a.norm() * b.norm())
    angle = torch.acos(cosine.clamp(-1, 1)).clamp_min(1e-4)
    first, second = torch.sin((1 - share) * angle), torch.sin(share * angle)
    return (first.view(shape) * a + second.view(shape) * b) / torch.sin(angle)


@dataclass(frozen=True)
class StepNoise(Noise):
    """Noise for one training step. The global batch has `total` rows; this process has `count` from `start` on."""

    seed: int
    at: int
    start: int
    count: int
    total: int
    device: torch.device | str = "cpu"

    def __len__(self) -> int:
        return self.count

    def _draw(self, kind: str, name: str, step: int, shape: Sequence[int]) -> Tensor:
        stream = random_stream(self.seed, "train", self.at, name, step)
        rows = _values(stream, kind, (self.total, *shape))[self.start : self.start + self.count]
        return torch.from_numpy(rows).to(self.device)
