"""CVAE-GAN: its losses against the paper's equations written out, and who gets which gradient."""

import pytest
import torch
from torch.nn import functional as F

from t2i.core.engine.local import LocalEngine
from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape
from t2i.core.interfaces.trainer import Batch, Networks
from t2i.plugins.models.cvaegan.config import CVAEGANConfig
from t2i.plugins.models.cvaegan.networks import JOINT, Centres, CVAEGANGenerator, mean_gap
from t2i.plugins.models.cvaegan.training import CVAEGANTrainer, said, stages

TEXT = TextShape(5, 5)
CAPTIONS = ("a red circle", "a blue square", "a red square")
SMALL = {"image_size": 8, "width": 4, "gf": 4, "z_dim": 3, "words": 64, "batch_size": 3}


class Encoder(TextEncoder):
    """Stands for a frozen text encoder."""

    def __init__(self):
        super().__init__()
        self.shape = TEXT

    def encode(self, captions):
        torch.manual_seed(3)
        return TextFeatures.of(sentence=torch.randn(len(captions), TEXT.sentence).double())


class Recorder(LocalEngine):
    """Keeps losses and the gradients that each optimizer would get, and trains nothing."""

    def __init__(self, trainer, settings):
        super().__init__(trainer, settings, updates=False)
        self.chosen = trainer.optimizers
        self.losses, self.gradients = {}, {}

    def update(self, name, loss):
        parameters = [p for g in self.chosen[name].param_groups for p in g["params"]]
        self.losses[name] = loss.detach()
        self.gradients[name] = torch.autograd.grad(loss, parameters, allow_unused=True)


def trainer_of(**settings):
    torch.manual_seed(0)
    config = CVAEGANConfig(**{**SMALL, **settings})
    trainer = CVAEGANTrainer(config, Networks(CVAEGANGenerator(config, TEXT), Encoder()))
    with torch.no_grad():
        for module in trainer.modules.values():
            for p in module.double().parameters():
                p.copy_(0.2 * torch.randn_like(p))
    return trainer


def batch():
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double() * 2 - 1
    noise = StepNoise(0, 0, 0, 3, 3, "cpu")
    return Batch(images, CAPTIONS, ("k",) * 3, noise, Encoder().encode)


def of_paper(trainer, b):
    """Every loss of the paper, from the networks alone."""
    x, e, text = b.images, b.text.sentence, b.text
    q = trainer.encoder(x, e)
    mu, eps = q.mean, 2 * q.log_scale  # the paper's epsilon is the log variance
    z_p = b.noise.normal("z", 0, (3,))
    z = mu + (eps / 2).exp() * b.noise.normal("posterior", 0, (3,))
    x_f, x_p = trainer.generator(z, text), trainer.generator(z_p.to(z.dtype), text)
    d, c = (lambda v: trainer.discriminator(v)[1]), trainer.matcher
    half = lambda a, b: 0.5 * (a - b).flatten(1).square().sum(1).mean()  # noqa: E731
    words = {w for caption in CAPTIONS for w in caption.split()}
    l_gc = 0
    for word in words:
        rows = [word in caption.split() for caption in CAPTIONS]
        l_gc = l_gc + 0.5 * (c(x)[rows].mean(0) - c(x_p)[rows].mean(0)).square().sum()
    vectors = c.embedded(c(x), e)
    logits = 10 * vectors[0] @ vectors[1].T
    right = torch.arange(3)
    return {
        "kl": 0.5 * (mu.square() + eps.exp() - eps - 1).sum(1).mean(),
        "pixels": half(x, x_f),
        "features": half(d(x), d(x_f)) + half(c(x), c(x_f)),
        "mean_d": 0.5 * (d(x).mean(0) - d(x_p).mean(0)).square().sum(),
        "mean_c": l_gc,
        "discriminator": -F.logsigmoid(trainer.discriminator(x)[0]).mean()
        - F.logsigmoid(-trainer.discriminator(x_p)[0]).mean(),
        "matcher": (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2,
    }


@pytest.mark.parametrize("fused", [False, True])
def test_the_losses_are_the_papers(fused):
    """Without memory in the centres, they are a batch's means."""
    trainer = trainer_of(fused=fused, centre_decay=0.0, generated_decay=0.0)
    b = batch()
    expected = of_paper(trainer, b)
    engine = Recorder(trainer, trainer.config)
    losses = trainer.step(b, engine)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, msg=name)
    made = (
        3 * expected["kl"] + expected["pixels"] + expected["features"]
        + 1e-3 * expected["mean_d"] + 1e-3 * expected["mean_c"]
    )  # fmt: skip
    torch.testing.assert_close(engine.losses["generator"], made.detach())


def test_gradients_go_where_the_paper_sends_them():
    """G and E get the sum's; the networks whose features are compared get none of it."""
    trainer = trainer_of(centre_decay=0.0, generated_decay=0.0)
    b = batch()
    losses = of_paper(trainer, b)
    engine = Recorder(trainer, trainer.config)
    trainer.step(b, engine)
    shared = losses["pixels"] + losses["features"]
    means = 1e-3 * (losses["mean_d"] + losses["mean_c"])
    g, e = list(trainer.generator.parameters()), list(trainer.encoder.parameters())
    of_g = torch.autograd.grad(shared + means, g, retain_graph=True)
    of_e = torch.autograd.grad(3 * losses["kl"] + shared, e, retain_graph=True)
    for ours, expected in zip(engine.gradients["generator"], [*of_g, *of_e], strict=True):
        torch.testing.assert_close(ours, expected)
    for name, module in (
        ("discriminator", trainer.discriminator), ("matcher", trainer.matcher),
    ):  # fmt: skip
        expected = torch.autograd.grad(losses[name], list(module.parameters()), retain_graph=True)
        for ours, value in zip(engine.gradients[name], expected, strict=True):
            torch.testing.assert_close(ours, value)


def test_the_adversarial_and_the_matchers_term_are_options():
    b = batch()
    plain, more = trainer_of(), trainer_of(adversarial=2.0, matched=0.5)
    first, second = (Recorder(t, t.config) for t in (plain, more))
    plain.step(b, first)
    losses = more.step(b, second)
    extra = 2 * losses["generator"] + 0.5 * losses["matched"]
    torch.testing.assert_close(
        second.losses["generator"], (first.losses["generator"] + extra).detach()
    )


def test_centres_are_moving_means_with_a_batchs_gradient():
    centres = Centres(2)
    said_ = [torch.tensor([[1.0, 0], [1, 0]]), torch.tensor([[1.0, 1], [0, 0]])]
    draws = [torch.randn(2, JOINT) for _ in range(4)]
    centres.moved("real", draws[0], draws[1], said_[0], 0.9)
    f_c = draws[3].requires_grad_()
    d, c = centres.moved("real", draws[2], f_c, said_[1], 0.9)
    weight = 0.9 * 2 + 2
    torch.testing.assert_close(d[0], (0.9 * draws[0].sum(0) + draws[2].sum(0)) / weight)
    torch.testing.assert_close(c[0], (0.9 * draws[1].sum(0) + f_c[0]) / (0.9 * 2 + 1))
    torch.testing.assert_close(c[1], f_c[0])
    target = torch.zeros_like(c)
    mean_gap(target, c, torch.tensor([True, False])).backward()
    # The gradient of a mean over one image: the distance of the moving mean itself.
    torch.testing.assert_close(f_c.grad[0], c[0].detach())
    assert not f_c.grad[1].any()
    # A centre without a new image keeps its mean.
    _, again = centres.moved("real", draws[2], draws[0], torch.zeros(2, 2), 0.9)
    torch.testing.assert_close(again, c.detach())


def test_words_of_captions():
    table = said(["A red, RED circle", ""], 512)
    assert table.sum(1).tolist() == [3, 0]
    assert table.equal(said(["circle red a", ""], 512))


def test_stages_and_presets():
    config = CVAEGANConfig(**SMALL)
    assert [stage.name for stage in stages(config, Encoder())] == ["cvaegan"]
    for name, preset in CVAEGANConfig.presets().items():
        made = CVAEGANConfig.of(preset.settings, name)
        paper = name in ("cub", "flowers")
        assert (made.adversarial == made.matched == made.outline == 0) == paper
        assert (made.kl, made.mean_d) == (3.0, 1e-3) or not paper
