"""RealNVP and NICE: invertible, with the density they state, with all weights drawn at random."""

import math

import pytest
import torch
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextFeatures
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from t2i.plugins.common.flows.squeeze import checkered, unchecked
from t2i.plugins.models.realnvp.config import RealNVPConfig
from t2i.plugins.models.realnvp.networks import NICE, CheckerboardCoupling, ResNet, build
from t2i.plugins.models.realnvp.training import RealNVPTrainer
from tests.plugins.models.flow_checks import (
    MAPPED,
    TEXT,
    captions,
    check_inverse,
    check_log_det,
    check_rows,
    check_text_reaches,
    drawn,
)

SMALL = {"image_size": 8, "scales": 2, "width": 4, "blocks": 1}
KINDS = {
    "plain": {},
    "text": {"text": MAPPED, "text_affine": True, "batch_norm": False},
    "additive": {"coupling": "additive", "logit": 0.0},
    "nice": {"layout": "nice", "width": 10, "blocks": 2},
    "nice, normal": {"layout": "nice", "width": 10, "prior": "gaussian", "couplings": 3},
}


def made(kind, **more):
    return drawn(build(RealNVPConfig.of({**SMALL, **KINDS[kind], **more}, "test"), TEXT))


def images(n=2, size=8):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, 3, size, size, generator=generator).double() * 1.8 - 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_it_inverts_and_states_its_density(kind):
    generator = made(kind)
    check_inverse(generator, images(), captions(2))
    check_rows(generator, images(), captions(2))
    check_log_det(generator, images(1), captions(1))


@pytest.mark.parametrize("kind", ["text", "nice"])
def test_the_caption_reaches_the_density(kind):
    check_text_reaches(made(kind), images(), captions(2), captions(2, seed=9))


def test_the_logit_is_the_papers():
    """Section 4.1: logit(alpha + (1 - 2 alpha) y) for y in [0, 1], with alpha = 0.05."""
    generator = made("plain")
    for net in (module for module in generator.modules() if isinstance(module, ResNet)):
        net.conv_out.parametrizations.weight.original0.data.zero_()  # no coupling does anything
        net.conv_out.bias.data.zero_()
    x = images()
    p = 0.05 + 0.9 * (x + 1) / 2
    noise, log_det = generator.to_noise(x, captions(2))
    torch.testing.assert_close(noise, (p / (1 - p)).log())
    torch.testing.assert_close(log_det, (0.45 / (p * (1 - p))).log().flatten(1).sum(1))


def test_a_checkerboard_coupling_is_the_equation():
    generator = made("plain")
    coupling = generator.network.scale.inner[0]
    assert isinstance(coupling, CheckerboardCoupling)
    x = images()
    b = torch.tensor([[(i + j) % 2 for j in range(8)] for i in range(8)]).double()
    s, t = coupling.net(x * b, None).chunk(2, 1)
    s = coupling.gain * s.tanh()
    expected = b * x + (1 - b) * ((x + t) * s.exp())
    got, log_det = coupling(x, None)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(log_det, ((1 - b) * s).sum((1, 2, 3)))


def test_the_network_of_a_coupling_is_the_authors():
    """Written out: weight norm, [x, -x], the factor 2, skips from every block."""
    config = RealNVPConfig.of({**SMALL, "blocks": 2}, "test")
    net = drawn(ResNet(config, 3, 4, 6, doubled=True), std=0.4)

    def norm(layer, x):
        shape = (1, -1, 1, 1)
        x = (x - layer.running_mean.view(shape)) / (layer.running_var.view(shape) + 1e-5).sqrt()
        return x * layer.weight.view(shape) + layer.bias.view(shape)

    def conv(layer, x):
        g, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
        weight = g * v / v.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return F.conv2d(x, weight, layer.bias, padding=v.shape[-1] // 2)

    x = images()
    h = 2 * norm(net.norm_in, x)
    h = conv(net.conv_in, torch.cat([h.relu(), (-h).relu()], 1))
    total = conv(net.skip_in, h)
    for block, skip in zip(net.blocks, net.skips, strict=True):
        inner = conv(block.conv_in, norm(block.norm_in, h).relu())
        h = h + conv(block.conv_out, norm(block.norm_out, inner).relu())
        total = total + conv(skip, h)
    expected = conv(net.conv_out, norm(net.norm_out, total).relu())
    torch.testing.assert_close(net(x, None), expected)


def test_checkered_halves_are_the_colours_of_a_chessboard():
    x = torch.arange(32.0).view(1, 2, 4, 4)
    y = checkered(x)
    colour = torch.tensor([[(i + j) % 2 for j in range(4)] for i in range(4)]).bool()
    first, second = y.chunk(2, 1)
    assert set(first.flatten().tolist()) == set(x[..., ~colour].flatten().tolist())
    assert set(second.flatten().tolist()) == set(x[..., colour].flatten().tolist())
    torch.testing.assert_close(unchecked(y), x)


def test_what_a_scale_factors_out_keeps_its_place():
    """Changing one noise value of the inner scale changes the image around it only."""
    generator = made("plain", scales=2, image_size=16, width=2)
    z = torch.zeros(1, 3, 16, 16).double()
    z[..., 1, 0] = 1.0
    with torch.no_grad():
        change = (generator(z, captions(1)) - generator(0 * z, captions(1))).abs().amax((0, 1))
    assert change[:3, :3].max() > 1e-3


def test_nice_is_written_out():
    config = RealNVPConfig.of({**SMALL, **KINDS["nice"], "couplings": 2, "image_size": 8}, "test")
    generator = made("nice", couplings=2)
    network, text, x = generator.network, captions(2), images()
    assert isinstance(network, NICE)
    assert config.couplings == 2
    flat = x.flatten(1)
    even, odd = flat[:, ::2], flat[:, 1::2]

    def m(net, v):
        h = (net.first(v) + net.sentence(text.sentence)).relu()
        for layer in net.hidden:
            h = layer(h).relu()
        return net.last(h)

    odd = odd + m(network.couplings[0], even)
    even = even + m(network.couplings[1], odd)
    h = torch.cat([even, odd], 1) * network.log_scale.exp()
    logistic = -((h / 2).cosh().square() * 4).log()  # log of the logistic density
    expected = (logistic + network.log_scale).sum(1)
    torch.testing.assert_close(generator.log_density(x, text), expected)


def test_logistic_noise_is_normal():
    """Samples of the logistic distribution become samples of the normal one."""
    generator = made("nice")
    for parameter in generator.parameters():
        parameter.data.zero_()
    u = (torch.arange(192).double() + 0.5) / 192
    x = torch.logit(u).view(1, 3, 8, 8)
    noise, _ = generator.to_noise(x, captions(1))
    torch.testing.assert_close(noise.flatten().sort().values, torch.special.ndtri(u))
    far, log_det = generator.to_noise(x * 1000, captions(1))
    assert bool(far.isfinite().all())
    assert bool(log_det.isfinite().all())


def test_filters_alone_decay():
    trainer = object.__new__(RealNVPTrainer)
    trainer.network, trainer.decay = made("plain").network, 5e-5
    others, lengths = trainer.groups()
    assert lengths["weight_decay"] == 5e-5
    assert "weight_decay" not in others
    count = sum(1 for name, _ in trainer.network.named_parameters() if "original0" in name)
    gains = sum(1 for name, _ in trainer.network.named_parameters() if name.endswith("gain"))
    assert len(lengths["params"]) == count + gains


def test_sizes_of_the_papers_network():
    config = resolve_config("realnvp", preset="cifar", data_needed=False).settings
    plain = RealNVPConfig.of({"image_size": 32}, "test")
    assert (config.scales, config.width, config.blocks) == (2, 64, 8)
    with torch.device("meta"):
        count = sum(p.numel() for p in build(plain, TEXT).parameters())
    assert round(count / 1e6, 1) == 19.6


def test_wrong_sizes_are_refused():
    with pytest.raises(UserError, match="multiple of 4 for 3 scales"):
        RealNVPConfig.of({**SMALL, "image_size": 10, "scales": 3}, "test")
    with pytest.raises(UserError, match="text_affine needs a text map"):
        RealNVPConfig.of({**SMALL, "text_affine": True}, "test")


def test_noise_that_leaves_the_range_of_the_logit_or_of_fewer_bits_is_refused():
    with pytest.raises(UserError, match="set logit=0, or noise_std=0"):
        RealNVPConfig.of({**SMALL, "noise_std": 0.05}, "test")
    RealNVPConfig.of({**SMALL, "noise_std": 0.05, "layout": "nice"}, "test")
    with pytest.raises(UserError, match="set noise_std=0, or bits=8"):
        RealNVPConfig.of({**SMALL, "noise_std": 0.05, "logit": 0.0, "bits": 5}, "test")


def test_it_is_registered():
    assert registry().models["realnvp"].family == "flow"
    assert math.isclose(resolve_config("realnvp").sampler.config.temperature, 0.7)
    assert isinstance(captions(1), TextFeatures)
