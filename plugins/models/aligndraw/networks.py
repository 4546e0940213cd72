"""The networks of alignDRAW.

Source: Mansimov et al. 2016, section 3; emansim/text2image, coco/alignDraw.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.families.one_shot import OneShotGenerator
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.text_map import conditioned
from t2i.plugins.common.variational.bound import Latent
from t2i.plugins.common.variational.gaussian import Gaussian, split
from t2i.plugins.models.aligndraw.attention import Filters, filters
from t2i.plugins.models.aligndraw.config import AlignDRAWConfig
from t2i.plugins.models.aligndraw.recurrent import LSTM, Memory, Reader

READ = "aligndraw words"
"""Name of the vectors that the two LSTMs made of the words, in the text's extras."""

KEYS = "aligndraw keys"
"""Name of their part of the scores, in the text's extras."""


CANVAS = 32
"""Largest side of the canvas that the sentence chooses; it is enlarged for larger images."""


class State(NamedTuple):
    """What a step hands to the next.

    Attributes:
        canvas: Logits of the image, float (B, 3, H, H).
        decoder: Memory of the decoder's LSTM.
        prior: Prior of the next step's latents, of shape (B, z_dim).
    """

    canvas: Tensor
    decoder: Memory
    prior: Gaussian


class Drawing(nn.Module):
    """The recurrent network: attention over words, encoder, decoder, reading and writing.

    Args:
        config: The model's settings.
        text: Widths of the text features.
    """

    def __init__(self, config: AlignDRAWConfig, text: TextShape) -> None:
        super().__init__()
        self.config = config
        hidden, z, side = config.hidden, config.z_dim, config.image_size
        self.reader = Reader(text.words, config.language)
        self.keys = nn.Linear(2 * config.language, config.align, bias=False)
        self.query = nn.Linear(hidden, config.align)
        self.score = nn.Linear(config.align, 1, bias=False)
        self.reading, self.writing = nn.Linear(hidden, 5), nn.Linear(hidden, 5)
        self.encoder = LSTM((6 * config.read**2 + hidden,), hidden)
        self.mean, self.log_scale = nn.Linear(hidden, z), nn.Linear(hidden, z)
        sentence = (text.sentence,) if config.decode_sentence else ()
        self.decoder = LSTM((z, 2 * config.language, *sentence), hidden)
        self.window = nn.Linear(hidden, 3 * config.write**2)
        self.prior = nn.Linear(hidden, 2 * z)
        self.coarse = min(side, CANVAS)
        own = config.canvas == "sentence"
        self.canvas_of = nn.Linear(text.sentence, 3 * self.coarse**2) if own else None
        for name, parameter in self.named_parameters():
            matrix = parameter.dim() > 1 and not name.endswith("start")
            nn.init.normal_(parameter, std=config.spread) if matrix else nn.init.zeros_(parameter)
        self.encoder_start = nn.Parameter(torch.zeros(1, hidden))
        self.decoder_start = nn.Parameter(torch.zeros(1, hidden))
        self.canvas = nn.Parameter(torch.zeros(1, 3, side, side))

    def read_caption(self, text: TextFeatures, other: TextFeatures | None) -> TextFeatures:
        """Add what the LSTMs read to the extras of a text.

        Args:
            text: Features of B captions.
            other: Captions that the second LSTM reads. None: the same ones, reversed.

        Returns:
            The text with `READ` and `KEYS`.
        """
        read = self.reader(text, other)
        return replace(text, extras={**text.extras, READ: read, KEYS: self.keys(read)})

    def started(self, text: TextFeatures) -> State:
        """Return the state before the first step.

        Args:
            text: Features of B captions.

        Returns:
            The state.
        """
        n = len(text)
        canvas, h = self.canvas.expand(n, -1, -1, -1), self.decoder_start.expand(n, -1)
        if self.canvas_of is not None:
            own = self.canvas_of(text.sentence).view(n, 3, self.coarse, self.coarse)
            canvas = canvas + F.interpolate(own, size=canvas.shape[2:])
        zeros = h.new_zeros(n, self.config.z_dim)
        return State(canvas, (h, torch.zeros_like(h)), Gaussian(zeros, zeros))

    def attended(self, h: Tensor, text: TextFeatures) -> Tensor:
        """Attend to the words.

        Args:
            h: Output of the decoder's LSTM, float (B, hidden).
            text: Features of B captions, read.

        Returns:
            The mean of the words by their scores, float (B, 2 language).
        """
        scores = self.score(torch.tanh(conditioned(text, KEYS) + self.query(h)[:, None])).squeeze(2)
        weights = scores.masked_fill(~text.mask, -torch.inf).softmax(1)
        return torch.einsum("bl,blc->bc", weights, conditioned(text, READ))

    def encoded(self, x: Tensor, state: State, memory: Memory) -> tuple[Gaussian, Memory]:
        """Look at an image, and compute the posterior of a step's latents.

        Args:
            x: Images in [0, 1], float (B, 3, H, H).
            state: The state.
            memory: Memory of the encoder's LSTM.

        Returns:
            The posterior, of shape (B, z_dim), and the memory.
        """
        h = state.decoder[0]
        grid = filters(self.reading(h), self.config.read, self.config.image_size)
        error = x - state.canvas.sigmoid()
        seen = grid.read(torch.cat([x, error], dim=1)).flatten(1) * grid.gamma
        memory = self.encoder.step(self.encoder.entered(torch.cat([seen, h], dim=1)), memory)
        h = memory[0]
        return split(torch.cat([self.mean(h), 0.5 * self.log_scale(h)], dim=1)), memory

    def decoded(self, z: Tensor, state: State, text: TextFeatures) -> State:
        """Write on the canvas.

        Args:
            z: Latents, float (B, z_dim).
            state: The state.
            text: Features of B captions, read.

        Returns:
            The next state.
        """
        words = self.attended(state.decoder[0], text)
        inputs = (z, words, text.sentence) if self.config.decode_sentence else (z, words)
        memory = self.decoder.step(self.decoder.entered(*inputs), state.decoder)
        h = memory[0]
        n = self.config.write
        grid: Filters = filters(self.writing(h), n, self.config.image_size)
        written = grid.write(self.window(h).view(-1, 3, n, n).to(grid.rows.dtype))
        canvas = state.canvas + written / grid.gamma[..., None, None]
        return State(canvas, memory, split(torch.tanh(self.prior(h))))

    def infer(
        self, x: Tensor, text: TextFeatures, draw: Callable[[int], Tensor]
    ) -> tuple[Tensor, list[Latent]]:
        """Draw an image again, with latents from the posterior.

        Args:
            x: Images in [0, 1], float (B, 3, H, H).
            text: Features of B captions, read.
            draw: Function from a step to its noise, (B, z_dim).

        Returns:
            The last canvas, float (B, 3, H, H), and the latents of all steps.
        """
        state = self.started(text)
        h = self.encoder_start.expand(len(x), -1)
        memory: Memory = (h, torch.zeros_like(h))
        latents: list[Latent] = []
        for step in range(self.config.draw_steps):
            q, memory = self.encoded(x, state, memory)
            latents.append(Latent(q, state.prior, q.draw(draw(step))))
            state = self.decoded(latents[-1].z, state, text)
        return state.canvas, latents

    def imagine(self, eps: Tensor, text: TextFeatures, temperature: float = 1.0) -> Tensor:
        """Draw an image with latents from the prior.

        Args:
            eps: Noise of the latents, float (B, T, z_dim).
            text: Features of B captions, read.
            temperature: Factor of the prior's standard deviations.

        Returns:
            The last canvas, float (B, 3, H, H).
        """
        state = self.started(text)
        for each in eps.unbind(1):
            state = self.decoded(state.prior.draw(each, temperature), state, text)
        return state.canvas


class Sharpener(nn.Module):
    """Adds outlines to an image: three convolutions of noise, caption and image.

    The noise is 0, as in the authors' sampling.

    Args:
        width: Channels of the two hidden layers.
        sentence: Width of sentence vectors.
        side: Height and width of the images in pixels.
    """

    def __init__(self, width: int, sentence: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.caption = nn.Linear(sentence, side**2)
        self.convs = nn.ModuleList(
            [nn.Conv2d(5, width, 7, padding=3), nn.Conv2d(width, width, 7, padding=3),
             nn.Conv2d(width, 3, 5, padding=2)]
        )  # fmt: skip

    def forward(self, images: Tensor, sentence: Tensor) -> Tensor:
        """Sharpen images.

        Args:
            images: Images in [0, 1], float (B, 3, H, H).
            sentence: Sentence vectors, float (B, D).

        Returns:
            Images, float (B, 3, H, H), not clamped to [0, 1].
        """
        plane = self.caption(sentence).relu().view(-1, 1, self.side, self.side)
        first, second, last = self.convs
        h = torch.cat([torch.zeros_like(plane), plane, images], dim=1)
        edges: Tensor = last(F.relu(second(F.relu(first(h)))))
        return images + edges


class AlignDRAWGenerator(OneShotGenerator):
    """alignDRAW, and the network that sharpens its canvas where there is one.

    The noise of an image are the latents of all steps, (T, z_dim).

    Args:
        config: The model's settings.
        text: Widths of the text features.

    Attributes:
        sharpens: Whether the sharpening network was trained, or its training has begun.
    """

    sharpens: Tensor

    def __init__(self, config: AlignDRAWConfig, text: TextShape) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        self.noise_shape = (config.draw_steps, config.z_dim)
        self.drawing = Drawing(config, text)
        sharp = config.sharpen
        self.sharpener = (
            Sharpener(sharp.width, text.sentence, config.image_size) if sharp.share else None
        )
        self.register_buffer("sharpens", torch.tensor(False))

    def condition(self, text: TextFeatures) -> TextFeatures:
        return self.drawing.read_caption(text, text if self.config.order == "authors" else None)

    def forward(self, noise: Tensor, text: TextFeatures) -> Tensor:
        canvas = self.drawing.imagine(noise, text, self.config.temperature)
        return 2 * self.sharpened(canvas.sigmoid(), text.sentence) - 1

    def sharpened(self, images: Tensor, sentence: Tensor) -> Tensor:
        """Sharpen images, if the network for it was trained.

        Args:
            images: Images in [0, 1], float (B, 3, H, H).
            sentence: Sentence vectors, float (B, D).

        Returns:
            Images in [0, 1], float (B, 3, H, H).
        """
        if self.sharpener is None or not bool(self.sharpens):
            return images
        sharp: Tensor = self.sharpener(images, sentence)
        return sharp.clamp(0, 1)


def build(config: AlignDRAWConfig, text: TextShape, assets: Path | None) -> AlignDRAWGenerator:
    """Build the generator.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Not used: the generator has no assets.

    Returns:
        The generator.
    """
    return AlignDRAWGenerator(config, text)
