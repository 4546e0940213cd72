"""A model that can be sampled: a generator, a text encoder, and the sampler it uses by default.

import t2i

model = t2i.load("runs/RUN")
images = model.sample("a red circle", n=4, sampler="ddim", steps=50, seed=0)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from t2i.core.errors import UserError
from t2i.core.interfaces.noise import NoiseKey, PromptNoise
from t2i.core.interfaces.request import Progress
from t2i.core.interfaces.sampler import Sampler, SamplerConfig
from t2i.core.interfaces.scoring import FeatureExtractor
from t2i.core.interfaces.text import TextFeatures
from t2i.core.io.images import to_bytes
from t2i.core.models.best import BestOf, Judge
from t2i.core.models.enlarging import Upsampling, enlarged, enlarged_size
from t2i.core.models.notebook import Images
from t2i.core.models.options import Options, Picture
from t2i.core.models.reading import warnings_of
from t2i.core.models.requesting import GuideMaker, RequestingModel
from t2i.core.models.wanted import (
    Key,
    Prompts,
    Sample,
    Several,
    are_lost,
    default_batch,
    noise_keys,
    rows_of,
    several,
)
from t2i.core.registry.choice import Choice


class Model(RequestingModel):
    """A generator with its text encoder and its default sampler.

    `t2i.load` makes it. Its arguments and attributes are those of `StoredModel`.
    """

    def stream(
        self,
        prompts: Prompts,
        *,
        n: int = 1,
        seed: int = 0,
        sampler: Choice[SamplerConfig] | None = None,
        guide: GuideMaker | None = None,
        batch_size: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        keys: Sequence[Key] | None = None,
        only: Sequence[Key] | None = None,
        options: Options | None = None,
        best: BestOf | None = None,
        steps: Progress | None = None,
        upsample: Sequence[Upsampling] = (),
    ) -> Iterator[list[Sample]]:
        """Sample images in batches, and hand over each batch when it is done.

        The noise of an image depends on the seed, the text of its prompt, and its index among the
        images of that prompt (`noise_keys`). The place of the prompt in the list changes nothing,
        and the batch size nothing but rounding.

        Args:
            prompts: One caption, several, or text features that another program computed.
            n: Images of each prompt.
            seed: Seed of the noise, from 0.
            sampler: The sampler (`Model.sampler`). None: the model's own.
            guide: Another model's `guide(scale)`. None: no guide.
            batch_size: Images sampled at once. None: chosen by image size.
            progress: Called with (images done, images in all) after each batch.
            keys: The images to sample, as (prompt index, sample index), instead of `n` of each
                prompt. They also key the noise: by the place of the prompt, not by its text.
                Benchmarks do so.
            only: The images to sample, out of `n` of each prompt. The noise stays the same.
            options: Further options (`Model.options`). None: none.
            best: Several candidates of each image are sampled, and the best one is kept
                (`Model.best_of`). None: one image is sampled for each that is wanted.
            steps: Called with (steps done, steps in all) of the batch after each sampling step.
            upsample: Upsamplers that enlarge the images, in order.

        Returns:
            An iterator over the batches, prompt by prompt.

        Raises:
            UserError: The sampler or the features do not fit the model.
        """
        prompts = several(prompts)
        options = options or Options()
        if best is not None:
            assert keys is None, "candidates have the noise keys of the prompts' text"
            return self._stream_best(
                best, prompts, only, n=n, seed=seed, sampler=sampler, guide=guide,
                batch_size=batch_size, progress=progress, options=options, steps=steps,
                upsample=upsample,
            )  # fmt: skip
        built = self.check(prompts, sampler, options)
        if guide and options.size not in (None, self._own_size):
            raise UserError("a guide classifies images of one size: leave out --width and --height")
        if keys is not None:
            places = list(keys)
            noise_of: tuple[NoiseKey, ...] = tuple(keys)
        else:
            every = noise_keys(prompts, n)
            places = list(every) if only is None else list(only)
            noise_of = tuple(every[place] for place in places)
        noise = PromptNoise(seed, noise_of, self.device)
        return self.images_of(
            built, prompts, places, noise, guide, batch_size, progress, options, steps,
            upsample,
        )  # fmt: skip

    def _stream_best(
        self, best: BestOf, prompts: Several, only: Sequence[Key] | None, *, n: int,
        batch_size: int | None, progress: Callable[[int, int], None] | None, options: Options,
        **request: Any,
    ) -> Iterator[list[Sample]]:  # fmt: skip
        """Sample the candidates of all images, or of `only` some, and keep the best of each."""
        captions = captions_of(prompts)
        if len(captions) < len(prompts):
            raise UserError("candidates are ranked by their captions: give prompts, not features")
        self.check(prompts, request["sampler"], options)
        every = n * best.candidates
        noise_keys(prompts, every)  # raises if there are too many
        images = [(p, s) for p in range(len(prompts)) for s in range(n)] if only is None else only
        height, width = options.size or self._own_size
        size = batch_size or default_batch(round((height * width) ** 0.5))
        done, total = 0, len(images) * best.candidates

        def draw(keys: Sequence[Key]) -> Iterator[list[Sample]]:
            nonlocal done
            for batch in self.stream(
                prompts, n=every, only=keys, batch_size=size, options=options, **request
            ):
                done += len(batch)
                if progress:
                    progress(done, total)
                yield batch

        return best.batches(images, size, captions, draw)

    def best_of(self, candidates: int, judge: str | FeatureExtractor | None = None) -> BestOf:
        """Ask for several candidates of each image, of which the best one is kept.

        Args:
            candidates: Number of candidates of each image. Each costs as much as an image.
            judge: Features with a text side that compare images and captions: a registry name or a
                network. None: those that the model's data set names.

        Returns:
            The request, for `Model.stream`.

        Raises:
            UserError: The features are unknown, read no text, or their weights are missing.
        """
        if candidates < 1:
            raise UserError(f"best of {candidates}: give the number of candidates, at least 1")
        if isinstance(judge, FeatureExtractor):
            return BestOf(candidates, Judge(judge, device=self.device))
        return BestOf(candidates, Judge.named(judge, self.config.data.name, self.device))

    @property
    def _own_size(self) -> tuple[int, int]:
        return (self.generator.image_size, self.generator.image_size)

    def images_of(
        self,
        sampler: Sampler,
        prompts: Several,
        places: Sequence[Key],
        noise: PromptNoise,
        guide: GuideMaker | None = None,
        batch_size: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        options: Options | None = None,
        steps: Progress | None = None,
        upsample: Sequence[Upsampling] = (),
    ) -> Iterator[list[Sample]]:
        """Sample one image for each place and key of the noise, in batches.

        Args:
            sampler: The sampler.
            prompts: The prompts.
            places: Of each image, the index of its prompt and that among the prompt's samples.
            noise: The noise of each image.
            guide: Another model's `guide(scale)`. None: no guide.
            batch_size: Images sampled at once. None: chosen by image size.
            progress: Called with (images done, images in all) after each batch.
            options: Further options. None: none.
            steps: Called with (steps done, steps in all) of the batch after each sampling step.
            upsample: Upsamplers that enlarge the images, in order.

        Yields:
            The images of a batch.

        Raises:
            UserError: The sampler returned images of another size.
        """
        options = options or Options()
        height, width = options.size or self._own_size
        size = batch_size or default_batch(round((height * width) ** 0.5))
        larger = enlarged_size((height, width), upsample)
        if upsample and len(captions_of(prompts)) < len(prompts):
            raise UserError("an upsampler reads captions: give prompts, not features of them")
        self.eval()
        lost = False
        for start in range(0, len(noise), size):
            part, here = noise[start : start + size], places[start : start + size]
            rows = [p for p, _ in here]
            with torch.no_grad():
                request = self.request(
                    rows_of(prompts, rows), part, null=sampler.needs_null, guide=guide,
                    options=options.of(rows), progress=steps,
                )  # fmt: skip
                values = sampler.sample(self.generator, request)
                lost = lost or are_lost(values)
                if upsample and tuple(values.shape[2:]) == (height, width):
                    texts = captions_of(rows_of(prompts, rows))
                    values = enlarged(values, upsample, texts, part)
                images = to_bytes(values)
            if images.shape[1:3] != larger:
                raise UserError(
                    f"{type(sampler).__name__} returned images of {images.shape[2]} x "
                    f"{images.shape[1]} pixels, not {larger[1]} x {larger[0]}: use another sampler"
                )
            if progress:
                progress(start + len(part), len(noise))
            yield [Sample(p, s, image) for (p, s), image in zip(here, images, strict=True)]

    def sample(
        self,
        prompts: Prompts,
        *,
        n: int = 1,
        seed: int = 0,
        sampler: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        settings: Mapping[str, Any] | None = None,
        guide: GuideMaker | None = None,
        batch_size: int | None = None,
        negative: str | Sequence[str] | None = None,
        image: Picture | None = None,
        mask: Picture | None = None,
        strength: float | None = None,
        size: tuple[int, int] | None = None,
        augmentation: float | None = None,
        best_of: int = 1,
        judge: str | FeatureExtractor | None = None,
        upsample: Model | Upsampling | Sequence[Model | Upsampling] = (),
    ) -> Images:
        """Sample images.

        Args:
            prompts: One caption, several, or text features that another program computed.
            n: Images of each prompt.
            seed: Seed of the noise, from 0. The same seed gives the same images.
            sampler: Registry name of a sampler. None: the model's own.
            steps: Number of sampling steps. None: the sampler's setting.
            guidance: Scale of classifier-free guidance; 1 is none. None: the preset's.
            settings: Other settings of the sampler, by name.
            guide: Another model that steers this one: `t2i.load("GUIDE").guide(scale=2.0)`. None:
                no guide.
            batch_size: Images sampled at once. None: chosen by image size.
            negative: Negative prompt, or one for each prompt: guidance leads away from it. None:
                away from the empty caption.
            image: Image to start from: a file, a PIL image, or uint8 (H, W, 3). An upsampler
                enlarges it. None: noise.
            mask: Where `image` may change: white may, black may not. None: everywhere.
            strength: Share of the chain that `image` goes through, from 0 (unchanged) to 1 (from
                noise). None: 0.8, or 1 with a mask.
            size: Height and width in pixels. None: those of the training images.
            augmentation: Level of the noise that an upsampler adds to `image`, 0 to 1. None: its
                own.
            best_of: Number of candidates that are sampled for each image. The one that fits its
                caption best is kept; `Images.chosen` says which. Each costs as much as an image.
            judge: Features with a text side that compare the candidates: a registry name or a
                network. None: those that the model's data set names.
            upsample: Upsamplers that enlarge the images, in order: models, or `Upsampling` with
                settings of their own.

        Returns:
            The images, prompt by prompt: a list of PIL images, which a notebook shows as a grid.

        Raises:
            UserError: The sampler is unknown or does not fit, a setting is wrong, or the model
                cannot do what an option says.
        """
        prompts = several(prompts)
        choice = self.sampler(sampler, steps=steps, guidance=guidance, settings=settings)
        options = self.options(
            negative=negative, image=image, mask=mask, strength=strength, size=size,
            augmentation=augmentation,
        )  # fmt: skip
        if judge is not None and best_of == 1:
            raise UserError("a judge compares candidates: give best_of, their number, too")
        given = [upsample] if isinstance(upsample, Model | Upsampling) else upsample
        chain = [Upsampling(one) if isinstance(one, Model) else one for one in given]
        batches = self.stream(
            prompts, n=n, seed=seed, sampler=choice, guide=guide, batch_size=batch_size,
            options=options, best=None if best_of == 1 else self.best_of(best_of, judge),
            upsample=chain,
        )  # fmt: skip
        if not isinstance(prompts, TextFeatures):
            for sentence in warnings_of(
                self.text_encoder, [*prompts, *filter(None, options.negative)]
            ):
                warnings.warn(sentence, stacklevel=2)
        samples = [sample for batch in batches for sample in batch]
        captions = prompts.captions if isinstance(prompts, TextFeatures) else prompts
        return Images(
            (Image.fromarray(sample.image) for sample in samples),
            [captions[sample.prompt] for sample in samples] if captions else (),
            [sample.chosen for sample in samples if sample.chosen is not None],
        )

    def redraw(
        self,
        prompts: Sequence[str],
        keys: Sequence[NoiseKey],
        *,
        seed: int,
        sampler: Choice[SamplerConfig],
        guide: GuideMaker | None = None,
        options: Options | None = None,
        upsample: Sequence[Upsampling] = (),
    ) -> list[np.ndarray]:
        """Sample one batch again, with the noise keys that it had.

        Args:
            prompts: The caption of each image.
            keys: The key of each image's noise.
            seed: Seed of the noise.
            sampler: The sampler.
            guide: Another model's `guide(scale)`. None: no guide.
            options: Further options, for these prompts. None: none.
            upsample: Upsamplers that enlarge the images, in order.

        Returns:
            The images, uint8 (H, W, 3).

        Raises:
            UserError: The sampler or an option does not fit the model.
        """
        built = self.check(prompts, sampler, options)
        places = [(row, 0) for row in range(len(prompts))]
        noise = PromptNoise(seed, tuple(keys), self.device)
        batches = self.images_of(
            built, prompts, places, noise, guide, len(prompts), options=options, upsample=upsample
        )
        return [sample.image for batch in batches for sample in batch]


def captions_of(prompts: Several) -> Sequence[str]:
    """Return the captions of prompts.

    Args:
        prompts: Captions, or features of them.

    Returns:
        The captions; none where features do not have them.
    """
    return prompts.captions if isinstance(prompts, TextFeatures) else prompts
