"""AttnGAN: the papers' geometry, the authors' networks by their own names, one step's mathematics
and economy."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from t2i import load
from t2i.core.engine import resume, train
from t2i.core.engine.reporting import Silent
from t2i.core.errors import UserError
from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.core.interfaces.trainer import Batch, Networks, optimizations
from t2i.core.io.tensors import load_tensors
from t2i.core.models.weights import load_state
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from t2i.plugins.common.gan.blocks.upsampling import UpConv3x3
from t2i.plugins.common.gan.conditioning.augmentation import kl_loss
from t2i.plugins.common.gan.trees.discriminator import Discriminator
from t2i.plugins.common.gan.trees.matching import discriminator_loss, helpers
from t2i.plugins.common.gan.trees.training import generator_loss, shrunk
from t2i.plugins.common.gan.trees.weights import discriminator_state
from t2i.plugins.common.text.damsm import DamsmTrainer, damsm_losses
from t2i.plugins.models.attngan.config import AttnGANConfig
from t2i.plugins.models.attngan.networks import Attention, Network, build
from t2i.plugins.models.attngan.training import GANTrainer, stages
from t2i.plugins.models.attngan.weights import load as load_authors
from tests.plugins.models.stand_ins import Recorder
from tests.plugins.models.trees import Letters
from tests.stopped import stopped_at

TEXT = TextShape(8, 6)
TINY = {
    "image_size": 32, "gf": 4, "df": 4, "residual_blocks": 1, "z_dim": 5, "c_dim": 3,
    "batch_size": 4,
    "image_encoder": {"kind": "small", "width": 4},
}  # fmt: skip
SMALL = AttnGANConfig(**TINY)


def count(module):
    return sum(p.numel() for p in module.parameters())


def text(n, length=4, seed=0):
    random = torch.Generator().manual_seed(seed)
    sentence, words = (
        torch.randn(n, 8, generator=random),
        torch.randn(n, length, 6, generator=random),
    )
    return TextFeatures(sentence, words, torch.ones(n, length, dtype=torch.bool), ("",) * n)


def settled(module):
    """With statistics and gains of batch norm that matter."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, tensor in [*module.named_buffers(), *module.named_parameters()]:
            if name.endswith("running_mean"):
                tensor.normal_(0, 0.2)
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
    return module.eval()


# --- networks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "generator", "judges"),
    [
        ("cub", 7_084_592, [6_313_730, 19_424_002, 71_858_946]),
        ("coco", 13_811_456, [13_304_450, 42_800_258, 160_774_274]),
    ],
)
def test_parameters_are_those_of_the_authors_modules(preset, generator, judges):
    config = resolve_config("attngan", preset=preset, data_needed=False).settings
    with torch.device("meta"):
        made = build(config, TextShape(256, 256), None)
        seeing = helpers(config, TextShape(256, 256), True)
        discriminators = [Discriminator(config, i, 256) for i in range(3)]
    assert count(made.network) == generator
    assert [count(d) for d in discriminators] == judges
    assert count(seeing["image_encoder"]) == 22_506_720
    assert config.sizes == [64, 128, 256]


@pytest.mark.parametrize(("size", "scales"), [(16, 2), (32, 3), (32, 1), (64, 3)])
def test_every_size_fits_its_networks(size, scales):
    config = AttnGANConfig(**{**TINY, "image_size": size, "scales": scales})
    generator = build(config, TEXT, None)
    drawn = generator.network(torch.randn(2, 8), text(2))
    sides = [size >> i for i in reversed(range(scales))]
    assert [image.shape for image in drawn.images] == [(2, 3, side, side) for side in sides]
    assert all(image.abs().max() <= 1 for image in drawn.images)
    for scale, image in enumerate(drawn.images):
        d = Discriminator(config, scale, 8)
        features = d(image)
        assert features.shape[2:] == (4, 4)
        assert (
            d.unconditional(features).shape
            == d.conditional(features, text(2).sentence).shape
            == (2,)
        )


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"image_size": 48}, "a power of two"),
        ({"image_size": 16, "scales": 3}, "first of the 3 scales at least 8"),
        ({"batch_size": 1}, "needs two images"),
        ({"batch_size": 4, "accumulate": 4}, "needs two images"),
    ],
)
def test_refuses_what_cannot_be(settings, reason):
    with pytest.raises(UserError, match=reason):
        AttnGANConfig.of(settings, "here")


@pytest.mark.parametrize(("batch", "training", "folded"), [
    (2, True, False), (2, False, True), (17, True, True),
])  # fmt: skip
def test_upsampling_and_convolution_in_one_equal_both(monkeypatch, batch, training, folded):
    """400 places are the least for which a training step folds: 17 images have 408."""
    torch.manual_seed(0)
    both = UpConv3x3(3, 5).double().train(training)
    x = torch.randn(batch, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    calls = []
    transposed = F.conv_transpose2d
    monkeypatch.setattr(
        F, "conv_transpose2d", lambda *a, **k: calls.append(a) or transposed(*a, **k)
    )
    both(x)
    assert bool(calls) is folded
    plain = F.conv2d(F.interpolate(x, scale_factor=2), both.weight, padding=1)
    torch.testing.assert_close(both(x), plain)
    weight = torch.randn_like(plain)
    ours = torch.autograd.grad((weight * both(x)).sum(), [x, both.weight])
    theirs = torch.autograd.grad((weight * plain).sum(), [x, both.weight])
    torch.testing.assert_close(ours, theirs)


def test_attention_place_by_place_and_each_caption_with_its_own_mask():
    """The authors repeat their mask in the wrong order, so that an image is masked as another
    one."""
    torch.manual_seed(0)
    attention, h, words = Attention(4, 6), torch.randn(3, 4, 2, 2), torch.randn(3, 5, 6)
    lengths = [5, 2, 3]
    context = attention(h, words, torch.arange(5) < torch.tensor(lengths)[:, None])
    for b, length in enumerate(lengths):
        e = words[b, :length] @ attention.project.weight.T
        for place in ((0, 0), (0, 1), (1, 1)):
            weights = torch.softmax(e @ h[b, :, *place], 0)
            torch.testing.assert_close(context[b, :, *place], weights @ e)


def test_images_depend_on_noise_sentence_and_words_but_not_on_padding_or_the_rest_of_the_batch():
    torch.manual_seed(0)
    generator, noise, told = settled(build(SMALL, TEXT, None)), torch.randn(2, 8), text(2)
    images = generator(noise, told)
    assert torch.equal(images, generator(noise, told))
    assert torch.equal(images, generator.network(noise, told).images[-1])
    other = text(2, seed=9)
    others = [
        (noise.index_add(1, torch.tensor([0]), torch.ones(2, 1)), told),  # z
        (noise.index_add(1, torch.tensor([7]), torch.ones(2, 1)), told),  # eps
        (noise, TextFeatures(other.sentence, told.words, told.mask)),
        (noise, TextFeatures(told.sentence, other.words, told.mask)),
    ]
    assert not any(torch.allclose(generator(*given), images, atol=1e-4) for given in others)
    torch.testing.assert_close(generator(noise, told.padded(9)), images)
    torch.testing.assert_close(generator(noise[:1], told[:1]), images[:1])


def test_no_draw_gives_the_mean_condition():
    torch.manual_seed(0)
    network, seen = settled(Network(SMALL, TEXT)), []
    network.first.register_forward_hook(lambda module, given, output: seen.append(given))
    drawn = network(torch.cat([torch.randn(2, 5), torch.zeros(2, 3)], 1), text(2))
    assert torch.equal(seen[0][0], drawn.mean)


def test_initial_weights_are_orthogonal():
    torch.manual_seed(0)
    for module in (Network(SMALL, TEXT), Discriminator(SMALL, 2, 8)):
        for layer in module.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                w = layer.weight.flatten(1)
                w = w if w.shape[0] <= w.shape[1] else w.T
                torch.testing.assert_close(w @ w.T, torch.eye(len(w)), atol=1e-5, rtol=0)


def test_standardised_sentences_have_mean_0_and_variance_1():
    torch.manual_seed(0)
    network = Network(SMALL.model_copy(update={"standardise": True}), TEXT).train()
    told = text(64)
    told = TextFeatures(3 + 0.01 * told.sentence, told.words, told.mask)
    drawn = network(torch.randn(64, 8), told)
    torch.testing.assert_close(drawn.sentence.mean(0), torch.zeros(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(drawn.sentence.std(0), torch.ones(8), atol=0.06, rtol=0)
    assert torch.equal(Network(SMALL, TEXT)(torch.randn(64, 8), told).sentence, told.sentence)


# --- the authors' files ---------------------------------------------------------------------------


def norm(name, n):
    """A batch norm's entries; the released files come from before num_batches_tracked."""
    return {
        f"{name}.weight": 1 + 0.1 * torch.randn(n), f"{name}.bias": 0.1 * torch.randn(n),
        f"{name}.running_mean": 0.1 * torch.randn(n), f"{name}.running_var": 0.5 + torch.rand(n),
    }  # fmt: skip


def conv(name, c_out, c_in, k):
    return {f"{name}.weight": torch.randn(c_out, c_in, k, k) / (c_in * k * k) ** 0.5}


def authors_generator(gf, sentence, words, z, c, r):
    """G_NET's state dict: key names and shapes of the released files."""
    top = 16 * gf
    state = {"ca_net.fc.weight": torch.randn(4 * c, sentence), "ca_net.fc.bias": torch.randn(4 * c)}
    state |= {
        "h_net1.fc.0.weight": torch.randn(top * 32, c + z) / 4,
        **norm("h_net1.fc.1", top * 32),
    }
    for i in range(4):
        state |= conv(f"h_net1.upsample{i + 1}.1", 2 * (top >> (i + 1)), top >> i, 3)
        state |= norm(f"h_net1.upsample{i + 1}.2", 2 * (top >> (i + 1)))
    for n in (2, 3):
        state |= conv(f"h_net{n}.att.conv_context", gf, words, 1)
        for i in range(r):
            block = f"h_net{n}.residual.{i}.block"
            state |= {**conv(f"{block}.0", 4 * gf, 2 * gf, 3), **norm(f"{block}.1", 4 * gf)}
            state |= {**conv(f"{block}.3", 2 * gf, 2 * gf, 3), **norm(f"{block}.4", 2 * gf)}
        state |= {
            **conv(f"h_net{n}.upsample.1", 2 * gf, 2 * gf, 3),
            **norm(f"h_net{n}.upsample.2", 2 * gf),
        }
    for n in (1, 2, 3):
        state |= conv(f"img_net{n}.img.0", 3, gf, 3)
    return state


def normed(state, name, x):
    part = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *part)


def gated(x):
    half = x.shape[1] // 2
    return x[:, :half] * torch.sigmoid(x[:, half:])


def authors_up(state, name, x):
    x = F.conv2d(F.interpolate(x, scale_factor=2), state[f"{name}.1.weight"], padding=1)
    return gated(normed(state, f"{name}.2", x))


def authors_images(state, gf, r, sentence, words, z, eps):
    """What G_NET computes, written down from the paper for one caption (1, L, Dw) without
    padding."""
    mean, logvar = gated(
        F.linear(sentence, state["ca_net.fc.weight"], state["ca_net.fc.bias"])
    ).chunk(2, 1)
    condition = mean + eps * (logvar / 2).exp()
    h = gated(
        normed(state, "h_net1.fc.1", torch.cat([condition, z], 1) @ state["h_net1.fc.0.weight"].T)
    )
    h = h.view(-1, 16 * gf, 4, 4)
    for i in range(4):
        h = authors_up(state, f"h_net1.upsample{i + 1}", h)
    images = []
    for n in (1, 2, 3):
        if n > 1:
            e = words @ state[f"h_net{n}.att.conv_context.weight"][:, :, 0, 0].T
            attended = torch.softmax(torch.einsum("bchw,blc->bhwl", h, e), 3)
            x = torch.cat([h, torch.einsum("bhwl,blc->bchw", attended, e)], 1)
            for i in range(r):
                block = f"h_net{n}.residual.{i}.block"
                y = gated(
                    normed(state, f"{block}.1", F.conv2d(x, state[f"{block}.0.weight"], padding=1))
                )
                x = x + normed(
                    state, f"{block}.4", F.conv2d(y, state[f"{block}.3.weight"], padding=1)
                )
            h = authors_up(state, f"h_net{n}.upsample", x)
        images.append(torch.tanh(F.conv2d(h, state[f"img_net{n}.img.0.weight"], padding=1)))
    return images


def authors_discriminator(df, sentence, size):
    """D_NET64's, D_NET128's or D_NET256's state dict."""
    state = conv("img_code_s16.0", df, 3, 4)
    for i, (at, bn) in enumerate(((2, 3), (5, 6), (8, 9))):
        state |= {
            **conv(f"img_code_s16.{at}", df << (i + 1), df << i, 4),
            **norm(f"img_code_s16.{bn}", df << (i + 1)),
        }
    later = {64: [], 128: [("32", 16, 8, 4), ("32_1", 8, 16, 3)]}.get(
        size, [("32", 16, 8, 4), ("64", 32, 16, 4), ("64_1", 16, 32, 3), ("64_2", 8, 16, 3)]
    )
    for name, c_out, c_in, k in later:
        state |= {
            **conv(f"img_code_s{name}.0", c_out * df, c_in * df, k),
            **norm(f"img_code_s{name}.1", c_out * df),
        }
    joint = conv("COND_DNET.jointConv.0", 8 * df, 8 * df + sentence, 3)
    state |= {**joint, **norm("COND_DNET.jointConv.1", 8 * df)}
    for head in ("UNCOND_DNET", "COND_DNET"):
        state |= {
            **conv(f"{head}.outlogits.0", 1, 8 * df, 4),
            f"{head}.outlogits.0.bias": torch.randn(1),
        }
    return state


def authors_scores(state, images, sentence):
    """(unconditional, conditional) probabilities, as the authors' networks put them out."""

    def layer(x, name, bn, stride):
        x = F.conv2d(x, state[f"{name}.weight"], stride=stride, padding=1)
        return F.leaky_relu(normed(state, bn, x) if bn else x, 0.2)

    x = layer(images, "img_code_s16.0", None, 2)
    for at, bn in ((2, 3), (5, 6), (8, 9)):
        x = layer(x, f"img_code_s16.{at}", f"img_code_s16.{bn}", 2)
    for name in ("32", "64", "32_1", "64_1", "64_2"):
        if f"img_code_s{name}.0.weight" in state:
            x = layer(x, f"img_code_s{name}.0", f"img_code_s{name}.1", 1 if "_" in name else 2)
    told = torch.cat([x, sentence[:, :, None, None].repeat(1, 1, 4, 4)], 1)
    told = layer(told, "COND_DNET.jointConv.0", "COND_DNET.jointConv.1", 1)
    heads = (("UNCOND_DNET", x), ("COND_DNET", told))
    return [
        torch.sigmoid(
            F.conv2d(f, state[f"{h}.outlogits.0.weight"], state[f"{h}.outlogits.0.bias"], stride=4)
        ).view(-1)
        for h, f in heads
    ]


@pytest.fixture
def authors(tmp_path):
    """Files of the authors' three kinds, made up, for a network a sixteenth as wide; and the
    settings to go with it."""
    torch.manual_seed(0)
    state = authors_generator(2, 8, 8, 100, 100, 2)
    torch.save(state, tmp_path / "bird_AttnGAN2.pth")
    shapes = {
        "weight_ih_l0": (16, 6),
        "weight_hh_l0": (16, 4),
        "bias_ih_l0": (16,),
        "bias_hh_l0": (16,),
    }
    rnn = {
        f"rnn.{k}{s}": torch.randn(shape) for k, shape in shapes.items() for s in ("", "_reverse")
    }
    torch.save({"encoder.weight": torch.randn(4, 6), **rnn}, tmp_path / "text_encoder200.pth")
    words = {0: "<end>", 1: "red", 2: "bird", 3: "wing"}
    (tmp_path / "captions.pickle").write_bytes(pickle.dumps([[[1]], [[2]], words, {}], protocol=2))
    config = resolve_config(
        "attngan",
        preset="cub",
        sets=["gf=2", "encoder.embedding=6", "encoder.width=8"],
        data_needed=False,
    )
    return (
        state,
        config,
        [tmp_path / n for n in ("captions.pickle", "bird_AttnGAN2.pth", "text_encoder200.pth")],
    )


def test_the_authors_generator_draws_the_authors_images(authors, tmp_path):
    state, config, files = authors
    model = load_authors(config, files)
    model.generator.eval()
    noise = torch.randn(2, 200)
    with torch.no_grad():
        told = model.text_encoder.eval().encode(["A red bird, a red wing!", "bird"])
        drawn = model.generator.network(noise, told)
        for i, length in enumerate(
            (4, 1)
        ):  # one at a time, as theirs needs for captions of unlike lengths
            given = told.sentence[i : i + 1], told.words[i : i + 1, :length]
            images = authors_images(
                state, 2, 2, *given, noise[i : i + 1, :100], noise[i : i + 1, 100:]
            )
            for ours, theirs in zip(drawn.images, images, strict=True):
                torch.testing.assert_close(ours[i : i + 1], theirs, atol=1e-4, rtol=0)
    assert drawn.images[-1].std() > 0.05
    assert not model.text_encoder.trainable
    assert model.config.encoder.config.vocabulary == ("red", "bird", "wing")
    model.save(tmp_path / "model")
    again = load(tmp_path / "model", "cpu")
    assert [p.tobytes() for p in again.sample(["red wing"])] == [
        p.tobytes() for p in model.sample(["red wing"])
    ]


@pytest.mark.parametrize(("scale", "size"), [(0, 64), (1, 128), (2, 256)])
def test_the_authors_discriminators_give_the_authors_scores(scale, size):
    torch.manual_seed(0)
    state = authors_discriminator(2, 8, size)
    d = Discriminator(AttnGANConfig(image_size=256, df=2), scale, 8)
    ours = discriminator_state({f"module.{name}": tensor for name, tensor in state.items()})
    counters = {n: t for n, t in d.state_dict().items() if n.endswith("num_batches_tracked")}
    load_state(d, {**ours, **counters}, "netD")
    d.eval()
    images, sentence = torch.rand(3, 3, size, size) * 2 - 1, torch.randn(3, 8)
    with torch.no_grad():
        features = d(images)
        scores = d.unconditional(features).sigmoid(), d.conditional(features, sentence).sigmoid()
    for ours, theirs in zip(scores, authors_scores(state, images, sentence), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_files_that_are_missing_twice_there_or_misshapen_are_named(authors, tmp_path):
    state, config, files = authors
    captions, generator, encoder = files
    for left, what in (
        (files[1:], r"no vocabulary.*captions\*\.pickle"),
        (files[:2], "no text encoder"),
        (files[::2], "no gen"),
    ):
        with pytest.raises(UserError, match=what):
            load_authors(config, left)
    with pytest.raises(UserError, match="are each a text encoder: give one of them"):
        load_authors(config, [*files, encoder])
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(
        UserError, match=r"other\.pth is none of the files that are imported: generator \("
    ):
        load_authors(config, [*files, tmp_path / "other.pth"])
    broken = {n: t for n, t in state.items() if n != "img_net3.img.0.weight"} | {
        "h_net9.x": torch.zeros(1)
    }
    torch.save(broken | {"ca_net.fc.bias": torch.zeros(1)}, generator)
    with pytest.raises(UserError) as caught:
        load_authors(config, files)
    assert (
        "to_rgb.2.weight is missing; h_net9.x is surplus; augment.linear.bias is (1,), not (400,)"
        in str(caught.value)
    )
    captions.write_bytes(pickle.dumps([[], [], {0: "<end>", 1: "red"}, {}], protocol=2))
    with pytest.raises(UserError, match="vectors of 4 words, the vocabulary has 2"):
        load_authors(config, files)


# --- training -------------------------------------------------------------------------------------


def batch(encoder, n=4, step=5, **extras):
    images = torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(step)) * 2 - 1
    captions = tuple("abcdefgh"[: i + 1] for i in range(n))
    return Batch(images, captions, captions, StepNoise(0, step, 0, n, n), encoder.encode, extras)


def networks(config, encoder):
    """A new model's."""
    return Networks(build(config, TEXT, None), encoder, helpers(config, TEXT, True))


@pytest.fixture
def trainer():
    torch.manual_seed(0)
    encoder = Letters()
    made = GANTrainer(SMALL, networks(SMALL, encoder))
    made.encoder = encoder
    return made


def says(logits, real):
    p = torch.sigmoid(logits)
    return -(p if real else 1 - p).log().mean()


def test_discriminator_loss_term_by_term_with_neighbours_as_wrong_pairs():
    """(real_u + real)/2 + (fake_u + fake + wrong)/3, the wrong pairs being B - 1, without
    wrap-around."""
    torch.manual_seed(0)
    d = settled(Discriminator(SMALL, 0, 8))
    real, fake, e = torch.randn(3, 3, 8, 8), torch.randn(3, 3, 8, 8), torch.randn(3, 8)
    x, y = d(real), d(fake)
    wrong = torch.cat([d.conditional(x[:1], e[1:2]), d.conditional(x[1:2], e[2:3])])
    loss = (says(d.unconditional(x), True) + says(d.conditional(x, e), True)) / 2
    loss = (
        loss
        + (says(d.unconditional(y), False) + says(d.conditional(y, e), False) + says(wrong, False))
        / 3
    )
    ours = discriminator_loss(d, real, fake, e)
    torch.testing.assert_close(ours, loss)
    given = [p for p in d.parameters() if p.requires_grad]
    for a, b in zip(
        torch.autograd.grad(ours, given), torch.autograd.grad(loss, given), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(
        generator_loss(d, fake, e), says(d.unconditional(y), True) + says(d.conditional(y, e), True)
    )


def test_losses_of_a_step_are_the_papers(trainer):
    """Worked out anew: each D on its own scale, then sum_i L_Gi + lambda L_DAMSM + KL through G."""
    made, engine = (
        batch(trainer.encoder, class_id=torch.tensor([1, 2, 1, 3])),
        Recorder(trainer),
    )
    told = made.text.detach()
    drawn = trainer.network(made.noise.normal("z", 0, (8,)), told)
    losses = trainer.step(made, engine)
    total = kl_loss(drawn.mean, drawn.logvar)
    for i, d in enumerate(trainer.discriminators):
        real = F.avg_pool2d(made.images, 4 >> i)
        assert shrunk(made.images, 8 << i).shape == real.shape
        expected = discriminator_loss(
            d, shrunk(made.images, 8 << i), drawn.images[i].detach(), told.sentence
        )
        assert engine.losses[f"discriminator{i}"].item() == pytest.approx(expected.item(), rel=1e-4)
        total = total + generator_loss(d, drawn.images[i], told.sentence)
    seen = trainer.image_encoder(drawn.images[-1])
    total = total + 5 * sum(
        damsm_losses(seen, told, SMALL.damsm.smoothing, torch.tensor([1, 2, 1, 3]))
    )
    assert engine.losses["generator"].item() == pytest.approx(total.item(), rel=1e-4)
    expected = torch.autograd.grad(total, list(trainer.network.parameters()))
    for ours, theirs in zip(engine.gradients["generator"], expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-4)
    names = {"discriminator0", "discriminator1", "discriminator2", "adversarial", "kl", "damsm"}
    assert set(losses) == names


def test_real_images_shrink_as_photographs_do():
    """Antialiased: a checkerboard of single pixels turns grey, not black or white."""
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(8, 8).expand(1, 3, 16, 16)
    assert shrunk(board, 8)[..., 1:-1, 1:-1].abs().max() < 1e-6
    assert shrunk(board, 16) is board


def test_a_step_wastes_nothing(trainer):
    """G once; each D on real, fake and again on fake; the image encoder on the largest fake image
    alone; no gradient into anything that is not being updated."""
    calls = dict.fromkeys([*trainer.modules, "images"], 0)
    for name, module in [*trainer.modules.items(), ("images", trainer.image_encoder)]:
        module.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    trainer.step(batch(trainer.encoder), Recorder(trainer))
    assert calls == {
        "network": 1,
        "discriminator0": 3,
        "discriminator1": 3,
        "discriminator2": 3,
        "images": 1,
    }
    modules = [*trainer.modules.values(), trainer.image_encoder, trainer.encoder]
    assert all(p.grad is None for module in modules for p in module.parameters())


def test_both_players_move_and_damsm_stays(trainer):
    modules = {**trainer.modules, "images": trainer.image_encoder, "text": trainer.encoder}
    before = {name: [p.clone() for p in module.parameters()] for name, module in modules.items()}
    trainer.step(batch(trainer.encoder), Recorder(trainer, move=True))
    moved = {
        n
        for n, m in modules.items()
        if any(not p.equal(q) for p, q in zip(m.parameters(), before[n], strict=True))
    }
    assert moved == set(trainer.modules)


def test_without_an_image_encoder_or_weight_there_is_no_damsm_loss():
    for update in ({"damsm_weight": 0.0}, {"image_encoder": {"kind": "none"}}):
        config = AttnGANConfig(**{**TINY, **update})
        made = GANTrainer(config, networks(config, Letters()))
        assert "damsm" not in made.step(batch(Letters()), Recorder(made))


def test_optimizers_are_the_papers_by_default():
    config = AttnGANConfig(image_size=32, gf=2, df=2, image_encoder={"kind": "none"})
    made = GANTrainer(config, networks(config, Letters()))
    settings = {(o.defaults["lr"], o.defaults["betas"]) for o in made.optimizers.values()}
    assert settings == {(2e-4, (0.5, 0.999))}
    assert set(made.optimizers) == {
        "generator",
        "discriminator0",
        "discriminator1",
        "discriminator2",
    }


def test_statistics_are_measured_anew_with_the_averaged_weights(trainer):
    trainer.config = SMALL.model_copy(update={"recalibrate": 2})
    settled(trainer.network)
    given, seen = iter([batch(trainer.encoder, step=1), batch(trainer.encoder, step=2)]), []
    trainer.network.first.linear.register_forward_hook(
        lambda module, x, output: seen.append(output)
    )
    with torch.no_grad():
        trainer.finish(lambda: next(given))
    norm = trainer.network.first.norm
    torch.testing.assert_close(norm.running_mean, (seen[0].mean(0) + seen[1].mean(0)) / 2)
    torch.testing.assert_close(norm.running_var, (seen[0].var(0) + seen[1].var(0)) / 2)
    assert not norm.training
    assert norm.momentum == 0.1
    trainer.config = SMALL
    trainer.finish(lambda: pytest.fail("nothing to measure"))


def test_damsm_comes_first_and_is_frozen_then():
    made = networks(SMALL, Letters(frozen=False))
    both = stages(SMALL, made.text_encoder)
    assert [(stage.name, stage.settings) for stage in both] == [
        ("damsm", {"batch_size": 48}),
        ("gan", {}),
    ]
    assert both[0].share == pytest.approx(SMALL.damsm_share)
    first, second = (stage.trainer(made) for stage in both)
    assert isinstance(first, DamsmTrainer)
    trained = [
        {p for o in optimizations(t).values() for p in o.parameters} for t in (first, second)
    ]
    assert not trained[0] & trained[1]
    assert {
        *made.text_encoder.parameters(),
        *made.helpers["image_encoder"].parameters(),
    } == trained[0]
    assert trained[1] >= {*made.generator.parameters()}


def test_what_is_there_already_is_not_trained():
    done = AttnGANConfig(image_encoder={"weights": "image_encoder200.pth"})
    assert [stage.name for stage in stages(done, Letters())] == ["gan"]
    assert [stage.name for stage in stages(done, Letters(frozen=False))] == ["damsm", "gan"]
    assert [s.name for s in stages(AttnGANConfig(image_encoder={"kind": "none"}), Letters())] == [
        "gan"
    ]
    assert [s.name for s in stages(AttnGANConfig(image_encoder={"inception": "x"}), Letters())] == [
        "damsm",
        "gan",
    ]
    with pytest.raises(
        UserError, match=r"model 'attngan': DAMSM's image encoder needs Inception-v3: give --set"
    ):
        stages(AttnGANConfig(), Letters(frozen=False))


# --- registration and the whole path --------------------------------------------------------------


def test_is_registered_with_its_presets():
    spec = registry().models["attngan"]
    config = resolve_config("attngan")
    assert (config.preset, config.data.name, config.encoder.name, config.sampler.name) == (
        "tiny", "shapes", "words", "direct",
    )  # fmt: skip
    presets = {"tiny", "cub", "coco", "shapes"}
    assert set(import_object(spec.config).presets()) == set(spec.presets) == presets


def test_presets_are_the_papers():
    cub, coco = (
        resolve_config("attngan", preset=name, data_needed=False) for name in ("cub", "coco")
    )
    for run, values in ((cub, (32, 64, 2, 20, 5.0)), (coco, (48, 96, 3, 14, 50.0))):
        s = run.settings
        assert (s.gf, s.df, s.residual_blocks, s.batch_size, s.damsm_weight) == values
        assert (s.image_size, s.z_dim, s.c_dim, s.lr_g, s.lr_d, s.ema_decay) == (
            256,
            100,
            100,
            2e-4,
            2e-4,
            0.999,
        )
        assert (s.augment.scale, s.augment.flip) == (76 / 64, True)
        assert not s.standardise
        assert not s.recalibrate
        assert s.image_encoder.kind == "inception"
    assert (cub.encoder.config.max_words, coco.encoder.config.max_words) == (18, 15)


def short(*sets):
    """With the paper's text encoder, which `tiny` has not."""
    return resolve_config(
        "attngan",
        sets=[
            "steps=6", "damsm_share=0.5", "damsm.batch_size=4", "batch_size=4", "gf=2", "df=2",
            "image_encoder.width=4",
            "encoder.name=damsm", "encoder.embedding=8", "encoder.width=8", "checkpoint_every=1",
            "keep=9",
            "recalibrate=2", *sets,
        ],
    )  # fmt: skip


def test_trains_saves_draws_and_resumes_to_the_same_weights(tmp_path):
    whole = train(short(), tmp_path / "run", reporter=Silent())
    assert [(stage["name"], stage["steps"]) for stage in whole.summary()["stages"]] == [
        ("damsm", 3),
        ("gan", 3),
    ]
    model = load(whole.path, "cpu")
    captions = ["a large red star on the left", ""]
    together, alone = (model.sample(captions, n=2, seed=1, batch_size=size) for size in (4, 1))
    assert [image.size for image in together] == [(32, 32)] * 4
    for a, b in zip(together, alone, strict=True):
        assert np.abs(np.asarray(a).astype(int) - np.asarray(b)).max() <= 1
    # Killed within the first stage, between the two, and within the second: DAMSM's image encoder
    # must be the same.
    for step in (2, 3, 5):
        part = stopped_at(whole, step, tmp_path / f"part{step}")
        resume(part.path, reporter=Silent())
        for name in ("generator", "text_encoder"):
            ours, theirs = (
                load_tensors(run.model / f"{name}.safetensors", "model") for run in (part, whole)
            )
            assert not any("image_encoder" in key for key in ours)  # it takes no part in drawing
            assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
        ours, theirs = (
            load_tensors(run.checkpoints / "step-6" / "modules.helpers.safetensors", "x")
            for run in (part, whole)
        )
        assert ours
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
