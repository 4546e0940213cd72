"""A model's requests: its samplers, captions and noise, and the guides that steer it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import torch

from t2i.core.errors import UserError, nearest
from t2i.core.families.cascade import CascadeGenerator, Enlarging
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.guide import GuideGenerator, guide_of
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.request import Guide, Progress, Request
from t2i.core.interfaces.sampler import Sampler, SamplerConfig, check_fit
from t2i.core.interfaces.text import TextFeatures
from t2i.core.models.options import Options, RowOptions, check_negative, options_for
from t2i.core.models.stored import StoredModel
from t2i.core.models.wanted import Prompts, several
from t2i.core.registry.choice import Choice
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import fitting_samplers

GuideMaker = Callable[[Sequence[str], Generator], Guide]
"""Makes a classifier's gradient, for some captions and the generator that it steers
(`Model.guide`)."""


class RequestingModel(StoredModel):
    """A model that makes requests for samplers, and is a guide for other models."""

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

    def up_to(self, part: str) -> Self | None:
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
        beginning = type(self)(replace(self.config, sampler=sampler), generator, self.text_encoder)
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
