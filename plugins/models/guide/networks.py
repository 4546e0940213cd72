"""The networks of `guide`: a classifier, or a CLIP, of noisy images.

Source: Dhariwal & Nichol 2021, section 4; Nichol et al. 2022 (GLIDE), section 2.3.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.families.continuous import named_schedule
from t2i.core.families.guide import GuideGenerator
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.adm.conditional import class_numbers
from t2i.plugins.common.diffusion.adm.unet import AdmEncoder
from t2i.plugins.common.diffusion.text_map import conditioned
from t2i.plugins.models.guide.config import GuideConfig

VECTOR = "caption vector"  # name of g(y) in the text's extras
LABEL = "class number"  # name of the class in the text's extras
LARGEST_SCALE = 100.0
"""Upper bound of the trained factor of the cosines, as in CLIP."""
SAME = 1 - 1e-4
"""Cosine from which on two captions count as the same."""


class NoisyClip(GuideGenerator):
    """log p(y | x_t) of captions or classes y.

    With classes: the softmax of f(x_t, t). With text: s f(x_t, t) . g(y), where f and g have unit
    length and s is trained; normalised over the captions that are kept, if there are any.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Not used.

    Attributes:
        kept: Sentences of training captions, float (compared, D), the newest first. Buffer.
        count: How many of them there are, int64. Buffer.
    """

    kept: Tensor
    count: Tensor

    def __init__(self, config: GuideConfig, text: TextShape, assets: Path | None = None) -> None:
        super().__init__()
        self.config, self.image_size = config, config.image_size
        self.noise_shape = (3, config.image_size, config.image_size)
        self.schedule = named_schedule(config.schedule, config.timesteps)
        channels, side = 3 * config.patch**2, config.image_size // config.patch
        out = len(config.classes) or config.width
        self.image = AdmEncoder(config.adm, channels, out, side)
        self.text: nn.Module | None = None
        if config.classes:
            return
        hidden = config.text_hidden
        self.text = (
            nn.Sequential(
                nn.Linear(text.sentence, hidden), nn.SiLU(), nn.Linear(hidden, config.width)
            )
            if hidden
            else nn.Linear(text.sentence, config.width)
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.register_buffer("kept", torch.zeros(config.compared, text.sentence))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def condition(self, text: TextFeatures) -> TextFeatures:
        if self.text is None:
            numbers = class_numbers(text.captions, self.config.classes)
            made = {LABEL: torch.tensor(numbers, device=self.device)}
        else:
            made = {VECTOR: self.of_sentences(text.sentence)}
        return replace(text, extras={**text.extras, **made})

    def of_images(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Compute f: logits of the classes, or a vector of unit length.

        Args:
            x_t: Noisy images, float (B, 3, H, W).
            t: Timesteps, (B,).

        Returns:
            Logits (B, K), or vectors (B, width).
        """
        output: Tensor = self.image(
            F.pixel_unshuffle(x_t, self.config.patch), self.schedule.embedded(t)
        )
        return output if self.text is None else F.normalize(output.float(), dim=1)

    def of_sentences(self, sentences: Tensor) -> Tensor:
        """Compute g, a vector of unit length.

        Args:
            sentences: Sentence vectors, float (B, D).

        Returns:
            Vectors, float (B, width).
        """
        assert self.text is not None
        return F.normalize(self.text(sentences).float(), dim=1)

    @property
    def scale(self) -> Tensor:
        """The factor of the cosines."""
        return self.log_scale.exp().clamp_max(LARGEST_SCALE)

    def log_likelihood(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        f = self.of_images(x_t, t)
        if self.text is None:
            return f.log_softmax(1).gather(1, conditioned(text, LABEL)[:, None])[:, 0]
        g = conditioned(text, VECTOR)
        score = self.scale * (f * g).sum(1)
        if not self.config.compared or not int(self.count):
            return score
        return score - torch.cat([score[:, None], self.against_kept(f, g)], 1).logsumexp(1)

    def against_kept(self, f: Tensor, g: Tensor) -> Tensor:
        """Score images with the captions that are kept.

        Args:
            f: Vectors of images, float (B, width).
            g: Vectors of their captions, float (B, width).

        Returns:
            s f . g of each kept caption, (B, kept); -inf where it is the image's own.
        """
        others = self.of_sentences(self.kept[: int(self.count)])
        scores: Tensor = self.scale * f @ others.T
        return scores.masked_fill(g @ others.T > SAME, -torch.inf)

    @torch.no_grad()
    def keep(self, sentences: Tensor) -> None:
        """Keep sentences of training captions, in the place of the oldest.

        Args:
            sentences: Sentence vectors, float (B, D).
        """
        if self.config.compared:
            newest = torch.cat([sentences.to(self.kept), self.kept])
            self.kept.copy_(newest[: self.config.compared])
            self.count.add_(len(sentences)).clamp_(max=self.config.compared)
