"""The blocks of TarFlow: a causal transformer that gives each patch its shift and scale."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.families.flow import FlowRun
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.text_map import MAP
from t2i.plugins.models.tarflow.config import TarFlowConfig

UNIT = 0.541324854612918
"""softplus(UNIT) = 1."""


@dataclass(frozen=True)
class Context:
    """What a block reads beside the tokens before.

    Args:
        added: What is added to each token's input, (B or 1, M, width) for the M inputs of the
            transformer.
        words: Words as a prefix, (B, L, width). None: there are none.
        shift: What is added to the last layer's output, (B, M, 2 D). None: nothing.
        mask: Which words count, bool (B, L). None: there are none.
    """

    added: Tensor
    words: Tensor | None = None
    mask: Tensor | None = None
    shift: Tensor | None = None

    @property
    def prefix(self) -> int:
        """Number of words."""
        return 0 if self.words is None else self.words.shape[1]


class Block(nn.Module):
    """z_i = (x_i - mu_i) / sigma_i, with mu_i and sigma_i from the tokens before i and the text.

    Source: Zhai et al. 2024, eq. 6 to 8.

    Args:
        config: The model's settings.
        dims: Values of a token.
        channels: Values of the text map that belong to a token.
        layers: Number of transformer layers.
        flipped: Whether the tokens are read from the last to the first.
        text: Widths of the text features. None: this block reads no text.
    """

    def __init__(
        self,
        config: TarFlowConfig,
        dims: int,
        channels: int,
        layers: int,
        flipped: bool,
        text: TextShape | None,
    ) -> None:
        super().__init__()
        width, rms = config.width, config.norm == "rms"
        self.flipped, self.softplus, self.clip = (
            flipped,
            config.scale == "softplus",
            config.soft_clip,
        )
        self.product, self.reads = config.guidance_rule == "product", text is not None
        self.into = nn.Linear(dims, width)
        self.positions = nn.Parameter(torch.randn(config.tokens, width) * 1e-2)
        self.start = nn.Parameter(torch.randn(1, 1, dims)) if config.start_token else None
        self.sentence: nn.Module | None = None
        self.words: nn.Module | None = None
        self.map: nn.Module | None = None
        self.shift: nn.Linear | None = None
        if text is not None:
            if config.sentence:
                self.sentence = nn.Linear(text.sentence, width, bias=False)
            if config.words:
                self.words = nn.Linear(text.words, width)
            if config.text.text_map:
                self.map = nn.Linear(channels, width, bias=False)
                if config.text_affine:
                    self.shift = nn.Linear(channels, 2 * dims, bias=False)
                    nn.init.zeros_(self.shift.weight)
        self.layers = nn.ModuleList(Layer(width, config.head_width, rms) for _ in range(layers))
        self.norm = nn.RMSNorm(width) if rms else nn.Identity()
        self.out = nn.Linear(width, 2 * dims)
        nn.init.zeros_(self.out.weight)

    def forward(
        self, x: Tensor, text: TextFeatures, null: TextFeatures | None, run: FlowRun
    ) -> tuple[Tensor, Tensor]:
        """Turn tokens into noise, all at once.

        Args:
            x: Tokens, (B, N, D).
            text: Captions, whose map is cut into patches.
            null: No captions. None: there is no guidance.
            run: Guidance.

        Returns:
            Noise, (B, N, D), and log |det| of each image, (B,).
        """
        x = self.ordered(x)
        mu, log_sigma = self.guided(x, self.contexts(text, null, run), run)
        return self.ordered((x - mu) * (-log_sigma).exp()), -log_sigma.flatten(1).sum(1)

    @torch.no_grad()
    def swept(
        self, z: Tensor, text: TextFeatures, null: TextFeatures | None, run: FlowRun
    ) -> Tensor:
        """Turn noise into tokens by Jacobi's iteration: all tokens from the last estimate of all.

        After k sweeps the first k tokens are exact. Each image stops where it no longer changes.

        Args:
            z: Noise, (B, N, D).
            text: Captions, whose map is cut into patches.
            null: No captions. None: there is no guidance.
            run: Guidance and tolerance.

        Returns:
            Tokens, (B, N, D).
        """
        z = self.ordered(z)
        contexts = self.contexts(text, null, run)
        x, done = z, z.new_zeros(len(z), dtype=torch.bool)
        for _ in range(z.shape[1]):
            mu, log_sigma = self.guided(x, contexts, run)
            new = torch.where(done[:, None, None], x, z * log_sigma.exp() + mu)
            done = done | ((new - x).abs().amax((1, 2)) <= run.tolerance)
            x = new
            if bool(done.all()):
                break
        return self.ordered(x)

    @torch.no_grad()
    def reverse(
        self, z: Tensor, text: TextFeatures, null: TextFeatures | None, run: FlowRun
    ) -> Tensor:
        """Turn noise into tokens, one after the other, with a cache of keys and values.

        Args:
            z: Noise, (B, N, D).
            text: Captions, whose map is cut into patches.
            null: No captions. None: there is no guidance.
            run: Guidance.

        Returns:
            Tokens, (B, N, D).
        """
        z = self.ordered(z)
        contexts = self.contexts(text, null, run)
        caches = [self.begun(context, len(z), z.shape[1]) for context in contexts]
        x, start = z.clone(), self.start
        first = 1 if start is None else 0
        for i in range(first, z.shape[1]):
            before = x[:, i - 1 : i]
            if i == 0 and start is not None:
                before = start.expand(len(z), -1, -1).to(x)
            found = [
                self.next(before, context, cache, i - first)
                for context, cache in zip(contexts, caches, strict=True)
            ]
            mu, log_sigma = self.mixed(found, self.weights(run, x, i))
            x[:, i] = (z[:, i : i + 1] * log_sigma.exp() + mu)[:, 0]
        return self.ordered(x)

    def ordered(self, x: Tensor) -> Tensor:
        """Put tokens into this block's order, or back.

        Args:
            x: Tokens, (B, N, D).

        Returns:
            The tokens.
        """
        return x.flip(1) if self.flipped else x

    def contexts(
        self, text: TextFeatures, null: TextFeatures | None, run: FlowRun
    ) -> list[Context]:
        """Compute what the block reads of the text: with the captions and, guided, without.

        Args:
            text: Captions, whose map is cut into patches.
            null: No captions. None: there is no guidance.
            run: Guidance.

        Returns:
            One context, or two.
        """
        found = [self.context(text)]
        if null is not None and self.reads:
            found.append(self.context(null))
        return found

    def context(self, text: TextFeatures) -> Context:
        """Compute what the block reads of some captions.

        Args:
            text: Captions, whose map is cut into patches.

        Returns:
            The context.
        """
        free = self.start is None  # then input i belongs to token i + 1
        added = self.ordered(self.positions[None])
        added = added[:, :-1] if free else added
        if self.sentence is not None:
            added = added + self.sentence(text.sentence)[:, None]
        shift: Tensor | None = None
        if self.map is not None:
            grid = self.ordered(text.extras[MAP])
            grid = grid[:, 1:] if free else grid
            added = added + self.map(grid)
            shift = None if self.shift is None else self.shift(grid)
        if self.words is None:
            return Context(added, shift=shift)
        return Context(added, self.words(text.words), text.mask, shift)

    def guided(self, x: Tensor, contexts: list[Context], run: FlowRun) -> tuple[Tensor, Tensor]:
        """Compute mean and log standard deviation of each token given those before, with guidance.

        Args:
            x: Tokens in this block's order, (B, N, D).
            contexts: One context, or two.
            run: Guidance.

        Returns:
            Both, (B, N, D).
        """
        found = [self.given(x, context) for context in contexts]
        return self.mixed(found, self.weights(run, x, None))

    def weights(self, run: FlowRun, x: Tensor, token: int | None) -> Tensor:
        """Return the weight w of guidance: 0 is none.

        Args:
            run: Guidance.
            x: Tokens, (B, N, D).
            token: Number of a token. None: all.

        Returns:
            w of each token, (N, 1), or of one, (1, 1).
        """
        last = x.shape[1] - 1
        w = x.new_full((last + 1, 1), run.guidance - 1)
        if run.anneal:
            w = w * torch.linspace(0, 1, last + 1).to(w)[:, None]
        return w if token is None else w[token : token + 1]

    def mixed(self, found: list[tuple[Tensor, Tensor]], w: Tensor) -> tuple[Tensor, Tensor]:
        """Combine what captions say with what no captions say.

        Source: Zhai et al. 2024, section 2.5; the code of STARFlow for the product.

        Args:
            found: Mean and log standard deviation with captions and, guided, without.
            w: Weights of guidance, (N, 1).

        Returns:
            Mean and log standard deviation.
        """
        mu, log_sigma = found[0]
        if len(found) == 1:
            return mu, log_sigma
        mu_u, log_sigma_u = found[1]
        if not self.product:
            return mu + w * (mu - mu_u), log_sigma + w * (log_sigma - log_sigma_u)
        r = (2 * (log_sigma - log_sigma_u)).exp().clamp_max(1)
        total = 1 + w - w * r
        return ((1 + w) * mu - w * r * mu_u) / total, log_sigma - total.log() / 2

    def given(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Compute mean and log standard deviation of each token given those before.

        Args:
            x: Tokens in this block's order, (B, N, D).
            context: What the block reads of the text.

        Returns:
            Both, (B, N, D).
        """
        inputs = x[:, :-1]
        if self.start is not None:
            inputs = torch.cat([self.start.expand(len(x), -1, -1).to(x), inputs], 1)
        h = self.into(inputs) + context.added
        prefix, mask = context.prefix, None
        if context.words is not None:
            h = torch.cat([context.words, h], 1)
            mask = _causal(context, h.shape[1])
        for layer in self.layers:
            h = layer(h, mask)
        mu, log_sigma = self.parameters_of(h[:, prefix:], context.shift, x.dtype)
        if self.start is None:
            mu, log_sigma = (F.pad(value, (0, 0, 1, 0)) for value in (mu, log_sigma))
        return mu, log_sigma

    def parameters_of(
        self, h: Tensor, shift: Tensor | None, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Compute mean and log standard deviation from what the transformer returns.

        Args:
            h: Its output, (B, M, width).
            shift: What is added to the last layer's output, (B, M, 2 D). None: nothing.
            dtype: Type of the tokens.

        Returns:
            Both, (B, M, D).
        """
        out = self.out(self.norm(h))
        out = (out if shift is None else out + shift).to(dtype)
        if self.clip:
            out = self.clip * torch.tanh(out / self.clip)
        a, mu = out.chunk(2, -1)
        return mu, F.softplus(a + UNIT).log() if self.softplus else a

    def begun(self, context: Context, batch: int, tokens: int) -> list[Tensor]:
        """Make the caches of keys and values, and write the words into them.

        Args:
            context: What the block reads of the text.
            batch: Number of images.
            tokens: Number of tokens.

        Returns:
            One cache for each layer, (2, B, heads, L + N, d).
        """
        caches: list[Tensor] = []
        h = context.words
        mask = None if h is None else _causal(context, context.prefix)
        for layer in self.layers:
            assert isinstance(layer, Layer)
            cache = layer.cache(batch, context.prefix + tokens)
            if h is not None:
                h = layer(h, mask, cache)
            caches.append(cache)
        return caches

    def next(
        self, before: Tensor, context: Context, caches: list[Tensor], number: int
    ) -> tuple[Tensor, Tensor]:
        """Compute mean and log standard deviation of one token.

        Args:
            before: The token before, (B, 1, D).
            context: What the block reads of the text.
            caches: Keys and values of all inputs before, which are extended.
            number: Number of the transformer's input, from 0.

        Returns:
            Both, (B, 1, D).
        """
        h = self.into(before) + context.added[:, number : number + 1]
        at = context.prefix + number
        mask: Tensor | None = None
        if context.mask is not None:
            mask = F.pad(context.mask, (0, number + 1), value=True)[:, None, None]
        for layer, cache in zip(self.layers, caches, strict=True):
            assert isinstance(layer, Layer)
            h = layer.step(h, cache, at, mask)
        shift = None if context.shift is None else context.shift[:, number : number + 1]
        return self.parameters_of(h, shift, before.dtype)


def _causal(context: Context, length: int) -> Tensor:
    """Return which inputs attend to which, bool (B, 1, length, length).

    Each attends to those before it and to itself, but not to other words that are padding.
    """
    assert context.mask is not None
    counts = F.pad(context.mask, (0, length - context.prefix), value=True)
    ones = torch.ones(length, length, dtype=torch.bool, device=counts.device)
    eye = torch.eye(length, dtype=torch.bool, device=counts.device)
    return (ones.tril() & (counts[:, None] | eye))[:, None]


class Layer(nn.Module):
    """A layer of a causal transformer: attention, then a perceptron of two layers.

    Args:
        width: Width of a token.
        head: Width of one head.
        rms: Whether it normalises by the root mean square.
    """

    def __init__(self, width: int, head: int, rms: bool) -> None:
        super().__init__()
        self.heads = width // head
        norm = nn.RMSNorm if rms else nn.LayerNorm
        self.norm_1, self.norm_2 = norm(width), norm(width)
        self.qkv, self.back = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, mask: Tensor | None, cache: Tensor | None = None) -> Tensor:
        """Apply the layer to all inputs.

        Args:
            x: Inputs, (B, M, width).
            mask: Which inputs attend to which, bool (B, 1, M, M). None: each to those before it.
            cache: Where keys and values are written. None: nowhere.

        Returns:
            The outputs, (B, M, width).
        """
        q, k, v = self._projected(x)
        if cache is not None:
            cache[0, :, :, : k.shape[2]], cache[1, :, :, : v.shape[2]] = k, v
        gathered = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None)
        return self._finished(x, gathered)

    def step(self, x: Tensor, cache: Tensor, at: int, mask: Tensor | None) -> Tensor:
        """Apply the layer to one input, given the keys and values of those before.

        Args:
            x: The input, (B, 1, width).
            cache: Keys and values, which are extended, (2, B, heads, L + N, d).
            at: Number of the input in the cache.
            mask: Which inputs count, bool (B, 1, 1, at + 1). None: all.

        Returns:
            The output, (B, 1, width).
        """
        q, k, v = self._projected(x)
        cache[0, :, :, at : at + 1], cache[1, :, :, at : at + 1] = k, v
        keys, values = cache[:, :, :, : at + 1].to(q).unbind()
        return self._finished(x, F.scaled_dot_product_attention(q, keys, values, mask))

    def cache(self, batch: int, length: int) -> Tensor:
        """Make an empty cache.

        Args:
            batch: Number of images.
            length: Number of inputs.

        Returns:
            The cache, (2, B, heads, length, d).
        """
        head = self.back.in_features // self.heads
        return self.qkv.weight.new_empty(2, batch, self.heads, length, head)

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, (B, heads, M, d) each."""
        q, k, v = rearrange(
            self.qkv(self.norm_1(x)), "b m (three h d) -> three b h m d", three=3, h=self.heads
        ).unbind()
        return q, k, v

    def _finished(self, x: Tensor, gathered: Tensor) -> Tensor:
        """Add what was gathered, and apply the perceptron."""
        x = x + self.back(rearrange(gathered, "b h m d -> b m (h d)"))
        out: Tensor = x + self.mlp(self.norm_2(x))
        return out
