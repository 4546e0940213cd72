"""Losses of autoencoders: errors, LPIPS, the patch discriminator, and the adaptive weight."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from t2i.core.engine.local import LocalEngine
from t2i.core.errors import UserError
from t2i.core.settings.engine import EngineConfig
from t2i.plugins.common.tokens import losses
from t2i.plugins.common.tokens.patches import PatchDiscriminator
from t2i.plugins.common.tokens.perceptual import TAPS, TRUNK, Perceptual, fill_perceptual
from t2i.plugins.common.tokens.tokenizer_config import (
    AdversarialConfig,
    DiscriminatorConfig,
    LossesConfig,
)

SMALL = DiscriminatorConfig(channels=4, layers=2)


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_errors_of_the_reconstruction():
    raw, x = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    found = losses.reconstruction_error(raw, x, LossesConfig())
    torch.testing.assert_close(found, (raw - x).abs().sum() / 96)
    found = losses.reconstruction_error(raw, x, LossesConfig(reconstruction="l2", variance=0.25))
    torch.testing.assert_close(found, 4 * ((raw - x) ** 2).sum() / 96)


def test_the_logit_laplace_density_integrates_to_one():
    mu, log_b = torch.tensor(0.4), torch.tensor(-0.3)
    x = torch.linspace(0, 1, 200_001)[1:-1]
    density = torch.stack([losses.logit_laplace(v, mu, log_b) for v in x[::500]]).neg().exp()
    assert torch.trapezoid(density, x[::500]).item() == pytest.approx(1, abs=2e-3)
    # It is the Laplace density of the logit, times its derivative.
    value = torch.tensor(0.2)
    laplace = torch.distributions.Laplace(mu, log_b.exp()).log_prob(value.logit())
    wanted = -(laplace - math.log(0.2 * 0.8))
    torch.testing.assert_close(losses.logit_laplace(value, mu, log_b), wanted)
    raw = torch.randn(2, 6, 2, 2)
    shrunk = torch.rand(2, 3, 2, 2)
    found = losses.reconstruction_error(
        raw, shrunk, LossesConfig(reconstruction="logit_laplace"), shrunk
    )
    torch.testing.assert_close(found, losses.logit_laplace(shrunk, raw[:, :3], raw[:, 3:]))


def test_the_discriminators_losses():
    real, fake = torch.randn(9), torch.randn(7)
    hinge = 0.5 * ((1 - real).clamp_min(0).mean() + (1 + fake).clamp_min(0).mean())
    torch.testing.assert_close(losses.discriminator_loss(real, fake, "hinge"), hinge)
    bce = F.binary_cross_entropy_with_logits
    both = 0.5 * (bce(real, torch.ones(9)) + bce(fake, torch.zeros(7)))
    torch.testing.assert_close(losses.discriminator_loss(real, fake, "bce"), both)


def test_the_discriminator_has_the_papers_layers():
    with torch.device("meta"):  # which draws nothing
        count = sum(p.numel() for p in PatchDiscriminator(DiscriminatorConfig()).parameters())
    assert count == 2_765_633  # as taming's NLayerDiscriminator
    scores = PatchDiscriminator(SMALL)(torch.randn(2, 3, 32, 32))
    assert scores.shape == (2, 1, 6, 6)
    strides = [m.stride[0] for m in PatchDiscriminator(SMALL).main if isinstance(m, nn.Conv2d)]
    assert strides == [2, 2, 1, 1]


class Autoencoder(nn.Module):
    """Two layers, of which the second is the last."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x):
        return self.last(self.first(x).tanh())


def test_the_adaptive_weight_balances_gradients_at_the_last_layer():
    net, judge, x = Autoencoder(), PatchDiscriminator(SMALL), torch.randn(2, 3, 16, 16)

    def terms():
        shown = net(x)
        return shown, (shown - x).abs().mean(), -judge(shown).mean()

    shown, nll, g = terms()
    loss, factor = losses.balanced(nll, g, shown, net.last.weight, 0.8)
    found = torch.autograd.grad(loss, [*net.parameters()])
    # By hand: each gradient on its own.
    _, nll, g = terms()
    of_nll = torch.autograd.grad(nll, [*net.parameters()], retain_graph=True)
    of_g = torch.autograd.grad(g, [*net.parameters()])
    at = [name for name, _ in net.named_parameters()].index("last.weight")
    weight = 0.8 * of_nll[at].norm() / (of_g[at].norm() + 1e-4)
    torch.testing.assert_close(factor, weight)
    torch.testing.assert_close(loss.detach(), (nll + weight * g).detach())
    for a, b, c in zip(found, of_nll, of_g, strict=True):
        torch.testing.assert_close(a, b + weight * c)


def test_the_adaptive_weight_has_a_bound():
    tiny = losses.adaptive_weight(torch.full((3,), 1e9), torch.zeros(3))
    assert tiny.item() == losses.LARGEST


def test_a_discriminator_that_has_not_begun_is_not_run(monkeypatch):
    config = AdversarialConfig(adversarial=0.5, adversarial_start=0.4, discriminator=SMALL)
    terms = losses.ImageLosses(config, 1e-3, (0.5, 0.9))
    net, x = Autoencoder(), torch.randn(2, 3, 16, 16)

    class Trainer:
        modules, optimizers = terms.modules, terms.optimizers

    engine = LocalEngine(Trainer(), EngineConfig())
    calls = []
    terms.modules["discriminator"].register_forward_hook(lambda *_: calls.append(1))
    before = [p.clone() for p in terms.modules["discriminator"].parameters()]
    for progress, runs in ((0.39, 0), (0.4, 3)):
        engine.progress = progress
        shown = net(x)
        error = (shown - x).abs().mean()
        loss, log = terms.total(error, shown, shown, x, net.last.weight, progress)
        log |= terms.discriminate(shown, x, engine)
        assert len(calls) == runs
        assert (loss is error) == (runs == 0)
        assert ("discriminator" in log) == bool(runs)
    after = [*terms.modules["discriminator"].parameters()]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def random_states():
    """Return random weights by the names of torchvision's VGG16 and of LPIPS."""
    trunk, linear, before, place = {}, {}, 3, 0
    for channels in TRUNK:
        if channels:
            trunk[f"features.{place}.weight"] = torch.randn(channels, before, 3, 3) * 0.05
            trunk[f"features.{place}.bias"] = torch.randn(channels) * 0.05
            before = channels
        place += 2 if channels else 1
    for n, tap in enumerate(TAPS):
        linear[f"lin{n}.model.1.weight"] = torch.rand(1, TRUNK[tap], 1, 1)
    return trunk, linear


def test_lpips_is_the_formula_on_torchvisions_vgg16():
    from torchvision.models.vgg import cfgs, make_layers

    trunk, linear = random_states()
    net = make_layers(cfgs["D"])
    net.load_state_dict({k.removeprefix("features."): t for k, t in trunk.items()})
    perceptual = Perceptual()
    fill_perceptual(perceptual, trunk, linear, "test")
    a, b = torch.rand(2, 3, 32, 32) * 2 - 1, torch.rand(2, 3, 32, 32) * 2 - 1

    def features(x):
        shift = torch.tensor([-0.030, -0.088, -0.188], dtype=torch.float32).double()
        scale = torch.tensor([0.458, 0.448, 0.450], dtype=torch.float32).double()
        x, found = (x - shift[:, None, None]) / scale[:, None, None], []
        for n, layer in enumerate(net):
            x = layer(x)
            if n in (3, 8, 15, 22, 29):
                found.append(x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    perceptual.shift.copy_(perceptual.shift.float())
    perceptual.scale.copy_(perceptual.scale.float())
    wanted = sum(
        ((f - g).pow(2) * linear[f"lin{n}.model.1.weight"]).sum(1).mean((1, 2))
        for n, (f, g) in enumerate(zip(features(a), features(b), strict=True))
    )
    torch.testing.assert_close(perceptual(a, b), wanted)
    assert perceptual(a, a).abs().max() == 0
    with pytest.raises(UserError, match="t2i fetch lpips"):
        fill_perceptual(perceptual, {}, linear, "test")


def test_lpips_has_gradients_where_no_channel_is_active():
    trunk, linear = random_states()
    for name in ("features.28.weight", "features.28.bias"):  # relu5_3 is 0 everywhere
        trunk[name] = torch.zeros_like(trunk[name])
    perceptual = Perceptual()
    fill_perceptual(perceptual, trunk, linear, "test")
    a, b = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16, requires_grad=True)
    (grad,) = torch.autograd.grad(perceptual(a, b).sum(), b)
    assert grad.isfinite().all()
    assert grad.abs().max() > 0


@pytest.mark.slow
def test_lpips_is_that_of_its_package():
    lpips = pytest.importorskip("lpips")
    theirs = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).double().eval()
    trunk = {
        f"features.{name.split('.', 1)[1]}": tensor
        for name, tensor in theirs.net.state_dict().items()
    }
    linear = {
        k: t for k, t in theirs.state_dict().items() if k.startswith("lin") and "lins" not in k
    }
    perceptual = Perceptual()
    fill_perceptual(perceptual, trunk, linear, "test")
    perceptual.shift.copy_(theirs.scaling_layer.shift[0])
    perceptual.scale.copy_(theirs.scaling_layer.scale[0])
    a, b = torch.rand(2, 3, 32, 32) * 2 - 1, torch.rand(2, 3, 32, 32, requires_grad=True)
    found, wanted = perceptual(a, b), theirs(a, b).flatten()
    torch.testing.assert_close(found, wanted)
    (grad,) = torch.autograd.grad(found.sum(), b)
    (want,) = torch.autograd.grad(wanted.sum(), b)
    torch.testing.assert_close(grad, want)
