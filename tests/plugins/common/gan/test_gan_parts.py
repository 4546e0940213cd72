"""Parts that GANs share: losses against values worked out by hand, the fusion block, contrastive
pretraining."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape
from t2i.core.interfaces.trainer import Batch
from t2i.plugins.common.gan.conditioning.fusion import Affine, Fusion, UpBlock
from t2i.plugins.common.gan.losses.hinge import hinge_discriminator, hinge_generator
from t2i.plugins.common.gan.losses.outline import outline_loss
from t2i.plugins.common.gan.penalties.matching_aware import matching_aware_penalty
from t2i.plugins.common.text.contrastive import Matcher, MatchingTrainer, info_nce

# --- losses ---------------------------------------------------------------------------------------


def test_hinge_of_the_discriminator_by_hand():
    real, fake, wrong = (
        torch.tensor(v, requires_grad=True) for v in ([2.0, 0.5], [-3.0, 0.2], [-0.5, -1.0])
    )
    loss = hinge_discriminator(real, fake, wrong)
    assert loss.item() == pytest.approx(0.5 / 2 + 0.5 * 1.2 / 2 + 0.5 * 0.5 / 2)
    loss.backward()
    # Scores beyond the margin pull no more; fake and mismatched weigh half.
    assert real.grad.tolist() == [0, -0.5]
    assert fake.grad.tolist() == [0, 0.25]
    assert wrong.grad.tolist() == [0.25, 0]


def test_hinge_of_the_generator_by_hand():
    fake = torch.tensor([1.0, -4.0], requires_grad=True)
    loss = hinge_generator(fake)
    loss.backward()
    assert loss.item() == 1.5
    assert fake.grad.tolist() == [-0.5, -0.5]


def test_outline_loss_by_hand():
    """Four of 64 places of one of two images are off by 0.5, in one of three channels; what cancels
    within a place counts nothing. A real image of twice the size has the same places."""
    real = torch.rand(2, 3, 32, 32) * 2 - 1
    fake = F.avg_pool2d(real, 2)
    fake[1, 2, 4:8, 8:12] += 0.5
    fake[0, :, ::2] += 0.3
    fake[0, :, 1::2] -= 0.3
    assert outline_loss(fake, real).item() == pytest.approx(0.25 * 4 / (2 * 3 * 64), rel=1e-4)


def test_penalty_of_a_linear_discriminator_in_closed_form():
    """D = a.x + b.e has the gradient (a, b) everywhere: the penalty is k (|a|^2 + |b|^2)^(p/2), one
    norm over both, and its gradient k p (|a|^2 + |b|^2)^(p/2 - 1) (a, b)."""
    a, b = torch.tensor([0.6, 0.2], requires_grad=True), torch.tensor([0.3], requires_grad=True)
    x, e = torch.randn(5, 2, requires_grad=True), torch.randn(5, 1, requires_grad=True)
    penalty = matching_aware_penalty(x @ a + e @ b, [x, e], k=2, p=6)
    n2 = 0.6**2 + 0.2**2 + 0.3**2
    assert penalty.item() == pytest.approx(2 * n2**3)
    penalty.backward()
    assert torch.allclose(a.grad, 2 * 6 * n2**2 * a)
    assert torch.allclose(b.grad, 2 * 6 * n2**2 * b)


def test_penalty_averages_powers_of_each_rows_norm():
    x = torch.tensor([[1.0], [2.0]], requires_grad=True)
    penalty = matching_aware_penalty((x**2).flatten(), [x], k=1, p=4)  # gradients 2 and 4
    assert penalty.item() == pytest.approx((2**4 + 4**4) / 2)


def test_penalty_double_backward_against_finite_differences():
    torch.manual_seed(0)
    conv, out = nn.Conv2d(2, 3, 3, bias=False).double(), nn.Linear(3 * 4 + 2, 1).double()
    x, e = torch.randn(2, 2, 4, 4).double(), torch.randn(2, 2).double()

    def penalty(weight, last):
        xs, es = x.clone().requires_grad_(), e.clone().requires_grad_()
        h = torch.tanh(F.conv2d(xs, weight)).flatten(1)
        return matching_aware_penalty(
            torch.cat([h, es], 1) @ last.T * es.sum(1, keepdim=True), [xs, es], 2, 6
        )

    assert torch.autograd.gradcheck(penalty, (conv.weight, out.weight), rtol=1e-4)


def test_penalty_of_a_discriminator_that_sees_nothing_is_zero_with_sound_gradients():
    w = torch.zeros(3, requires_grad=True)
    x = torch.randn(4, 3, requires_grad=True)
    penalty = matching_aware_penalty(x @ w, [x], k=2, p=6)
    penalty.backward()
    assert penalty.item() == 0
    assert w.grad.tolist() == [0, 0, 0]


def test_info_nce_by_hand():
    logits = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    rows = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(-2))]
    columns = [math.log(1 + math.exp(-1)), math.log(1 + math.exp(-3))]
    assert info_nce(logits).item() == pytest.approx((sum(rows) + sum(columns)) / 4)
    assert info_nce(100 * torch.eye(5)).item() == pytest.approx(0, abs=1e-6)


# --- fusion ---------------------------------------------------------------------------------------


def test_affine_is_channelwise_gamma_x_plus_beta():
    torch.manual_seed(0)
    affine = Affine(4, 3, gain=1.0)
    x, c = torch.randn(2, 3, 5, 5), torch.randn(2, 4)
    y = affine(x, c)
    gamma, beta = affine.gamma(c), affine.beta(c)
    assert y[1, 2, 3, 4].item() == pytest.approx(
        (gamma[1, 2] * x[1, 2, 3, 4] + beta[1, 2]).item(), rel=1e-5
    )
    assert not torch.allclose(gamma[0], gamma[1])


def test_fusion_starts_as_two_leaky_relus_whatever_the_text():
    x = torch.randn(2, 3, 4, 4)
    y = Fusion(4, 3)(x, torch.randn(2, 4))
    assert torch.allclose(y, F.leaky_relu(F.leaky_relu(x, 0.2), 0.2))


@pytest.mark.parametrize(("c_in", "c_out", "size"), [(6, 4, 8), (4, 4, 8), (6, 4, 7)])
def test_up_block_equals_the_papers_order_of_upsampling_first(c_in, c_out, size):
    """Fusing and the 1x1 shortcut before the upsampling give what the paper's order gives, at
    GALIP's odd sizes too."""
    torch.manual_seed(0)
    block = UpBlock(5, c_in, c_out, gain=1.0)
    x, c = torch.randn(2, c_in, 4, 4), torch.randn(2, 5)
    up = F.interpolate(x, size=(size, size))
    paper = block.shortcut(up) + block.conv2(block.fuse2(block.conv1(block.fuse1(up, c)), c))
    assert paper.shape == (2, c_out, size, size)
    assert torch.allclose(block(x, c, size), paper, atol=1e-6)


# --- contrastive pretraining ----------------------------------------------------------------------


class Table(TextEncoder):
    """A vector for each caption."""

    def __init__(self, n):
        super().__init__()
        self.shape = TextShape(16, 16)
        self.table = nn.Embedding(n, 16)

    def encode(self, captions):
        return TextFeatures.of(
            sentence=self.table(torch.tensor([int(c) for c in captions])), captions=captions
        )


class OneProcess:
    """An engine that only steps."""

    progress = 0.0

    def __init__(self, trainer):
        self.optimizers = trainer.optimizers

    def gathered(self, x):
        return x

    def update(self, name, loss):
        self.optimizers[name].zero_grad()
        parameters = [p for g in self.optimizers[name].param_groups for p in g["params"]]
        loss.backward(inputs=parameters)
        self.optimizers[name].step()


def make_images(n):
    """Each has one bright quarter of one colour."""
    images = torch.full((n, 3, 16, 16), -1.0)
    for i in range(n):
        row, column = divmod(i % 4, 2)
        images[i, i // 4 % 3, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 1
    return images


def test_captions_learn_to_find_their_images():
    torch.manual_seed(0)
    encoder = Table(12)
    trainer = MatchingTrainer(
        encoder, Matcher(16, encoder.shape.sentence, 8), lr=3e-3, lr_text=3e-3
    )
    captions = tuple(map(str, range(12)))

    def batch():
        return Batch(
            make_images(12), captions, captions, StepNoise(0, 0, 0, 12, 12), encoder.encode
        )

    engine = OneProcess(trainer)
    losses = [trainer.step(batch(), engine) for _ in range(60)]
    assert losses[0]["contrastive"] > 1.5
    assert losses[-1]["contrastive"] < 0.1
    assert losses[-1]["found"] == 1
    with torch.no_grad():
        preview = trainer.preview(batch())
    assert preview.shape == (24, 3, 16, 16)
    assert torch.equal(preview[0::2], make_images(12))
    assert torch.equal(preview[1::2], make_images(12))


def test_a_matcher_knows_where_things_are_and_does_not_mind_the_batch():
    torch.manual_seed(0)
    matcher = Matcher(32, sentence=8, width=8)
    images, sentences = torch.rand(4, 3, 32, 32) * 2 - 1, torch.randn(5, 8)
    logits = matcher.logits(matcher(images), sentences)
    assert logits.shape == (4, 5)
    assert torch.allclose(logits[:1], matcher.logits(matcher(images[:1]), sentences), atol=1e-5)
    assert logits.abs().max() <= 10.001  # scale times a cosine
    assert not torch.allclose(matcher.logits(matcher(images.flip(3)), sentences), logits, atol=1e-3)
