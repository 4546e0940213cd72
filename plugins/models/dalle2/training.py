"""Training of DALL-E 2: CLIP if it is new, the decoder, the upsamplers and the prior.

The prior comes last, so that its sample grids show what the whole model draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from t2i.core.families.cascade import LEVEL, PREVIOUS, low_res
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.strata import stratified
from t2i.core.interfaces.text import TextEncoder, TextFeatures
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Stage, Trainer
from t2i.core.registry.tables import registry
from t2i.plugins.common.cascades.config import PartConfig
from t2i.plugins.common.cascades.training import PartTrainer, UpsamplerTrainer
from t2i.plugins.common.clip.contrast import ClipMatcher
from t2i.plugins.common.clip.vision import ClipVision
from t2i.plugins.common.diffusion.training import DenoisingTrainer
from t2i.plugins.common.text.contrastive import MatchingTrainer
from t2i.plugins.models.dalle2.config import (
    Dalle2Config,
    DecoderPart,
    PriorPart,
    UnclipUpsampler,
)
from t2i.plugins.models.dalle2.decoder import DecoderGenerator
from t2i.plugins.models.dalle2.networks import Dalle2Generator
from t2i.plugins.models.dalle2.prior import PriorGenerator

Embed = Callable[[Tensor], Tensor]
"""Maps images (B, 3, H, W) to their embeddings (B, D)."""

PREVIEW_STEPS = 8


class PriorTrainer(DenoisingTrainer):
    """Trains the prior to predict embeddings of images: E ||f(z_t, t, y) - z_i||^2.

    Mean and deviation of the embeddings are those of all that it has seen.

    Args:
        config: Settings of the part.
        networks: The part's networks.
        embed: Embeds images.
    """

    def __init__(self, config: PriorPart, networks: Networks, embed: Embed) -> None:
        super().__init__(config, networks, text=False)
        assert isinstance(networks.generator, PriorGenerator)
        self.prior, self.embed = networks.generator, embed
        self.encode = embed
        self.modules = {"prior": self.prior}
        parameters = [p for p in self.prior.parameters() if p.requires_grad]
        self.optimizers = {
            self.part: AdamW(
                parameters, config.lr, betas=config.betas, eps=config.adam_eps,
                weight_decay=config.weight_decay, fused=True,
            )
        }  # fmt: skip

    def step(self, batch: Batch, engine: Engine) -> Losses:
        with torch.no_grad():
            z = self.clean(batch)
            self.prior.observe(engine.gathered(z))
        return self._learn_embeddings(z, batch, engine)

    def validation(self, batch: Batch, engine: Engine) -> Losses:
        return self._learn_embeddings(self.clean(batch), stratified(batch), engine)

    def _learn_embeddings(self, z: Tensor, batch: Batch, engine: Engine) -> Losses:
        with torch.no_grad():
            z_0 = self.prior.standardised(z)
        eps = batch.noise.normal("eps", 0, z_0.shape[1:])
        return self.learn(z_0, eps, self.times(batch.noise), self.captions(batch).detach(), engine)

    def clean(self, batch: Batch) -> Tensor:
        return self.embed(batch.images) if batch.encoded is None else batch.encoded


class DecoderTrainer(DenoisingTrainer):
    """Trains the decoder on small images and the embeddings of the large ones.

    Embeddings and captions are dropped at random, each on its own.

    Args:
        config: Settings of the part.
        networks: The part's networks.
        embed: Embeds images.
    """

    previews = "Left a real image, right a sample made of its own embedding."

    def __init__(self, config: DecoderPart, networks: Networks, embed: Embed) -> None:
        super().__init__(config, networks, text=False)
        assert isinstance(networks.generator, DecoderGenerator)
        self.decoder, self.embed, self.settings = networks.generator, embed, config
        self.encode = None  # two things are made of an image
        optimizer = self.optimizers[self.part]
        assert isinstance(optimizer, Optimizer)
        for name, module in (("image", self.decoder.image), ("project", self.decoder.project)):
            if parameters := list(module.parameters()):
                self.modules[name] = module
                optimizer.add_param_group({"params": parameters})

    def step(self, batch: Batch, engine: Engine) -> Losses:
        with torch.no_grad():
            z_0, z = low_res(batch.images, self.settings.image_size), self.embed(batch.images)
            if self.settings.image_noise:
                noise = batch.noise.normal("image_noise", 0, z.shape[1:])
                z = z + self.settings.image_noise * z.std(1, keepdim=True) * noise
        keep = batch.noise.uniform("image_dropout", 0, ()) >= self.settings.image_dropout
        text = self.captions(batch).detach()
        told = {**text.extras, PREVIOUS: self.decoder.image.dropped(z, keep)}
        eps = batch.noise.normal("eps", 0, z_0.shape[1:])
        text = replace(text, extras=told)
        return self.learn(z_0, eps, self.times(batch.noise), text, engine)

    def preview(self, batch: Batch) -> Tensor:
        """Draw images for their own embeddings, each beside what it was made of."""
        text = replace(batch.text, extras={PREVIOUS: self.embed(batch.images)})
        return beside(low_res(batch.images, self.settings.image_size), self.decoder, text)


class EnlargingTrainer(UpsamplerTrainer):
    """Trains an upsampler of this model, and shows what it makes of true small images."""

    previews = "Left a real image, right one made of it at the smaller size."

    def preview(self, batch: Batch) -> Tensor:
        """Draw images for the smaller ones, each beside what it was made of."""
        low = low_res(batch.images, self.settings.low_size)
        level = low.new_zeros(len(low))
        text = replace(batch.text, extras={PREVIOUS: low, LEVEL: level})
        return beside(batch.images, self.upsampler, text)


def beside(images: Tensor, generator: DiffusionGenerator, text: TextFeatures) -> Tensor:
    """Sample a part in a few steps.

    Args:
        images: The true images, (B, 3, H, W).
        generator: The part.
        text: What it is conditioned on, of B captions.

    Returns:
        Images (2 B, 3, H, W): each true one, and the one that was drawn.
    """
    sampler = registry().samplers.build(
        registry().samplers.choose("ddim", {"steps": PREVIEW_STEPS, "guidance": 1.0})
    )
    noise = PromptNoise(0, tuple((0, i) for i in range(len(images))), images.device)
    request = Request(text=generator.condition(text), noise=noise)
    drawn = sampler.sample(generator, request)
    return torch.stack([images, drawn.clamp(-1, 1)], 1).flatten(0, 1)


def pretraining(config: Dalle2Config, networks: Networks) -> Trainer:
    """Return the trainer of stage `clip`, of a new CLIP, a trainable text encoder, or both.

    Args:
        config: The model's settings.
        networks: The model's networks.

    Returns:
        The trainer.
    """
    clip = _clip_of(networks)
    clip.requires_grad_(config.clip is not None and config.clip.weights is None)
    return MatchingTrainer(
        networks.text_encoder, ClipMatcher(clip), lr=config.clip_lr, lr_text=config.text_lr
    )


def _clip_of(networks: Networks) -> ClipVision:
    assert isinstance(networks.generator, Dalle2Generator)
    return networks.generator.required_clip()


def _stage(
    name: str, part: PartConfig, size: int, kind: Callable[[Networks, Embed], Trainer]
) -> Stage:
    """Make the stage of one part, whose trainer receives images of a size, and an embedder."""

    def made(networks: Networks) -> Trainer:
        generator = networks.generator
        assert isinstance(generator, Dalle2Generator)
        _clip_of(networks).requires_grad_(False)
        own = replace(networks, generator=generator.part(name))
        trainer = PartTrainer(name, size, kind(own, generator.embed))
        if name == "prior":
            trainer.shows = None  # the whole model: all other parts are trained
        return trainer

    return Stage(name, part.share, made, dict(part.training))


def _enlarging(config: UnclipUpsampler, networks: Networks, embed: Embed) -> Trainer:
    """Make the trainer of a part that enlarges, which embeds nothing."""
    return EnlargingTrainer(config, networks, text=False)


def stages(config: Dalle2Config, text_encoder: TextEncoder) -> Sequence[Stage]:
    """Return the stages: `clip` if anything of CLIP is trained, then one for each part.

    Args:
        config: The model's settings.
        text_encoder: The text encoder. It decides only whether there is a stage `clip`.

    Returns:
        The stages.
    """
    found = [
        _stage(
            "decoder", config.decoder, config.image_size, partial(DecoderTrainer, config.decoder)
        )
    ]
    for name, part in config.upsamplers.items():
        found.append(_stage(name, part, part.image_size, partial(_enlarging, part)))
    prior = partial(PriorTrainer, config.prior)
    found.append(_stage("prior", config.prior, config.image_size, prior))
    new = config.clip is not None and config.clip.weights is None
    if not new and not text_encoder.trainable:
        return found
    rest = sum(stage.share for stage in found)
    share = config.text_share / (1 - config.text_share) * rest
    return [Stage("clip", share, partial(pretraining, config)), *found]
