"""Spectral normalisation against PyTorch's two versions, explicit NumPy and singular values."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from t2i.plugins.common.gan.blocks.spectral import (
    BIGGAN,
    DMGAN,
    LEGACY,
    TORCH,
    XMCGAN,
    Spectral,
    SpectralConv1d,
    SpectralConv2d,
    SpectralConvTranspose2d,
    SpectralEmbedding,
    SpectralLinear,
    SpectralRule,
    frozen,
)

RULES = {"biggan": BIGGAN, "xmcgan": XMCGAN, "dmgan": DMGAN, "legacy": LEGACY, "torch": TORCH}


def layers(rule: SpectralRule) -> list[tuple[Spectral, nn.Module, torch.Tensor]]:
    """Return each layer in double precision, the plain layer with its weights, and an input."""
    torch.manual_seed(0)
    pairs = [
        (SpectralLinear(5, 7, rule=rule), nn.Linear(5, 7), torch.randn(3, 5)),
        (SpectralConv1d(3, 4, 3, 1, rule=rule), nn.Conv1d(3, 4, 3, 1, 1), torch.randn(2, 3, 6)),
        (SpectralConv2d(3, 4, 3, 2, rule=rule), nn.Conv2d(3, 4, 3, 2), torch.randn(2, 3, 7, 7)),
        (
            SpectralConvTranspose2d(3, 4, 4, 2, 1, rule=rule),
            nn.ConvTranspose2d(3, 4, 4, 2, 1),
            torch.randn(2, 3, 5, 5),
        ),
        (SpectralEmbedding(6, 4, rule=rule), nn.Embedding(6, 4), torch.tensor([1, 5, 1])),
    ]
    found = []
    for ours, plain, x in pairs:
        ours.double(), plain.double()
        x = x.double() if x.is_floating_point() else x
        plain.load_state_dict({k: v for k, v in ours.state_dict().items() if k not in "uv"})
        found.append((ours, plain, x))
    return found


def compare(ours: Spectral, theirs: nn.Module, x: torch.Tensor, weight: nn.Parameter) -> None:
    """Two forward passes before one backward pass, as of real and generated images."""
    losses = []
    for layer in (ours, theirs):
        y = torch.cat([layer(x), 2 * layer(x)])
        losses.append((y, y.sin().sum()))
    torch.testing.assert_close(losses[0][0], losses[1][0], rtol=1e-12, atol=1e-12)
    a = torch.autograd.grad(losses[0][1], ours.weight)[0]
    b = torch.autograd.grad(losses[1][1], weight)[0]
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_equals_the_legacy_spectral_norm(memory):
    for ours, plain, x in layers(LEGACY):
        if ours.weight.ndim == 4:
            ours.to(memory_format=memory)
        theirs = torch.nn.utils.spectral_norm(plain)  # of a transposed convolution: dim 1
        theirs.weight_u.copy_(ours.u)
        theirs.weight_v.copy_(ours.v)
        for mode in (True, True, False, True):
            ours.train(mode), theirs.train(mode)
            compare(ours, theirs, x, theirs.weight_orig)
        torch.testing.assert_close(ours.u, theirs.weight_u)
        torch.testing.assert_close(ours.v, theirs.weight_v)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_equals_the_parametrization(memory):
    for ours, plain, x in layers(TORCH):
        if ours.weight.ndim == 4:
            ours.to(memory_format=memory)
        theirs = torch.nn.utils.parametrizations.spectral_norm(plain)
        vectors = theirs.parametrizations.weight[0]
        vectors._u.copy_(ours.u)
        vectors._v.copy_(ours.v)
        for mode in (True, True, False, True):
            ours.train(mode), theirs.train(mode)
            compare(ours, theirs, x, theirs.parametrizations.weight.original)
        torch.testing.assert_close(ours.u, vectors._u)
        torch.testing.assert_close(ours.v, vectors._v)


def by_hand(name: str, w: np.ndarray, u: np.ndarray) -> tuple[float, np.ndarray]:
    """One forward pass as each author's code computes it, from W (out, rest) and u."""
    if name == "biggan":  # rows, n(x) = x / max(|x|, 1e-6)
        v = u[None] @ w
        v = v / max(np.linalg.norm(v), 1e-6)
        row = v @ w.T
        row = row / max(np.linalg.norm(row), 1e-6)
        return (v @ w.T @ row.T).item(), row[0]
    if name == "xmcgan":  # a kernel of (rest, out)
        kernel = w.T
        v = u[None] @ kernel.T
        v = v / np.sqrt((v * v).sum() + 1e-10)
        row = v @ kernel
        row = row / np.sqrt((row * row).sum() + 1e-10)
        return (v @ kernel @ row.T).item() + 1e-10, row[0]
    v = w.T @ u  # dmgan
    v = v / (np.linalg.norm(v) + 1e-12)
    u = w @ v
    u = u / (np.linalg.norm(u) + 1e-12)
    return float(u @ (w @ v)), u


@pytest.mark.parametrize("name", ["biggan", "xmcgan", "dmgan"])
@pytest.mark.parametrize("size", [1.0, 1e-6])
def test_equals_the_authors_in_numpy(name, size):
    """Also for a weight so small that the place of eps counts."""
    for ours, _, _ in layers(RULES[name]):
        with torch.no_grad():
            ours.weight.mul_(size)
        w = ours.weight.detach().transpose(0, ours.axis).flatten(1).numpy()
        u = ours.u.numpy().copy()
        for training in (True, True, False, True):
            ours.train(training)
            sigma, moved = by_hand(name, w, u)
            assert 1 / ours.scale().item() == pytest.approx(sigma, rel=1e-12)
            if training or name == "dmgan":
                u = moved
            np.testing.assert_allclose(ours.u.numpy(), u, rtol=1e-11)


@pytest.mark.parametrize("name", RULES)
def test_sigma_becomes_the_largest_singular_value(name):
    for ours, plain, x in layers(RULES[name]):
        for _ in range(300):
            ours(x)
        matrix = ours.weight.detach().transpose(0, ours.axis).flatten(1)
        largest = torch.linalg.matrix_norm(matrix, 2)
        assert ours.sigma().item() == pytest.approx(largest.item(), rel=1e-9)
        with torch.no_grad():
            plain.weight.div_(largest)
        torch.testing.assert_close(ours(x), plain(x), rtol=1e-8, atol=1e-8)
        # As many iterations in one pass are the same.
        many, _, _ = next(x for x in layers(RULES[name]) if type(x[0]) is type(ours))
        many.rule = SpectralRule(first=many.rule.first, iterations=300)
        many.load_state_dict(
            {k: torch.randn_like(v) if k in "uv" else v for k, v in ours.state_dict().items()}
        )
        assert many.sigma().item() == pytest.approx(largest.item(), rel=1e-9)


@pytest.mark.parametrize("name", RULES)
def test_gradients_hold_the_vectors_constant(name):
    """Against the derivative of W / (u' W v) with the vectors that the pass ended with."""
    for ours, _, _ in layers(RULES[name]):
        ours.sigma(store=True)
        matrix, order = ours._matrix()
        u = ours.u.clone()
        if RULES[name].first == "v":
            v = RULES[name].unit(matrix.t().mv(u)).detach()
            u = RULES[name].unit(matrix.mv(v)).detach()
        else:
            v = ours._along(ours.v, order)
            u = RULES[name].unit(matrix.mv(v)).detach()
            v = RULES[name].unit(matrix.t().mv(u)).detach()
        out = ours.normalized()
        target = torch.randn_like(out)
        got = torch.autograd.grad((out * target).sum(), ours.weight, create_graph=True)[0]
        expected = torch.autograd.grad(
            (ours.weight / (u @ matrix @ v + RULES[name].sigma_eps) * target).sum(),
            ours.weight,
            create_graph=True,
        )[0]
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
        # A second derivative stands too (unrolled discriminators).
        second = [torch.autograd.grad(g.square().sum(), ours.weight)[0] for g in (got, expected)]
        torch.testing.assert_close(*second, rtol=1e-8, atol=1e-10)


def test_frozen_passes_leave_no_trace():
    for name, rule in RULES.items():
        for ours, _, x in layers(rule):
            before = {k: v.clone() for k, v in ours.state_dict().items()}
            with frozen(ours):
                inside = ours(x)
            ours.eval()
            assert all(torch.equal(v, before[k]) for k, v in ours.state_dict().items())
            assert torch.equal(inside, ours(x))
            ours.train()
            ours(x)
            assert not torch.equal(ours.u, before["u"]) or name == "torch"


def test_two_products_a_pass_and_no_copy_of_the_weight():
    """The cost of a training pass: two matrix-vector products, and the division."""
    for memory in (torch.contiguous_format, torch.channels_last):
        layer = SpectralConv2d(8, 16, 3).to(memory_format=memory)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            layer.normalized()
        counts = {event.key: event.count for event in profile.key_averages()}
        assert counts["aten::mv"] == 2
        assert counts.get("aten::clone", 0) == 1  # u
        assert layer._matrix()[0].data_ptr() == layer.weight.data_ptr()


def test_half_precision_computes_sigma_in_full():
    layer = SpectralLinear(64, 64)
    with frozen(layer), torch.autocast("cpu", torch.bfloat16):
        low = layer.sigma()
    with frozen(layer):
        assert low.dtype == torch.float32
        assert torch.equal(low, layer.sigma())


def test_a_circular_convolution():
    layer = SpectralConv1d(2, 3, 3, 1, "circular").double()
    x = torch.randn(1, 2, 5).double()
    with frozen(layer):
        w = layer.normalized()
        expected = F.conv1d(torch.cat([x[..., -1:], x, x[..., :1]], -1), w, layer.bias)
        torch.testing.assert_close(layer(x), expected)
