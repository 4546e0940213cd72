"""A model that can be sampled: a generator and a text encoder, and the sampler they are drawn with by default.

import t2i; images = t2i.load("RUN").sample(["a red circle"], sampler="ddim", steps=50, seed=0)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from t2i.core.errors import UserError
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.guide import GuideGenerator, guide_of
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.noise import PromptNoise, slerp
from t2i.core.interfaces.request import Guide, Request
from t2i.core.interfaces.sampler import Sampler, SamplerConfig, check_fit
from t2i.core.interfaces.text import TextEncoder, TextFeatures
from t2i.core.interfaces.trainer import Networks
from t2i.core.io.files import save_tensors, sealed, write_json
from t2i.core.io.images import to_bytes, to_tensor
from t2i.core.models.weights import owned_tensors
from t2i.core.registry.choice import Choice
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig, fitting_samplers

Prompts = Sequence[str] | TextFeatures
"""What is drawn: captions, or their features."""

GuideMaker = Callable[[Sequence[str], Generator], Guide]
"""Makes the gradient of a classifier for some captions and the generator that is to be steered (`Model.guide`)."""


@dataclass(frozen=True)
class Sample:
    """One sampled image: uint8 (H, W, 3), with the indexes that key its noise."""

    prompt: int
    sample: int
    image: np.ndarray


class Model:
    """A generator with its text encoder and the sampler it is drawn with by default.

    Attributes:
        helpers: networks that only training needs (`ModelSpec.helpers`); none in a model that was loaded to be sampled.
    """

    def __init__(
        self, config: RunConfig, generator: Generator, text_encoder: TextEncoder,
        helpers: Mapping[str, nn.Module] | None = None,
    ) -> None:  # fmt: skip
        self.config = config
        self.generator = generator
        self.text_encoder = text_encoder
        self.helpers = nn.ModuleDict(dict(helpers or {}))

    def to(self, device: torch.device | str) -> Model:
        self.generator.to(device)
        self.text_encoder.to(device)
        self.helpers.to(device)
        return self

    @property
    def networks(self) -> Networks:
        """The networks as trainers are given them."""
        return Networks(self.generator, self.text_encoder, dict(self.helpers.items()))

    # --- what is asked of it ------------------------------------------------------------------------------------------

    def sampler(
        self, name: str | None = None, *, steps: int | None = None, guidance: float | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Choice[SamplerConfig]:  # fmt: skip
        """The sampler to use: the model's own, or another that fits it, with settings laid over the default's (those
        of the model's preset where it is the same sampler). UserError, naming those that fit, if it does not."""
        self._check_draws()
        default = self.config.sampler
        name = name or default.name
        given = dict(settings or {})
        given |= {} if steps is None else {"steps": steps}
        given |= {} if guidance is None else {"guidance": guidance}
        family = self.generator.family
        fitting = [spec.name for spec in fitting_samplers(family)]
        check_fit(name, registry().samplers[name].families, self.config.model, family, fitting)
        kept = default.config.model_dump() if name == default.name else {}
        if (
            name != default.name
        ):  # how strongly to guide is the model's affair, whatever the sampler
            kept = {"guidance": default.config.guidance}
        choice = registry().samplers.choose(name, given, "sampler", kept)
        self._built(choice)
        return choice

    @property
    def draws(self) -> bool:
        """Whether it draws images; a guide does not."""
        return registry().draws(self.generator.family)

    def _check_draws(self) -> None:
        if not self.draws:
            raise UserError(
                f"model '{self.config.model}' is a {self.generator.family}: it draws no images; steer another model "
                "by it with 't2i sample --run OTHER --guide RUN'"
            )

    def _built(self, choice: Choice[SamplerConfig] | None) -> Sampler:
        """A sampler, ready to draw from this model. UserError if it cannot."""
        self._check_draws()
        sampler: Sampler = registry().samplers.build(choice or self.config.sampler)
        sampler.check(self.generator)
        return sampler

    def check(self, prompts: Prompts, sampler: Choice[SamplerConfig] | None = None) -> Sampler:
        """The sampler, built. UserError if it cannot draw from this model, or features are of another width."""
        if isinstance(prompts, TextFeatures) and prompts.shape != self.text_encoder.shape:
            raise UserError(
                f"text features of width {prompts.shape.sentence}, but model '{self.config.model}' takes "
                f"{self.text_encoder.shape.sentence} for sentences and {self.text_encoder.shape.words} for words: "
                "compute them with the encoder that it was trained with"
            )
        return self._built(sampler)

    def request(
        self,
        prompts: Prompts,
        noise: PromptNoise,
        *,
        null: bool = False,
        guide: GuideMaker | None = None,
    ) -> Request:
        """What a sampler is asked for: captions (or features) and noise, row by row, the text conditioned once.

        Args:
            prompts: as many as the noise has rows.
            null: whether the features of no caption are needed (`Sampler.needs_null`).
            guide: makes the classifier's gradient for these captions (`Model.guide`).
        """
        given = isinstance(prompts, TextFeatures)
        captions = prompts.captions if isinstance(prompts, TextFeatures) else tuple(prompts)
        text = (
            prompts.to(self.device)
            if isinstance(prompts, TextFeatures)
            else self.text_encoder.encode(prompts)
        )
        if guide and given and not captions:
            raise UserError("a guide reads captions: give prompts, not features of them")
        return Request(
            text=self.generator.condition(text),
            noise=noise,
            null=self.generator.condition(self.text_encoder.null(len(prompts))) if null else None,
            guide=guide(captions, self.generator) if guide else None,
        )

    def guide(self, scale: float) -> GuideMaker:
        """This model as a guide for another one: classifier guidance.

        Args:
            scale: what the gradient of log p(y | x_t) is multiplied with.

        Raises:
            UserError: this model judges no noisy images.
        """
        judge, encoder = self.generator, self.text_encoder
        if not isinstance(judge, GuideGenerator):
            raise UserError(
                f"model '{self.config.model}' is {judge.family}, no guide: it judges no noisy images"
            )

        def make(captions: Sequence[str], generator: Generator) -> Guide:
            if not isinstance(generator, DiffusionGenerator):
                raise UserError(f"a guide steers diffusion models; this one is {generator.family}")
            judge.eval()
            encoder.eval()
            return guide_of(judge, judge.condition(encoder.encode(captions)), generator, scale)

        return make

    # --- drawing ------------------------------------------------------------------------------------------------------

    def draw(
        self,
        prompts: Prompts,
        *,
        n: int = 1,
        seed: int = 0,
        sampler: Choice[SamplerConfig] | None = None,
        guide: GuideMaker | None = None,
        batch_size: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        keys: Sequence[tuple[int, int]] | None = None,
    ) -> Iterator[list[Sample]]:
        """Images in batches, prompt by prompt, `n` of each. Noise depends on (seed, prompt index, sample index)
        alone. progress(done, total) counts images. keys: the images to draw, as (prompt index, sample index),
        instead of `n` of each. guide: what another model's `guide` gives.

        prompts: captions, or features of them that another program computed (UserError if they are not as wide as this
        model's text encoder makes them).
        """
        drawing = self.check(prompts, sampler)
        wanted = (
            tuple((p, s) for p in range(len(prompts)) for s in range(n))
            if keys is None
            else tuple(keys)
        )
        return self._images(
            drawing, prompts, PromptNoise(seed, wanted, self.device), guide, batch_size, progress
        )

    def _images(
        self, drawing: Sampler, prompts: Prompts, noise: PromptNoise, guide: GuideMaker | None = None,
        batch_size: int | None = None, progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[list[Sample]]:  # fmt: skip
        """One for each key of the noise, in batches."""
        size = batch_size or default_batch(self.generator.image_size)
        self.generator.eval()
        self.text_encoder.eval()
        for start in range(0, len(noise), size):
            part = noise[start : start + size]
            rows = _rows(prompts, [p for p, _ in part.keys])
            with torch.no_grad():
                request = self.request(rows, part, null=drawing.needs_null, guide=guide)
                images = to_bytes(drawing.sample(self.generator, request))
            if progress:
                progress(start + len(part), len(noise))
            yield [Sample(p, s, image) for (p, s), image in zip(part.keys, images, strict=True)]

    def sample(
        self,
        prompts: Sequence[str],
        *,
        n: int = 1,
        seed: int = 0,
        sampler: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        settings: Mapping[str, Any] | None = None,
        guide: GuideMaker | None = None,
        batch_size: int | None = None,
    ) -> list[Image.Image]:
        """`n` images of each prompt, prompt by prompt. guide: `load("GUIDE").guide(scale=2.0)`, to steer by."""
        choice = self.sampler(sampler, steps=steps, guidance=guidance, settings=settings)
        batches = self.draw(
            prompts, n=n, seed=seed, sampler=choice, guide=guide, batch_size=batch_size
        )
        return [Image.fromarray(drawn.image) for batch in batches for drawn in batch]

    def interpolate(
        self, first: np.ndarray, last: np.ndarray, prompt: str = "", *, n: int = 8,
        sampler: Choice[SamplerConfig] | None = None, batch_size: int | None = None,
        keys: Sequence[tuple[int, int]] | None = None,
    ) -> Iterator[list[Sample]]:  # fmt: skip
        """`n` images from one to the other, uint8 (H, W, 3) of the model's size: the sampler turns both into noise,
        and draws from the noise between (Song et al. 2021, section 5.3). keys: those of them to draw, as (0, number).
        UserError if it cannot, or sizes differ."""
        size = (self.generator.image_size, self.generator.image_size, 3)
        if {first.shape, last.shape} != {size}:
            raise UserError(
                f"images of {first.shape} and {last.shape}: this model interpolates between {size}"
            )
        drawing = self._built(sampler)
        if not drawing.inverts(self.generator):
            name = (sampler or self.config.sampler).name
            raise UserError(
                f"sampler '{name}' cannot turn images into noise, to draw between them: {self._inverters()}"
            )
        shares = torch.linspace(0, 1, n)
        wanted = tuple((0, s) for s in range(n)) if keys is None else tuple(keys)
        images = np.stack([first, last])
        return self._between(
            drawing, images, prompt, wanted, shares[[s for _, s in wanted]], batch_size
        )

    def _inverters(self) -> str:
        """Which samplers could, as a remedy."""
        fitting = [
            registry().samplers.choose(spec.name, {})
            for spec in fitting_samplers(self.generator.family)
        ]
        able = [
            choice.name
            for choice in fitting
            if registry().samplers.build(choice).inverts(self.generator)
        ]
        return f"use --sampler {' or '.join(able)}" if able else "no sampler of this family can"

    def _between(
        self, drawing: Sampler, images: np.ndarray, prompt: str, keys: tuple[tuple[int, int], ...], shares: Tensor,
        batch_size: int | None,
    ) -> Iterator[list[Sample]]:  # fmt: skip
        self.generator.eval()
        self.text_encoder.eval()
        with torch.no_grad():
            ends, noise = (
                to_tensor(images, self.device),
                PromptNoise(0, ((0, 0), (0, 1)), self.device),
            )
            request = self.request([prompt] * 2, noise, null=drawing.needs_null)
            begin, end = drawing.invert(self.generator, ends, request)
            between = PromptNoise(0, keys, self.device, slerp(begin, end, shares.to(self.device)))
        yield from self._images(drawing, [prompt], between, batch_size=batch_size)

    # --- saving -------------------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return self.generator.device

    def save(self, folder: Path) -> None:
        """Writes a sealed folder that `load_model` reads: settings, weights and assets."""
        with sealed(folder) as place:
            write_json(place / "config.json", {"format": 1, "run": self.config.dump()})
            for name, module in self.parts():
                save_tensors(place / f"{name}.safetensors", owned_tensors(module))
                (place / name).mkdir()
                module.save_assets(place / name)

    def parts(self) -> list[tuple[str, Generator | TextEncoder]]:
        """What is saved to be sampled, by name."""
        return [("generator", self.generator), ("text_encoder", self.text_encoder)]


def _rows(prompts: Prompts, rows: Sequence[int]) -> Prompts:
    return prompts[rows] if isinstance(prompts, TextFeatures) else [prompts[row] for row in rows]


def default_batch(image_size: int) -> int:
    """Images sampled at once: throughput levels off near 64 images of 64 px."""
    return max(1, min(64, 64 * 64**2 // image_size**2))
