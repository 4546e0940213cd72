"""A model that can be sampled: a generator, a text encoder, and the sampler it uses by default.

import t2i

model = t2i.load("runs/RUN")
images = model.sample("a red circle", n=4, sampler="ddim", steps=50, seed=0)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from PIL import Image
from torch import nn

from t2i.core.devices import keep_freed_memory
from t2i.core.errors import UserError, nearest
from t2i.core.families.cascade import CascadeGenerator, Enlarging
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.guide import GuideGenerator, guide_of
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.noise import NoiseKey, PromptNoise
from t2i.core.interfaces.request import Guide, Progress, Request
from t2i.core.interfaces.sampler import Sampler, SamplerConfig, check_fit
from t2i.core.interfaces.scoring import FeatureExtractor
from t2i.core.interfaces.text import TextEncoder, TextFeatures
from t2i.core.interfaces.trainer import Networks
from t2i.core.io.images import to_bytes
from t2i.core.io.json_files import write_json
from t2i.core.io.sealed import sealed
from t2i.core.io.tensors import save_tensors
from t2i.core.models.best import BestOf, Judge
from t2i.core.models.enlarging import Upsampling, enlarged, enlarged_size
from t2i.core.models.lora.base import Base
from t2i.core.models.lora.files import read_lora
from t2i.core.models.lora.merging import AppliedLora, MergedLoras
from t2i.core.models.lora.networks import LoraNetwork, LoraNetworks
from t2i.core.models.notebook import Images, count_in_words, facts_table
from t2i.core.models.options import (
    Options,
    Picture,
    RowOptions,
    check_negative,
    options_for,
)
from t2i.core.models.reading import warnings_of
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
from t2i.core.models.weights import saved_tensors
from t2i.core.registry.choice import Choice
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig, fitting_samplers

GuideMaker = Callable[[Sequence[str], Generator], Guide]
"""Makes a classifier's gradient, for some captions and the generator that it steers
(`Model.guide`)."""


class Model:
    """A generator with its text encoder and its default sampler.

    Args:
        config: The settings of the run that the model comes from.
        generator: The network that makes images.
        text_encoder: The network that reads captions.
        helpers: Networks that only training needs (`ModelSpec.helpers`). A model that was loaded
            for sampling has none.

    Attributes:
        loras: The LoRAs that are merged into the weights (`Model.lora`).
        base: What the weights belong to of which only changes are saved. None: all are saved.
    """

    def __init__(
        self,
        config: RunConfig,
        generator: Generator,
        text_encoder: TextEncoder,
        helpers: Mapping[str, nn.Module] | None = None,
    ) -> None:
        self.config = config
        self.generator = generator
        self.text_encoder = text_encoder
        self.helpers = nn.ModuleDict(dict(helpers or {}))
        self.loras = MergedLoras()
        self.base: Base | None = None

    def to(self, device: torch.device | str) -> Model:
        """Move all networks to a device.

        Args:
            device: Such as "cuda" or "cpu".

        Returns:
            This model.
        """
        if torch.device(device).type == "cpu":
            keep_freed_memory()
        self.generator.to(device)
        self.text_encoder.to(device)
        self.helpers.to(device)
        return self

    def eval(self) -> Self:
        """Put the networks into evaluation mode: no dropout, and stored batch statistics.

        Returns:
            This model.
        """
        self.generator.eval()
        self.text_encoder.eval()
        return self

    def frozen(self) -> Model:
        """Make the model ready for use: evaluation mode, and no parameter asks for a gradient.

        Returns:
            This model.
        """
        self.generator.requires_grad_(False)
        self.text_encoder.requires_grad_(False)
        return self.eval()

    @property
    def networks(self) -> Networks:
        """The networks, as `Stage.trainer` receives them."""
        return Networks(self.generator, self.text_encoder, dict(self.helpers.items()))

    @property
    def parameter_count(self) -> int:
        """Number of parameters of the generator and the text encoder."""
        both = (*self.generator.parameters(), *self.text_encoder.parameters())
        return sum(parameter.numel() for parameter in both)

    def __repr__(self) -> str:
        return (
            f"Model({self.config.model} {self.config.preset}, {self.generator.image_size} px, "
            f"{count_in_words(self.parameter_count)} parameters, {self.config.sampler.name})"
        )

    def _repr_html_(self) -> str:
        size = self.generator.image_size
        return facts_table(
            {
                "model": f"{self.config.model}, preset {self.config.preset}",
                "family": self.generator.family,
                "images": f"{size} x {size} pixels",
                "parameters": count_in_words(self.parameter_count),
                "trained on": self.config.data.name,
                "text encoder": self.config.encoder.name,
                "sampler": self.config.sampler.name,
                "device": str(self.device),
            }
        )

    # --- samplers, text and guides ----------------------------------------------------------------

    def sampler(
        self,
        name: str | None = None,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Choice[SamplerConfig]:
        """Choose a sampler, and its settings.

        The settings begin with those of the model's preset if it is the preset's sampler, else with
        the sampler's own defaults. The scale of guidance is always the preset's unless it is given.

        Args:
            name: Registry name of the sampler. None: the model's own.
            steps: Number of sampling steps. None: unchanged.
            guidance: Scale of classifier-free guidance; 1 is none. None: unchanged.
            settings: Other settings of the sampler, by name.

        Returns:
            The choice, checked against this model.

        Raises:
            UserError: The sampler is unknown, a setting is wrong, or the sampler does not fit the
                model. The error names the samplers that fit.
        """
        default = self.config.sampler
        name = name or default.name
        given = dict(settings or {})
        given |= {} if steps is None else {"steps": steps}
        given |= {} if guidance is None else {"guidance": guidance}
        family = self._sampled_family()
        fitting = [spec.name for spec in fitting_samplers(family)]
        check_fit(name, registry().samplers[name].families, self.config.model, family, fitting)
        same = name == default.name
        # The right scale of guidance depends on the model, not on the sampler.
        kept = default.config.model_dump() if same else {"guidance": default.config.guidance}
        choice = registry().samplers.choose(name, given, "sampler", kept)
        self._built(choice)
        return choice

    @property
    def draws(self) -> bool:
        """Whether the model makes images. A guide does not."""
        return registry().draws(self.generator.family)

    def up_to(self, part: str) -> Model | None:
        """Return this cascade up to one of its parts, such as to show what the part has learnt.

        Args:
            part: Name of the part.

        Returns:
            A model that samples the part's images, with the same networks. None: the part samples
            none, such as a prior.

        Raises:
            UserError: The model is no cascade, or has no such part.
        """
        if not isinstance(self.generator, CascadeGenerator):
            raise UserError(f"model '{self.config.model}' has no parts: leave out --part")
        if part not in self.generator.parts:
            raise UserError(f"the model has no part '{part}'{nearest(part, self.generator.parts)}")
        last = self.generator.part(part)
        if isinstance(last, DiffusionGenerator) and len(last.noise_shape) < 3:  # embeddings
            return None
        generator, sampler = self.generator.up_to(part), self.config.sampler
        if samplers := getattr(sampler.config, "samplers", None):
            fewer = {name: own for name, own in samplers.items() if name in generator.parts}
            config = sampler.config.model_copy(update={"samplers": fewer})
            sampler = replace(sampler, config=config)
        beginning = Model(replace(self.config, sampler=sampler), generator, self.text_encoder)
        beginning.loras = self.loras
        return beginning

    def _sampled_family(self) -> str:
        """The family, if its models make images; else a UserError."""
        if not self.draws:
            raise UserError(
                f"model '{self.config.model}' is a {self.generator.family}: it draws no images; "
                f"steer "
                "another model by it with 't2i sample --run OTHER --guide RUN'"
            )
        return self.generator.family

    def _built(self, choice: Choice[SamplerConfig] | None) -> Sampler:
        """Build a sampler and check that it can sample from this model."""
        self._sampled_family()
        sampler: Sampler = registry().samplers.build(choice or self.config.sampler)
        sampler.check(self.generator)
        return sampler

    def options(self, **wanted: Any) -> Options:
        """Check further options of a request, and fit images to this model.

        Args:
            **wanted: Arguments of `options_for`: negative, image, mask, strength, size,
                augmentation.

        Returns:
            The options, for `Model.stream`.

        Raises:
            UserError: An option does not fit this model.
        """
        return options_for(self.generator, self.config.model, **wanted)

    def check(
        self,
        prompts: Prompts,
        sampler: Choice[SamplerConfig] | None = None,
        options: Options | None = None,
    ) -> Sampler:
        """Build a sampler, and check that it and the prompts fit this model.

        Args:
            prompts: Captions, or features of them.
            sampler: The sampler. None: the model's own.
            options: Further options. None: none.

        Returns:
            The sampler, ready for use.

        Raises:
            UserError: The sampler cannot sample from this model, or the features have another width
                than the model's text encoder gives.
        """
        if isinstance(prompts, TextFeatures) and prompts.shape != self.text_encoder.shape:
            raise UserError(
                f"text features of width {prompts.shape.sentence}, but model "
                f"'{self.config.model}' takes {self.text_encoder.shape.sentence} for sentences and "
                f"{self.text_encoder.shape.words} for words: compute them with the encoder that it "
                "was trained with"
            )
        built = self._built(sampler)
        if options and options.negative:
            choice = sampler or self.config.sampler
            check_negative(len(several(prompts)), options.negative, built, choice)
        return built

    def request(
        self,
        prompts: Prompts,
        noise: PromptNoise,
        *,
        null: bool = False,
        guide: GuideMaker | None = None,
        options: RowOptions | None = None,
        progress: Progress | None = None,
    ) -> Request:
        """Make a sampler's request. The text is encoded and conditioned once.

        Args:
            prompts: As many as the noise has rows.
            noise: The noise of each row.
            null: Whether the sampler needs the features of the empty caption
                (`Sampler.needs_null`).
            guide: Makes the classifier's gradient for these captions (`Model.guide`). None: no
                guide.
            options: Further options of each row. None: none.
            progress: Called with (steps done, steps in all). None: nothing is called.

        Returns:
            The request.

        Raises:
            UserError: A guide is given, and the prompts are features without captions.
        """
        prompts = several(prompts)
        if isinstance(prompts, TextFeatures):
            captions, text = prompts.captions, prompts.to(self.device)
        else:
            captions, text = tuple(prompts), self.text_encoder.encode(prompts)
        if guide and len(captions) < len(prompts):
            raise UserError("a guide reads captions: give prompts, not features of them")
        options = options or RowOptions()
        without = self._without(options.negative, len(prompts)) if null else None
        image = None if options.image is None else options.image.to(self.device)
        if image is not None and isinstance(self.generator, Enlarging):
            given = options.augmentation
            level = None if given is None else image.new_full((len(image),), given)
            extras, image = self.generator.enlarging(image, noise.scope("link"), level), None
            text = replace(text, extras={**text.extras, **extras})
            if without is not None:
                without = replace(without, extras={**without.extras, **extras})
        return Request(
            text=self.generator.condition(text),
            noise=noise,
            null=None if without is None else self.generator.condition(without),
            guide=guide(captions, self.generator) if guide else None,
            progress=progress,
            image=image,
            mask=None if options.mask is None else options.mask.to(self.device),
            strength=options.strength,
            size=options.size,
        )

    def _without(self, negative: Sequence[str], count: int) -> TextFeatures:
        """Return what guidance leads away from: negative prompts, no caption where they are ""."""
        if not any(negative):
            return self.text_encoder.null(count)
        features = self.text_encoder.encode(negative)
        if all(negative):
            return features
        said = torch.tensor([bool(text) for text in negative], device=self.device)
        return features.where(said, self.text_encoder.null(count))

    def guide(self, scale: float) -> GuideMaker:
        """Use this model as a guide for another model (classifier guidance).

        Args:
            scale: Factor of the gradient of log p(y | x_t).

        Returns:
            A function for `Model.sample(guide=...)` and `Model.stream(guide=...)` of the other
            model.

        Raises:
            UserError: This model is not a guide.
        """
        classifier, encoder = self.generator, self.text_encoder
        if not isinstance(classifier, GuideGenerator):
            raise UserError(f"model '{self.config.model}' is {classifier.family}, not a guide")

        def make(captions: Sequence[str], generator: Generator) -> Guide:
            if not isinstance(generator, DiffusionGenerator):
                raise UserError(f"a guide steers diffusion models; this one is {generator.family}")
            self.eval()
            text = classifier.condition(encoder.encode(captions))
            return guide_of(classifier, text, generator, scale)

        return make

    # --- LoRAs ------------------------------------------------------------------------------------

    @property
    def lora_networks(self) -> LoraNetworks:
        """The networks that a LoRA can change, by the names that files have for them."""
        named = registry().models[self.config.model].networks
        if named is not None:
            return cast(LoraNetworks, import_object(named)(self))
        return {name: LoraNetwork(module) for name, module in self.parts()}

    def lora(self, file: str | Path, weight: float = 1.0) -> AppliedLora:
        """Merge a LoRA file into the weights: W + weight alpha / r B A. Several add up.

        Args:
            file: A .safetensors file in diffusers', kohya's or peft's layout, or a folder with one.
            weight: The factor of its change.

        Returns:
            The LoRA. Its `told` says how many keys of the file are used; `remove()` takes it out.

        Raises:
            UserError: It is no such file, no key of it fits, or it was trained on another base.
        """
        return self.loras.add(read_lora(Path(file), self.lora_networks, self.config.model), weight)

    # --- sampling ---------------------------------------------------------------------------------

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

    # --- saving -----------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.generator.device

    def save(self, folder: Path) -> None:
        """Write a folder that `t2i.load` reads.

        It holds settings, weights, tokenizer files, and a manifest of checksums. Of a model with a
        base, only the weights that are not the base's are written, and where the base is.

        Args:
            folder: The new folder. It appears only when it is complete.
        """
        base = {} if self.base is None else {"base": self.base.document()}
        with sealed(folder) as place:
            write_json(place / "config.json", {"format": 1, "run": self.config.dump(), **base})
            for name, module in self.parts():
                save_tensors(place / f"{name}.safetensors", saved_tensors(module))
                (place / name).mkdir()
                module.save_assets(place / name)

    def parts(self) -> list[tuple[str, Generator | TextEncoder]]:
        """List the networks that are saved for sampling.

        Returns:
            Each with its name, which is also its file's.
        """
        return [("generator", self.generator), ("text_encoder", self.text_encoder)]


def captions_of(prompts: Several) -> Sequence[str]:
    """Return the captions of prompts.

    Args:
        prompts: Captions, or features of them.

    Returns:
        The captions; none where features do not have them.
    """
    return prompts.captions if isinstance(prompts, TextFeatures) else prompts
