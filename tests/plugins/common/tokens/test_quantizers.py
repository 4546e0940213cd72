"""Quantizers: nearest vectors, their gradients and averages, restart, and the Gumbel-softmax."""

import math

import pytest
import torch

from t2i.core.engine.local import LocalEngine
from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.trainer import Batch
from t2i.core.settings.engine import EngineConfig
from t2i.plugins.common.tokens.quantizers import (
    Codebook,
    Gumbel,
    observe,
    perplexity,
    temperature_at,
)
from t2i.plugins.common.tokens.tokenizer_config import QuantizerConfig


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_nearest_vectors_and_both_sides_of_beta(legacy, normalised):
    config = QuantizerConfig(beta=0.3, legacy=legacy, normalised=normalised, weight=2.0)
    book = Codebook(config, 7, 3)
    torch.nn.init.normal_(book.embedding.weight)
    z = torch.randn(2, 3, 2, 4, requires_grad=True)
    found = book(z)
    # By hand: place by place.
    e, unit = book.embedding.weight, z
    if normalised:
        e, unit = e / e.norm(dim=1, keepdim=True), z / z.norm(dim=1, keepdim=True)
    expected = [
        min(range(7), key=lambda k: (unit[b, :, i, j] - e[k]).norm().item())
        for b in range(2)
        for i in range(2)
        for j in range(4)
    ]
    assert found.tokens.flatten().tolist() == expected
    chosen = e[torch.tensor(expected)].view(2, 2, 4, 3).movedim(-1, 1)
    torch.testing.assert_close(found.vectors, chosen)
    weights = torch.randn_like(chosen)
    grads = torch.autograd.grad(
        (found.vectors * weights).sum() + found.loss, (z, book.embedding.weight)
    )
    codebook = (unit.detach() - chosen).square().mean()
    commitment = (unit - chosen.detach()).square().mean()
    loss = 2 * (0.3 * codebook + commitment if legacy else codebook + 0.3 * commitment)
    torch.testing.assert_close(found.loss, loss)
    # Straight through to z itself, of any length.
    wanted = torch.autograd.grad((z * weights).sum() + loss, (z, book.embedding.weight))
    for grad, want in zip(grads, wanted, strict=True):
        torch.testing.assert_close(grad, want)
    torch.testing.assert_close(book.vectors(found.tokens, 2), chosen)


def test_moving_averages_are_those_of_the_formula():
    config = QuantizerConfig(kind="ema", decay=0.9, epsilon=1e-3)
    book = Codebook(config, 5, 2)
    assert not [p for p in book.parameters() if p.requires_grad]
    counts, sums = torch.zeros(5), torch.zeros(5, 2)
    for step in range(1, 4):
        z = torch.randn(3, 2, 2, 2)
        found = book(z)
        rows, tokens = z.movedim(1, -1).reshape(-1, 2), found.tokens.flatten()
        torch.testing.assert_close(found.loss, 0.25 * (z - found.vectors).square().mean())
        book.observe(z, found.tokens, torch.rand(5))
        for k in range(5):
            of_k = rows[tokens == k]
            counts[k] = 0.9 * counts[k] + 0.1 * len(of_k)
            sums[k] = 0.9 * sums[k] + 0.1 * of_k.sum(0)
        N, m = counts / (1 - 0.9**step), sums / (1 - 0.9**step)
        n = N.sum()
        smooth = (N + 1e-3) / (n + 5e-3) * n
        torch.testing.assert_close(book.embedding.weight.data, m / smooth[:, None])


@pytest.mark.parametrize("kind", ["codebook", "ema"])
def test_known_codes_are_recovered(kind):
    codes = torch.tensor([[2.0, 0], [-2, 0], [0, 2], [0, -2], [3, 3], [-3, -3]])
    # Twice as many vectors: three that share a code are each used too little, and begin anew.
    book = Codebook(QuantizerConfig(kind=kind, restart=0.8, decay=0.8), 12, 2)
    optimizer = torch.optim.Adam(book.parameters(), 0.05) if kind == "codebook" else None
    for _ in range(120):
        z = codes[torch.randint(6, (8, 4, 4))].movedim(-1, 1) + 0.1 * torch.randn(8, 2, 4, 4)
        found = book(z)
        if optimizer:
            optimizer.zero_grad()
            found.loss.backward()
            optimizer.step()
        book.observe(z, found.tokens, torch.rand(12))
    nearest = torch.cdist(codes, book.embedding.weight.data).min(1)
    assert nearest.values.max() < 0.4  # codes are 1.4 apart at least
    assert len({*nearest.indices.tolist()}) == 6


def test_vectors_begin_as_features_and_dead_ones_restart():
    book = Codebook(QuantizerConfig(restart=0.5, decay=0.5), 4, 2)
    z = torch.randn(2, 2, 2, 2)
    rows = z.movedim(1, -1).reshape(-1, 2)
    random = torch.tensor([0.0, 0.3, 0.7, 0.99])
    book.observe(z, book.tokens(z), random)
    torch.testing.assert_close(book.embedding.weight.data, rows[[0, 2, 5, 7]])
    # Only token 0 is used from now on: the others have a third of even use left after this step.
    kept = book.embedding.weight.data.clone()
    book.observe(z, torch.zeros(2, 4, dtype=torch.int64), torch.full((4,), 0.5))
    moved = (book.embedding.weight.data != kept).any(1)
    assert moved.tolist() == [False, True, True, True]
    torch.testing.assert_close(book.embedding.weight.data[1:], rows[[4, 4, 4]])
    torch.testing.assert_close(book.counts[1:] / (1 - 0.5**2), torch.ones(3))


def test_all_processes_are_counted(monkeypatch):
    config = QuantizerConfig(kind="ema", restart=0.1)
    whole, part = Codebook(config, 9, 2), Codebook(config, 9, 2)
    part.load_state_dict(whole.state_dict())
    z = torch.randn(4, 2, 2, 2)
    tokens = whole.tokens(z)

    class Both(LocalEngine):
        """An engine whose other process has the other rows."""

        def __init__(self):
            pass

        def gathered(self, x):
            return {2: torch.cat([x, rest[x.shape]])}[len(x)]

    def batch(first, count):
        noise = StepNoise(0, 3, first, count, 4)
        return Batch(z[first : first + count], (), (), noise, lambda captions: None)

    observe(whole, z, tokens, batch(0, 4), _one(whole))
    other = batch(2, 2).noise.uniform("restart", 0, (3,))
    rest = {z[:2].shape: z[2:], tokens[:2].shape: tokens[2:], other.shape: other}
    observe(part, z[:2], tokens[:2], batch(0, 2), Both())
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(part.state_dict()[name], tensor)


def _one(module):
    class Trainer:
        modules, optimizers = {"m": module}, {}

    return LocalEngine(Trainer(), EngineConfig())


@pytest.mark.parametrize("hard", [False, True])
def test_the_gumbel_softmax(hard):
    book = Gumbel(QuantizerConfig(kind="gumbel", kl_weight=0.1, hard=hard), 5, 3)
    z, noise = torch.randn(2, 3, 2, 2, requires_grad=True), torch.randn(2, 5, 2, 2)
    found = book(z, 0.7, noise)
    logits = torch.einsum("kd,bdhw->bkhw", book.proj.weight[..., 0, 0], z)
    logits = logits + book.proj.bias[:, None, None]
    soft = ((logits + noise) / 0.7).exp()
    soft = soft / soft.sum(1, keepdim=True)
    mixed = torch.einsum("bkhw,kd->bdhw", soft, book.embed.weight)
    q = logits.softmax(1)
    kl = 0.1 * (q * (q * 5).log()).sum(1).mean()
    torch.testing.assert_close(found.loss, kl)
    assert torch.equal(found.tokens, soft.argmax(1).flatten(1))
    value = book.vectors(found.tokens, 2) if hard else mixed
    torch.testing.assert_close(found.vectors, value)
    weights = torch.randn_like(mixed)
    (grad,) = torch.autograd.grad((found.vectors * weights).sum(), z, retain_graph=True)
    (want,) = torch.autograd.grad((mixed * weights).sum(), z)
    torch.testing.assert_close(grad, want)
    quiet = book(z)
    assert torch.equal(quiet.tokens, book.tokens(z))
    torch.testing.assert_close(quiet.vectors, book.vectors(quiet.tokens, 2))


def test_the_temperature_falls_along_a_cosine():
    config = QuantizerConfig(temperature=1.0, last_temperature=0.2, cooled=0.5)
    found = [temperature_at(config, progress) for progress in (0, 0.25, 0.5, 1)]
    assert found == pytest.approx([1.0, 0.6, 0.2, 0.2])


def test_perplexity_counts_the_tokens_in_use():
    assert perplexity(torch.tensor([[0, 1], [2, 3]]), 9).item() == pytest.approx(4)
    p = torch.tensor([0.75, 0.25])
    assert perplexity(torch.tensor([5, 5, 5, 1]), 9).item() == pytest.approx(
        math.exp(-(p * p.log()).sum())
    )
