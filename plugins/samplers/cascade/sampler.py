"""The sampler `cascade`: it samples the parts in order, each with its own sampler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from t2i.core.errors import UserError, nearest
from t2i.core.families.cascade import KNOWN, LEVEL, CascadeGenerator, Enlarging, low_res
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.request import Progress, Request
from t2i.core.interfaces.sampler import Sampler, check_fit
from t2i.core.interfaces.text import TextFeatures
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import default_sampler, fitting_samplers
from t2i.plugins.samplers.cascade.config import AUGMENTATION, CascadeConfig

PORTION = 1000
"""Units of progress that one part counts for, however many steps it takes."""


class CascadeSampler(Sampler):
    """Sample the parts of a cascade in order, each given the output of the part before.

    The noise of each part comes from a scope with the part's name, so no two parts share random
    numbers.

    Args:
        config: Settings of the sampler.
    """

    config: CascadeConfig

    @property
    def needs_null(self) -> bool:
        """Whether any part is guided, and so needs the features of no caption."""
        return _guided(self.config.samplers)

    def check(self, generator: Generator) -> None:
        """Check that the settings name only parts that exist, and that each part's sampler fits it.

        Args:
            generator: The cascade.

        Raises:
            UserError: A name or a sampler does not fit.
        """
        assert isinstance(generator, CascadeGenerator)
        for part in self.config.samplers:
            if part not in generator.parts:
                raise UserError(f"the model has no part '{part}'{nearest(part, generator.parts)}")
        for part in generator.parts:
            self._sampler(generator, part)

    def sample(self, generator: Generator, request: Request) -> Tensor:
        assert isinstance(generator, CascadeGenerator)
        request.refuse(
            "cascade",
            guide="samples several parts: a guide steers a single one",
        )
        if generator.embedded is not None:
            request.refuse("cascade", mask="embeds images as a whole: leave out the mask")
        previous = self._embeddings(generator, request)
        parts = list(generator.parts)
        if previous is not None:
            assert generator.embedded is not None
            parts = parts[parts.index(generator.embedded) + 1 :]
        pictures = pictured(generator, request)
        for index, part in enumerate(parts):
            sampler = self._sampler(generator, part)
            own = self._request(generator, part, sampler, pictures[part], previous)
            progress = _portion(request, index, len(parts))
            previous = sampler.sample(generator.part(part), replace(own, progress=progress))
        assert previous is not None, "a cascade has parts"
        return previous

    def inverts(self, generator: Generator) -> bool:
        return isinstance(generator, CascadeGenerator) and generator.embedded is not None

    def invert(self, generator: Generator, images: Tensor, request: Request) -> Tensor:
        """Return the embeddings of images, in the place of noise.

        `sample` starts after the part that samples embeddings, if it is given some.

        Args:
            generator: The cascade.
            images: Images in [-1, 1], (B, 3, H, W).
            request: It is not read.

        Returns:
            Embeddings, (B, D).
        """
        assert isinstance(generator, CascadeGenerator)
        return generator.embed(images)

    @staticmethod
    def _embeddings(generator: CascadeGenerator, request: Request) -> Tensor | None:
        """Return the embeddings that a request gives, or those of its images. None: neither."""
        if generator.embedded is None or request.image is None:
            return None if generator.embedded is None else request.noise.given
        image, null = request.image, request.null
        if null is None:
            names = list(generator.parts)
            reader = names[names.index(generator.embedded) + 1]
            raise UserError(
                "an image is edited by the difference between its caption and another or none, "
                f"which only guided parts read: guide one, such as by --set {reader}.guidance=2"
            )
        return generator.edited(image, request.text, null, request.strength)

    def _request(
        self,
        generator: CascadeGenerator,
        part: str,
        sampler: Sampler,
        request: Request,
        previous: Tensor | None,
    ) -> Request:
        """Make the request of one part, with the text that the part is conditioned on."""
        noise = request.noise.scope(part)
        augmentation = noise.scope("link")
        text, null = request.text, request.null if sampler.needs_null else None
        extras = _known(request)
        level = self.config.samplers.get(part, {}).get(AUGMENTATION)
        if level is not None:
            extras[LEVEL] = text.sentence.new_full((len(text),), float(level))

        def told(features: TextFeatures) -> TextFeatures:
            return replace(features, extras={**features.extras, **extras})

        return replace(
            request,
            text=generator.link(part, told(text), previous, augmentation),
            null=None
            if null is None
            else generator.link_null(part, told(null), previous, augmentation),
            noise=noise,
        )

    def _sampler(self, generator: CascadeGenerator, part: str) -> Sampler:
        """Build the sampler of one part; a UserError names the part if the sampler does not fit."""
        settings = dict(self.config.samplers.get(part, {}))
        level = settings.pop(AUGMENTATION, None)
        if level is not None:
            check_level(level, generator.part(part), part)
        family = generator.part(part).family
        name = str(settings.pop("name", None) or default_sampler(family))
        fitting = [spec.name for spec in fitting_samplers(family)]
        table = registry().samplers
        check_fit(name, table[name].families, part, family, fitting, f"{part}.sampler=")
        # A part is guided only if its settings say so, because `needs_null` reads only those.
        choice = table.choose(name, {"guidance": 1.0, **settings}, f"{part}: sampler")
        sampler: Sampler = table.build(choice)
        sampler.check(generator.part(part))
        return sampler


def check_level(level: Any, generator: Generator, part: str) -> None:
    """Check the level of the noise that is added to smaller images.

    Args:
        level: The level as it was given.
        generator: The generator of the part.
        part: Its name, for messages.

    Raises:
        UserError: The part enlarges no images, or the level is no number from 0 to 1.
    """
    if not isinstance(generator, Enlarging):
        raise UserError(f"{part}.{AUGMENTATION}: this part enlarges no images; leave it out")
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 <= level <= 1:
        raise UserError(f"{part}.{AUGMENTATION} = {level!r}: a number between 0 and 1")


def pictured(generator: CascadeGenerator, request: Request) -> dict[str, Request]:
    """Give each part the image of a request, at its size.

    The first part that samples images starts from the image, as far as `strength` says. Those after
    it start from noise, and only keep what the mask says is known. Where images are embedded, all
    start from noise.

    Args:
        generator: The cascade.
        request: The request, with an image or without.

    Returns:
        The request of each part by its name.
    """
    found: dict[str, Request] = {}
    bare = replace(request, image=None, mask=None, strength=1.0)
    first = True
    for name in generator.parts:
        part = generator.part(name)
        if request.image is None or generator.embedded or not _samples_images(part):
            found[name] = bare
            continue
        if first:
            found[name] = _reduced(request, part.image_size)
        else:
            small = bare if request.mask is None else _reduced(request, part.image_size)
            found[name] = replace(small, strength=1.0)
        first = False
    return found


def _samples_images(part: Generator) -> bool:
    """Return whether a part samples images, and not vectors such as a prior's."""
    return len(getattr(part, "noise_shape", (0, 0, 0))) == 3


def _reduced(request: Request, size: int) -> Request:
    """Reduce the image of a request; pixels of which a part may change may change."""
    assert request.image is not None
    mask = request.mask
    if mask is not None and mask.shape[-1] != size:
        mask = F.adaptive_max_pool2d(mask.to(request.image.dtype), size)
    return replace(request, image=low_res(request.image, size), mask=mask)


def _known(request: Request) -> dict[str, Tensor]:
    """Return the extras that tell a network what is known of the image."""
    if request.image is None or request.mask is None:
        return {}
    known = (request.mask <= 0.5).to(request.image.dtype)
    return {KNOWN: torch.cat([request.image * known, known], 1)}


def _guided(samplers: Mapping[str, Any]) -> bool:
    """Return whether any part, or any part of a nested cascade, is guided."""
    guidance = samplers.get("guidance", 1)
    return guidance != 1 or any(
        _guided(value) for value in samplers.values() if isinstance(value, Mapping)
    )


def _portion(request: Request, index: int, count: int) -> Progress:
    """Return a function that reports a part's progress as its portion of the whole.

    All parts count the same, because their numbers of steps differ and are not known in advance.
    """

    def report(done: int, total: int) -> None:
        request.step_done(index * PORTION + round(PORTION * done / total), count * PORTION)

    return report
