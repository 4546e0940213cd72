"""Keyed sources of random numbers: the numbers depend on a key alone, not on what was drawn before.

`PromptNoise` is for sampling. It keys every image by (seed, prompt, sample number). The prompt is
its text (`text_keys`), or its index where a protocol or a list of features says so. Batch size,
order and number of processes make no difference, and two models get the same numbers (paired
noise).

`StepNoise` is for training. It draws by (seed, step) for the whole global batch and returns each
process its rows. Training needs no random state to resume and does not depend on the number of
processes.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor


def random_stream(*key: int | str) -> np.random.Generator:
    """Make a counter-based random stream (Philox) that depends on the key alone, on every machine.

    Args:
        *key: Parts of the key. An integer and its decimal text are the same part.

    Returns:
        A NumPy generator at the beginning of its stream.
    """
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


NoiseKey = tuple[int | str, int]
"""What the noise of one image depends on beside the seed: the prompt (its index, or the key of its
text), and the number of the sample."""


def text_key(caption: str, sample: int) -> NoiseKey:
    """Make the noise key of a prompt's text.

    Args:
        caption: The prompt.
        sample: Number of the sample.

    Returns:
        The key.
    """
    digest = hashlib.blake2b(caption.encode("utf-8", "surrogatepass"), digest_size=16)
    return f"text:{digest.hexdigest()}", sample


def text_keys(captions: Sequence[str], n: int) -> list[list[NoiseKey]]:
    """Make noise keys that depend on the text of a prompt, not on its place in a list.

    Where a list holds a text again, the numbers of its samples continue, so that no two images of
    a list are the same.

    Args:
        captions: The prompts.
        n: Number of images of each prompt.

    Returns:
        For each prompt, the keys of its `n` images.
    """
    seen: Counter[str] = Counter()
    keys: list[list[NoiseKey]] = []
    for caption in captions:
        first = n * seen[caption]
        keys.append([text_key(caption, first + sample) for sample in range(n)])
        seen[caption] += 1
    return keys


def seeded(*key: int | str) -> None:
    """Seed torch's global generators, which initial weights and dropout use.

    Args:
        *key: Parts of the key, as for `random_stream`.
    """
    torch.manual_seed(int(random_stream(*key).integers(2**63)))


class Noise(ABC):
    """A source of random numbers for a batch of B images.

    `name` and `step` identify a draw: the same two give the same numbers again.

    Attributes:
        device: Device of the tensors that are returned.
    """

    device: torch.device | str

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _draw(self, kind: str, name: str, step: int, shape: Sequence[int]) -> Tensor:
        """Draw (B, *shape) float32 of a kind: "standard_normal" or "random" (uniform)."""
        ...

    @abstractmethod
    def _seeds(self, name: str, step: int) -> list[int]:
        """Draw one seed for each image, from 0 to 2**63 - 1."""

    @abstractmethod
    def scope(self, name: str) -> Self:
        """Return the same source under a scope: parts of a model then never share numbers.

        Scopes nest. A given start (`PromptNoise.given`) is not passed on to scopes.

        Args:
            name: Name of the part, such as "upsampler".
        """

    def normal(self, name: str, step: int, shape: Sequence[int]) -> Tensor:
        """Draw normally distributed numbers.

        Args:
            name: Name of the draw.
            step: Number of the draw, such as the sampling step.
            shape: Shape for one image.

        Returns:
            float32 (B, *shape) from N(0, 1), on the source's device.
        """
        return self._draw("standard_normal", name, step, shape)

    def uniform(self, name: str, step: int, shape: Sequence[int]) -> Tensor:
        """Draw uniformly distributed numbers.

        Args:
            name: Name of the draw.
            step: Number of the draw, such as the sampling step.
            shape: Shape for one image.

        Returns:
            float32 (B, *shape) from U[0, 1), on the source's device.
        """
        return self._draw("random", name, step, shape)

    def integers(self, name: str, step: int, high: int, shape: Sequence[int] = ()) -> Tensor:
        """Draw uniformly distributed integers.

        They are computed from the `uniform` numbers of the same name and step.

        Args:
            name: Name of the draw.
            step: Number of the draw, such as the sampling step.
            high: Number of different values, at least 1.
            shape: Shape for one image; () for one number an image.

        Returns:
            int64 (B, *shape), from 0 to high - 1, on the source's device.
        """
        return (self.uniform(name, step, shape) * high).long().clamp_(max=high - 1)

    def categorical(self, name: str, step: int, logits: Tensor) -> Tensor:
        """Draw classes with the probabilities softmax(logits).

        The cumulative distribution is inverted at a uniform number of 48 bits, made of two float32
        numbers.

        Args:
            name: Name of the draw.
            step: Number of the draw, such as the sampling step.
            logits: Logits of K classes, (B, *shape, K). A class with logit -inf is never drawn.

        Returns:
            int64 (B, *shape), from 0 to K - 1.
        """
        coarse, fine = self.uniform(name, step, (*logits.shape[1:-1], 2)).double().unbind(-1)
        # A float32 draw is a multiple of 2^-24, which is too coarse for rare classes.
        u = coarse + fine * 2.0**-24
        cumulative = logits.double().softmax(-1).cumsum(-1)
        threshold = (u * cumulative[..., -1]).unsqueeze(-1)
        # The first class whose cumulative probability exceeds the threshold; it never has
        # probability 0.
        return (
            torch.searchsorted(cumulative, threshold, right=True)
            .squeeze(-1)
            .clamp_(max=logits.shape[-1] - 1)
        )

    def start(self, name: str, shape: Sequence[int]) -> Tensor:
        """Return the noise that a sampler starts from: drawn from N(0, 1) unless it was given.

        Args:
            name: Name of the draw.
            shape: Shape for one image.

        Returns:
            (B, *shape), on the source's device.
        """
        return self.normal(name, 0, shape)

    def generators(self, name: str, step: int) -> list[torch.Generator]:
        """Make one torch generator for each image, for libraries that draw noise themselves.

        An example is diffusers' `randn_tensor`.

        Args:
            name: Name of the draw.
            step: Number of the draw, such as the sampling step.

        Returns:
            B generators on the CPU, each with a seed of its own.
        """
        return [torch.Generator().manual_seed(seed) for seed in self._seeds(name, step)]


def _values(stream: np.random.Generator, kind: str, shape: Sequence[int]) -> np.ndarray:
    """Draw float32 numbers of a kind ("standard_normal" or "random") from a stream."""
    draw = stream.standard_normal if kind == "standard_normal" else stream.random
    return draw(tuple(shape), dtype=np.float32)


@dataclass(frozen=True)
class PromptNoise(Noise):
    """Noise for sampling: each image has a key of its own.

    Args:
        seed: Seed of the whole request.
        keys: (prompt, sample number) of each image of the batch. The prompt is an index, or the
            key of a text (`text_keys`).
        device: Device of the tensors that are returned.
        given: Noise that the images start from (B, ...), returned by `start`. None: it is drawn.
        path: Names of the scopes, the outermost first.
    """

    seed: int
    keys: tuple[NoiseKey, ...]
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
    """Noise for one training step: the rows of one process out of the global batch.

    Args:
        seed: Seed of the run.
        at: Number of the training step. Negative numbers key noise outside the steps (sample grids,
            `Trainer.finish`).
        start_row: First row of this process within the global batch.
        count: Number of rows of this process.
        total: Number of rows of the global batch.
        device: Device of the tensors that are returned.
        path: Names of the scopes, the outermost first.
    """

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
    """Return scopes as parts of a key, marked so that a scope "a" differs from a draw named "a"."""
    return tuple(f"scope:{name}" for name in path)


def slerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Interpolate between two noise tensors on a sphere.

    The mean of two draws from N(0, I) has too small a norm to be such a draw itself; spherical
    interpolation keeps the norm. Source: DDIM (Song et al. 2021), appendix D.5.

    Args:
        a: Noise at share 0, of any shape.
        b: Noise at share 1, of the same shape.
        share: Positions between a and b, (N,), from 0 to 1.

    Returns:
        (N, *a.shape).
    """
    shape = (-1, *[1] * a.dim())
    cosine = (a * b).sum() / (a.norm() * b.norm())
    angle = torch.acos(cosine.clamp(-1, 1)).clamp_min(1e-4)
    first, second = torch.sin((1 - share) * angle), torch.sin(share * angle)
    return (first.view(shape) * a + second.view(shape) * b) / torch.sin(angle)
