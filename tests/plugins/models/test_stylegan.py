"""StyleGAN2 with text and StyleGAN-T: layers against plain functions, penalties, one step."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from t2i.core.engine.local import LocalEngine
from t2i.core.errors import UserError
from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape
from t2i.core.interfaces.trainer import Batch, Networks
from t2i.core.models.building import build
from t2i.core.models.weights import load_state, owned_tensors
from t2i.core.runs.configure import resolve_config
from t2i.core.settings.engine import EngineConfig
from t2i.plugins.common.fir import downsample, upfirdn2d, upsample
from t2i.plugins.models.stylegan.config import StyleGANConfig
from t2i.plugins.models.stylegan.discriminator import Discriminator, minibatch_deviation
from t2i.plugins.models.stylegan.layers import (
    EqualConv,
    EqualLinear,
    SecondOrder,
    StyledConv,
    ToRGB,
)
from t2i.plugins.models.stylegan.networks import StyleGANGenerator
from t2i.plugins.models.stylegan.penalties import PathLength, lazy_adam, r1_penalty
from t2i.plugins.models.stylegan.projected import (
    Eye,
    GroupedNorm,
    Head,
    ProjectedDiscriminator,
    seen_by,
)
from t2i.plugins.models.stylegan.synthesis import FourierInput, ResidualConv
from t2i.plugins.models.stylegan.training import GANTrainer, blurred, squared_angle
from t2i.plugins.models.stylegan.weights import discriminator_state, generator_state, heads_state

TEXT = TextShape(6, 6)
SIZES = {"image_size": 16, "z_dim": 6, "channel_base": 64, "channel_max": 8, "clamp": 4.0}
SMALL = StyleGANConfig(**SIZES, w_dim=7, mapping_layers=2, judge_mapping_layers=2)
SMALL_T = StyleGANConfig(
    **SIZES, generator="stylegan-t", discriminator="projected", adversarial="hinge",
    mapping_layers=2, norm_groups=2, r1=0, mixing=0, path_length=0, eye_blocks=(1, 2), crop=0.5,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def drawn(module):
    """The module with every weight and buffer drawn at random."""
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if not name.endswith("freqs"):
                tensor.normal_()
            if name.endswith((".u", ".v")):
                tensor.copy_(F.normalize(tensor, dim=0))
    return module


def text(n):
    return TextFeatures.of(sentence=torch.randn(n, 6), captions=[""] * n)


def zeros_between(x, up):
    out = x.new_zeros(*x.shape[:2], x.shape[2] * up, x.shape[3] * up)
    out[:, :, ::up, ::up] = x
    return out


def filtered(x, taps, up=1, down=1, before=0, after=0):
    """The definition: insert zeros, pad, true convolution, drop."""
    x = F.pad(zeros_between(x, up), (before, after, before, after))
    kernel = taps.flip(0, 1).repeat(x.shape[1], 1, 1, 1)
    return F.conv2d(x, kernel, groups=x.shape[1])[:, :, ::down, ::down]


def bilinear():
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) / 64


# --- resampling -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (2, 3), (3, 2)])
@pytest.mark.parametrize("padding", [(0, 0), (2, 1), (-1, 2), (5, -2)])
def test_resampling_is_its_definition(up, down, padding):
    x, taps = torch.randn(2, 3, 7, 7), torch.randn(4, 4)
    expected = 1.5 * filtered(x, taps, up, down, *padding)
    torch.testing.assert_close(upfirdn2d(x, taps, up, down, padding, 1.5), expected)


def test_one_row_of_taps_filters_along_both_axes():
    x, taps = torch.randn(2, 3, 9, 9), torch.randn(5)
    both = upfirdn2d(x, torch.outer(taps, taps), padding=(2, 2))
    torch.testing.assert_close(upfirdn2d(x, taps, padding=(2, 2)), both)


def test_doubling_and_halving_are_the_filter_with_the_right_padding():
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(upsample(x), 4 * filtered(x, bilinear(), 2, 1, 2, 1))
    torch.testing.assert_close(downsample(x), filtered(x, bilinear(), 1, 2, 1, 1))


# --- layers ---------------------------------------------------------------------------------------


def by_hand(layer, x, w, noise):
    """The paper's way: weights of each image, scaled, normalised, one convolution an image."""
    style = layer.affine(w)
    images = []
    for i, s in enumerate(style):
        weight = layer.weight * s[None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if layer.doubles:
            inserted = F.pad(zeros_between(x[i : i + 1], 2), (3, 2, 3, 2))
            h = F.conv2d(inserted, weight.flip(2, 3))
            h = 4 * filtered(h, bilinear())
        else:
            h = F.conv2d(x[i : i + 1], weight, padding=1)
        images.append(h)
    h = torch.cat(images) + layer.strength * noise + layer.bias[:, None, None]
    limit = 4.0 * layer.gain
    return (F.leaky_relu(h, 0.2) * math.sqrt(2) * layer.gain).clamp(-limit, limit)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("gain", [1.0, 0.5])
def test_the_styled_convolution_is_the_papers(double, gain):
    layer = drawn(StyledConv(5, 4, 3, 16 if double else 8, gain=gain, clamp=4.0, double=double))
    x, w, noise = (
        torch.randn(3, 5, 8, 8),
        torch.randn(3, 3),
        torch.randn(3, 1, layer.size, layer.size),
    )
    torch.testing.assert_close(layer(x, w, noise), by_hand(layer, x, w, noise))
    torch.testing.assert_close(layer(x, w), by_hand(layer, x, w, layer.noise_const))


def test_the_colours_are_a_modulated_convolution_without_normalisation():
    layer = drawn(ToRGB(5, 3))
    x, w = torch.randn(2, 5, 4, 4), torch.randn(2, 3)
    scaled = x * layer.affine(w)[..., None, None] / math.sqrt(5)
    expected = F.conv2d(scaled, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x, w), expected)


def test_the_second_order_style_is_a_product_and_a_sum():
    layer, w = drawn(SecondOrder(3, 4)), torch.randn(2, 3)
    a, b, c = F.linear(w, layer.linear.weight / math.sqrt(3), layer.linear.bias).split(4, 1)
    torch.testing.assert_close(layer(w), a * b + c)


def test_the_residual_convolution_adds_to_normalised_features():
    layer = drawn(ResidualConv(4, 3, 8, SMALL_T))
    x, w, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 3), torch.randn(2, 1, 8, 8)
    normed = F.group_norm(x, 2, layer.norm.weight, layer.norm.bias)
    expected = layer.gamma[:, None, None] * by_hand(layer, normed, w, noise) + normed
    torch.testing.assert_close(layer(x, w, noise), expected * math.sqrt(2))


def test_equalised_layers_scale_their_weights():
    linear, x = drawn(EqualLinear(5, 4, 0.01, active=True)), torch.randn(3, 5)
    h = F.linear(x, linear.weight * 0.01 / math.sqrt(5), linear.bias * 0.01)
    torch.testing.assert_close(linear(x), F.leaky_relu(h, 0.2) * math.sqrt(2))
    conv, x = drawn(EqualConv(3, 4, 3, 0.5, 1.0, halve=True)), torch.randn(2, 3, 8, 8)
    h = F.conv2d(
        filtered(x, bilinear(), before=2, after=2), conv.weight / math.sqrt(27), conv.bias, 2
    )
    expected = (F.leaky_relu(h, 0.2) * math.sqrt(0.5)).clamp(-0.5, 0.5)
    torch.testing.assert_close(conv(x), expected)


def test_the_fourier_features_turn_and_move_with_w():
    layer = FourierInput(3, 5)
    upright = layer(torch.zeros(1, 3))
    with torch.no_grad():
        layer.affine.bias.copy_(torch.tensor([0.0, 2.0, 0.0, 0.0]))  # a quarter turn, of length 2
    turned = layer(torch.zeros(1, 3))
    torch.testing.assert_close(turned, torch.rot90(upright, 1, (2, 3)))
    with torch.no_grad():
        layer.affine.bias.copy_(torch.tensor([1.0, 0.0, 1 / 8, 0.0]))  # one place of eight
    torch.testing.assert_close(layer(torch.zeros(1, 3))[..., 1:], upright[..., :-1])


# --- networks -------------------------------------------------------------------------------------


def test_parameters_are_the_authors():
    """StyleGAN2's `paper256` and StyleGAN-T at 64 pixels, counted from the authors' code."""
    with torch.device("meta"):
        lite = StyleGANConfig.presets()["t-lite64"].settings
        generator = StyleGANGenerator(StyleGANConfig(**lite), TextShape(768, 768))
        assert sum(p.numel() for p in generator.parameters()) / 1e6 == pytest.approx(74.6, abs=0.1)
        full = StyleGANConfig(**StyleGANConfig.presets()["t-full64"].settings)
        generator = StyleGANGenerator(full, TextShape(768, 768))
        assert sum(p.numel() for p in generator.parameters()) / 1e6 == pytest.approx(976, abs=1)


@pytest.mark.parametrize("config", [SMALL, SMALL_T], ids=["stylegan2", "stylegan-t"])
def test_the_generator_sees_text_and_noise_and_truncates(config):
    generator = drawn(StyleGANGenerator(config, TEXT)).eval()
    z, words = torch.randn(3, 6), text(3)
    images = generator(z, words)
    assert images.shape == (3, 3, 16, 16)
    assert images.abs().max() <= 1
    assert not torch.allclose(images, generator(z.flip(0), words))
    assert not torch.allclose(images, generator(z, words[[1, 2, 0]]))
    torch.testing.assert_close(images[:1], generator(z[:1], words[:1]))
    torch.testing.assert_close(generator.truncated(z, words, 1.0), images)
    mean = generator.truncated(z, words[[0, 0, 0]], 0.0)
    torch.testing.assert_close(mean[0], mean[2])
    assert torch.allclose(mean, generator.truncated(z, words, 0.0)) == (config is SMALL)


def test_noise_of_layers_is_fixed_in_sampling_and_drawn_in_training():
    generator = drawn(StyleGANGenerator(SMALL, TEXT)).train()
    ws = generator.styles(torch.randn(2, 6), text(2))
    noises = [torch.randn(2, 1, layer.size, layer.size) for layer in generator.synthesis.noisy()]
    assert [n.shape[-1] for n in noises] == [4, 8, 8, 16, 16]
    fixed = [layer.noise_const[None, None] for layer in generator.synthesis.noisy()]
    plain = generator.synthesise(ws)
    torch.testing.assert_close(generator.synthesise(ws, fixed), plain)
    assert not torch.allclose(generator.synthesise(ws, noises), plain)


def test_the_minibatch_deviation_is_that_of_groups():
    x = torch.randn(6, 2, 3, 3)
    channel = minibatch_deviation(x, 4)[:, 2]  # 4 does not divide 6: groups of 3
    for i in range(6):
        group = x[[i % 2, i % 2 + 2, i % 2 + 4]]
        expected = group.var(0, unbiased=False).add(1e-8).sqrt().mean()
        torch.testing.assert_close(channel[i], expected.expand(3, 3))


def test_groups_are_normalised_alone():
    norm, x = drawn(GroupedNorm(3)), torch.randn(16, 3, 5)
    both = torch.cat(
        [
            F.batch_norm(part, None, None, norm.weight, norm.bias, training=True)
            for part in x.split(8)
        ]
    )
    torch.testing.assert_close(norm(x), both)
    torch.testing.assert_close(norm(x[:8]), both[:8])


def test_a_head_is_the_papers():
    head, x, c = drawn(Head(4, 5, 6, 3, 3)).eval(), torch.randn(8, 4, 7), torch.randn(8, 6)

    def block(block, x, kernel):
        conv = block.conv
        sigma = conv.u @ (conv.weight.flatten(1) @ conv.v)
        x = F.pad(x, (kernel // 2, kernel // 2), mode="circular")
        h = F.conv1d(x, conv.weight / sigma, conv.bias)
        h = F.batch_norm(h, None, None, block.norm.weight, block.norm.bias, training=True)
        return F.leaky_relu(h, 0.2)

    h = block(head.first, x, 1)
    h = (h + block(head.second, h, 3)) / math.sqrt(2)
    sigma = head.out.u @ (head.out.weight.flatten(1) @ head.out.v)
    h = F.conv1d(h, head.out.weight / sigma, head.out.bias)
    e = F.linear(c, head.text.weight / math.sqrt(6), head.text.bias)
    expected = (h * e[..., None]).sum(1) / math.sqrt(3)
    torch.testing.assert_close(head.score(head(x), c), expected)


# --- penalties ------------------------------------------------------------------------------------


def test_r1_of_a_square_is_known():
    x = torch.randn(4, 3, 2, 2, requires_grad=True)
    penalty = r1_penalty(x.square().sum((1, 2, 3)), x)  # the gradient is 2 x
    torch.testing.assert_close(penalty, 2 * x.square().sum((1, 2, 3)).mean())


def test_path_lengths_of_a_linear_map_are_known():
    path, ws = PathLength(0.25), torch.randn(3, 2, 5, requires_grad=True)
    matrix, noise = torch.randn(10, 3 * 16), torch.randn(3, 3, 4, 4)
    lengths = path.lengths((ws.flatten(1) @ matrix).view(3, 3, 4, 4), ws, noise)
    gradient = (noise.flatten(1) @ matrix.T / 4).view(3, 2, 5)
    torch.testing.assert_close(lengths, gradient.square().sum(2).mean(1).sqrt())
    penalty = path(lengths, lengths)
    torch.testing.assert_close(path.mean, 0.25 * lengths.mean().detach())
    torch.testing.assert_close(penalty, (lengths - 0.25 * lengths.mean()).square().mean())


def test_lazy_adam_is_scaled():
    (group,) = lazy_adam([nn.Parameter(torch.zeros(2))], 0.002, (0.0, 0.99), 16).param_groups
    assert group["lr"] == pytest.approx(0.002 * 16 / 17)
    assert group["betas"] == pytest.approx((0.0, 0.99 ** (16 / 17)))


def test_the_blur_is_a_gaussian_of_half_weight_at_sigma():
    image = torch.zeros(1, 3, 33, 33)
    image[..., 16, 16] = 1
    out = blurred(image, 4.0)
    assert out[0, 0, 16, 20] == pytest.approx(out[0, 0, 16, 16].item() / 2)
    assert out.sum() == pytest.approx(3)
    assert blurred(image, 0.3) is image


def test_the_squared_angle():
    right = squared_angle(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]]))
    assert right.item() == pytest.approx((math.pi / 2) ** 2)


# --- training -------------------------------------------------------------------------------------


class Sentences(TextEncoder):
    def __init__(self):
        super().__init__()
        self.shape = TEXT
        self.table = nn.Embedding(8, 6).requires_grad_(False)

    def encode(self, captions):
        rows = torch.tensor([len(c) for c in captions])
        return TextFeatures.of(sentence=self.table(rows), captions=captions)


def batch(encoder, at, n=4):
    images = torch.rand(n, 3, 16, 16) * 2 - 1
    captions = tuple("x" * i for i in range(n))
    return Batch(images, captions, captions, StepNoise(0, at, 0, n, n), encoder.encode)


class Recorder(LocalEngine):
    """Notes the losses of each update, and moves nothing."""

    def __init__(self, trainer):
        super().__init__(trainer, EngineConfig(), updates=False)
        self.losses = []

    def update(self, name, loss):
        self.losses.append((name, loss.item()))


def test_losses_of_a_lazy_step_are_the_papers():
    torch.set_default_dtype(torch.float32)
    config = SMALL.model_copy(update={"mixing": 0.0, "noise": False})
    encoder = Sentences()
    trainer = GANTrainer(config, Networks(StyleGANGenerator(config, TEXT), encoder))
    made, engine = batch(encoder, at=16), Recorder(trainer)
    trainer.step(made, engine)
    assert [name for name, _ in engine.losses] == ["discriminator"] * 2 + ["generator"] * 2
    D, G = trainer.discriminator, trainer.generator
    c = F.normalize(made.text.sentence, dim=1)
    fake = G(made.noise.normal("z", 0, (6,)), made.text)
    x = made.images.clone().requires_grad_()
    real, judged = D.score(D(x), c), D.score(D(fake), c)
    assert engine.losses[0][1] == pytest.approx(
        (F.softplus(-real) + F.softplus(judged)).mean().item(), rel=1e-4
    )
    (gradient,) = torch.autograd.grad(real.sum(), x)
    assert engine.losses[1][1] == pytest.approx(
        16 * 10 / 2 * gradient.square().sum((1, 2, 3)).mean().item(), rel=1e-4
    )
    assert engine.losses[2][1] == pytest.approx(F.softplus(-judged).mean().item(), rel=1e-4)
    lengths = trainer.path.mean.item() / 0.01
    assert engine.losses[3][1] >= 4 * 2 * (lengths - 0.01 * lengths) ** 2 * 0.999
    other = Recorder(trainer)
    trainer.step(batch(encoder, at=17), other)
    assert [name for name, _ in other.losses] == ["discriminator", "generator"]


def test_the_generators_steps_are_counted_where_it_waits_for_the_critic():
    """Every fourth of its steps has the path-length penalty, the first one too."""
    torch.set_default_dtype(torch.float32)
    config, encoder = SMALL.model_copy(update={"critic_steps": 2}), Sentences()
    trainer = GANTrainer(config, Networks(StyleGANGenerator(config, TEXT), encoder))
    found = []
    for at in range(12):
        engine = Recorder(trainer)
        trainer.step(batch(encoder, at=at), engine)
        found.append([name for name, _ in engine.losses].count("generator"))
    assert found == [0, 2, 0, 1, 0, 1, 0, 1, 0, 2, 0, 1]


def test_the_parts_of_a_batch_have_one_update_of_each_network():
    """The lazy penalties are then part of its loss, with the same weights."""
    torch.set_default_dtype(torch.float32)
    update, encoder = {"mixing": 0.0, "noise": False}, Sentences()
    losses = []
    for parts in (1, 2):
        torch.manual_seed(0)
        config = SMALL.model_copy(update={**update, "accumulate": parts})
        trainer = GANTrainer(config, Networks(StyleGANGenerator(config, TEXT), encoder))
        torch.manual_seed(1)
        made, engine = batch(encoder, at=16), Recorder(trainer)
        trainer.step(made, engine)
        losses.append(engine.losses)
    split, whole = losses
    assert [name for name, _ in whole] == ["discriminator", "generator"]
    for i, (_, loss) in enumerate(whole):
        assert loss == pytest.approx(split[2 * i][1] + split[2 * i + 1][1], rel=1e-4)


def test_wrong_pairs_count_half():
    torch.set_default_dtype(torch.float32)
    config = SMALL.model_copy(update={"wrong_pairs": True, "r1": 0.0, "mixing": 0.0})
    encoder = Sentences()
    trainer = GANTrainer(config, Networks(StyleGANGenerator(config, TEXT), encoder))
    made, engine = batch(encoder, at=1), Recorder(trainer)
    reported = trainer.step(made, engine)
    c = F.normalize(made.text.sentence, dim=1)
    D = trainer.discriminator
    features = D(made.images)
    wrong = F.softplus(D.score(features, c[[3, 0, 1, 2]])).mean()
    real = F.softplus(-D.score(features, c)).mean()
    fake = 2 * (engine.losses[0][1] - real.item()) - wrong.item()
    assert fake == pytest.approx(F.softplus(reported["fake"]).item(), rel=0.05)


def test_mixed_styles_are_those_of_two_noises():
    torch.set_default_dtype(torch.float32)
    config = SMALL.model_copy(update={"mixing": 1.0})
    encoder = Sentences()
    trainer = GANTrainer(config, Networks(StyleGANGenerator(config, TEXT), encoder))
    made, G = batch(encoder, at=3), trainer.generator
    mapped = G.mapped(made.noise.normal("z", 0, (6,)), made.text)
    mixed = trainer._mixed(mapped, made, made.text, "main")
    other = G.mapped(made.noise.scope("main").normal("other z", 0, (6,)), made.text)
    for row, first, second in zip(mixed, mapped, other, strict=True):
        kinds = [torch.equal(w, first) for w in row]
        assert kinds == sorted(kinds, reverse=True)
        assert kinds[0]
        assert not kinds[-1]
        assert all(torch.equal(w, second) for w, kind in zip(row, kinds, strict=True) if not kind)


class PatchEye(Eye):
    """Tokens that are linear in the patches of 4x4 pixels of an 8x8 image."""

    image_size, patch, width, depth = 8, 4, 5, 2

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(48, 5).requires_grad_(False)

    def tokens(self, images, blocks):
        x = F.pixel_unshuffle(self.resized(images), 4).flatten(2).transpose(1, 2)
        x = self.map(F.pad(x, (0, 0, 1, 0)))
        return [*(n * x for n in blocks), x]


def test_larger_images_are_cropped_or_made_smaller():
    eye, images = PatchEye(), torch.randn(2, 3, 16, 16)
    share = torch.tensor([[0.4, 0.0, 0.99], [0.6, 0.5, 0.5]])
    maps = seen_by(eye, SMALL_T, images, share)
    assert len(maps) == 3
    crop, small = images[:1, :, 0:8, 8:16], F.avg_pool2d(images[1:], 2)
    expected = eye(torch.cat([crop, small]), (1, 2))
    for ours, theirs in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_projected_discriminator_scores_all_tokens():
    D = drawn(ProjectedDiscriminator(SMALL_T, PatchEye(), 6))
    maps = seen_by(PatchEye(), SMALL_T, torch.randn(4, 3, 8, 8), None)
    assert D.score(D(maps), torch.randn(4, 6)).shape == (4, 3 * 4)
    with pytest.raises(UserError, match=r"eye_blocks = \[1, 9\], but the frozen network has 2"):
        ProjectedDiscriminator(SMALL_T.model_copy(update={"eye_blocks": (1, 9)}), PatchEye(), 6)


PROJECTED = (
    "discriminator=projected", "r1=0", "adversarial=hinge", "eye_pixels=true", "guidance=0.1",
)  # fmt: skip


@pytest.mark.parametrize(
    "more", [(), ("augment_images=diffaugment",), ("loss=relativistic", "critic_norm=layer")]
)
def test_projected_heads_on_the_shipped_clip_train(more):
    torch.set_default_dtype(torch.float32)
    sets = ("channel_base=64", "channel_max=8", "head_width=8", *PROJECTED, *more)
    config = resolve_config("stylegan", preset="shapes", sets=sets)
    model = build(config)
    trainer = GANTrainer(config.settings, model.networks)
    engine, captions = LocalEngine(trainer, config.settings), ("a red circle", "a blue star") * 4
    images = torch.rand(8, 3, 32, 32) * 2 - 1
    made = Batch(images, captions, captions, StepNoise(0, 0, 0, 8, 8), model.text_encoder.encode)
    eye = {name: t.clone() for name, t in owned_tensors(trainer.eye).items()}
    engine.begin_step(9)
    losses = trainer.step(made, engine)
    assert all(loss.isfinite() for loss in losses.values())
    assert {"guidance", "generator", "discriminator"} <= losses.keys()
    assert all(torch.equal(t, eye[name]) for name, t in owned_tensors(trainer.eye).items())


def test_heads_that_normalise_over_images_refuse_penalties():
    torch.set_default_dtype(torch.float32)
    sets = (*PROJECTED, "loss=wasserstein")
    config = resolve_config("stylegan", preset="shapes", sets=sets)
    with pytest.raises(UserError, match=r"no gradient of its own: use critic_norm=layer"):
        GANTrainer(config.settings, build(config).networks)


def test_only_what_is_above_64_pixels_is_trained():
    torch.set_default_dtype(torch.float32)
    config = StyleGANConfig(**{**SMALL.model_dump(), "image_size": 128, "trained": "beyond64"})
    trainer = GANTrainer(config, Networks(StyleGANGenerator(config, TEXT), Sentences()))
    trained = {n for n, p in trainer.generator.named_parameters() if p.requires_grad}
    assert all(name.startswith(("synthesis.to_rgb", "synthesis.blocks.5.")) for name in trained)
    assert "synthesis.blocks.5.0.weight" in trained
    assert "synthesis.to_rgb.0.weight" in trained


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 48}, "doubles 4x4 pixels"),
        ({"generator": "stylegan-t", "mixing": 0.0}, "neither style mixing nor"),
        ({"discriminator": "projected"}, "has no R1"),
        ({"eye_blocks": (3, 2)}, "ascending"),
        ({"head_kernel": 4}, "odd"),
    ],
)
def test_refuses_what_does_not_fit(settings, message):
    with pytest.raises(UserError, match=message):
        StyleGANConfig.of({"image_size": 64, **settings}, "here")


# --- NVIDIA's names -------------------------------------------------------------------------------


def in_nvidias_names(module, config):
    """Rename a state dict of ours, by rules that were written from the authors' classes."""
    named, small = {}, config.generator == "stylegan2"
    start = 4 if small else 8
    for name, tensor in module.state_dict().items():
        parts = name.split(".")
        if name == "average":
            new = "mapping.w_avg" if small else "mapping.x_avg"
        elif parts[:2] == ["mapping", "layers"]:
            new = ".".join(["mapping", *([] if small else ["mlp"]), f"fc{parts[2]}", parts[3]])
        elif parts[:2] == ["synthesis", "start"]:
            rest = ".".join(parts[2:])
            new = "synthesis.b4.const" if small else f"synthesis.b8.input.{rest}"
        elif parts[0] == "synthesis":
            size = start << int(parts[2])
            if parts[1] == "to_rgb":
                layer, rest = "torgb", parts[3:]
            else:
                number, rest = int(parts[3]) - (size > start), parts[4:]
                layer = "conv0" if number < 0 else "conv1" if small else f"convs1.{number}"
            tail = ".".join(rest).replace("affine.linear", "affine" if small else "affine.proj")
            new = f"synthesis.b{size}.{layer}.{tail.replace('strength', 'noise_strength')}"
            if tail == "gamma":
                tensor = tensor.view(1, -1, 1, 1)
        else:
            new = name
        named[new] = tensor
    named["synthesis.b8.resample_filter"] = bilinear().float()
    return named


@pytest.mark.parametrize("config", [SMALL, SMALL_T], ids=["stylegan2", "stylegan-t"])
def test_reads_a_generator_in_nvidias_names(config):
    theirs, ours = (drawn(StyleGANGenerator(config, TEXT)).eval() for _ in range(2))
    load_state(ours, generator_state(in_nvidias_names(theirs, config), config), "here")
    z, words = torch.randn(2, 6), text(2)
    assert torch.equal(ours.truncated(z, words, 0.5), theirs.truncated(z, words, 0.5))


def test_reads_discriminators_in_nvidias_names():
    ours = Discriminator(SMALL, 6).state_dict()
    named = {}
    for name, tensor in ours.items():
        parts = name.split(".")
        if parts[0] == "blocks":
            parts = [f"b{16 >> int(parts[1])}", *parts[2:]]
        elif parts[0] == "from_rgb":
            parts = ["b16", "fromrgb", parts[1]]
        elif parts[0] in ("conv", "linear", "out"):
            parts = ["b4", {"linear": "fc"}.get(parts[0], parts[0]), parts[1]]
        elif parts[:2] == ["mapping", "layers"]:
            parts = ["mapping", f"fc{parts[2]}", parts[3]]
        named[".".join(parts)] = tensor
    read = discriminator_state(named, SMALL)
    assert read.keys() == ours.keys()
    head = {
        "heads.0.main.0.0.weight_orig", "heads.0.main.0.0.weight_u", "heads.0.main.1.fn.1.bias",
        "heads.0.cmapper.weight", "heads.0.cls.weight_v",
    }  # fmt: skip
    found = heads_state({**dict.fromkeys(head, torch.zeros(1)), "dino.x": torch.zeros(1)})
    assert set(found) == {
        "heads.0.first.conv.weight", "heads.0.first.conv.u", "heads.0.second.norm.bias",
        "heads.0.text.weight", "heads.0.out.v",
    }  # fmt: skip
    with pytest.raises(UserError, match=r"another filter than \[1, 3, 3, 1\]"):
        generator_state({"synthesis.b8.resample_filter": torch.ones(4, 4)}, SMALL)


def test_nvidias_pickles_are_refused_with_the_way(tmp_path):
    from t2i.plugins.models.stylegan.weights import load

    path = tmp_path / "ffhq.pkl"
    path.write_bytes(b"\x80\x04N.")
    config = resolve_config("stylegan")
    with pytest.raises(UserError, match=r"would run; it is not loaded.*state_dict\(\), 'FILE.pt'"):
        load(config, [path])


def test_imports_a_state_dict(tmp_path):
    from t2i.plugins.models.stylegan.weights import load

    torch.set_default_dtype(torch.float32)
    config = resolve_config(
        "stylegan", sets=("channel_max=8", "w_dim=8", "encoder.width=16", "encoder.heads=2")
    )
    theirs = drawn(build(config).generator).eval()
    torch.save({"G_ema": in_nvidias_names(theirs, config.settings)}, tmp_path / "G.pt")
    model = load(config, [tmp_path / "G.pt"])
    mine, expected = owned_tensors(model.generator), owned_tensors(theirs)
    assert all(torch.equal(mine[name], tensor) for name, tensor in expected.items())
    state = {n: t for n, t in in_nvidias_names(theirs, config.settings).items() if "embed" not in n}
    torch.save(state, tmp_path / "unconditional.pt")
    with pytest.raises(UserError, match="an unconditional generator takes no text"):
        load(config, [tmp_path / "unconditional.pt"])
