"""DM-GAN: the authors' geometry, the dynamic memory slot by slot, the authors' networks by their
own names, one step's mathematics and economy."""

import pickle

import pytest
import torch
from torch.nn import functional as F

from t2i import load
from t2i.core.engine import resume, train
from t2i.core.engine.reporting import Silent
from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextShape
from t2i.core.interfaces.trainer import Networks
from t2i.core.io.tensors import load_tensors
from t2i.core.models.weights import load_state
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from t2i.plugins.common.gan.conditioning.augmentation import kl_loss
from t2i.plugins.common.gan.trees.discriminator import Discriminator
from t2i.plugins.common.gan.trees.matching import discriminator_loss, helpers
from t2i.plugins.common.gan.trees.training import generator_loss
from t2i.plugins.common.gan.trees.weights import discriminator_state
from t2i.plugins.common.text.damsm import damsm_losses
from t2i.plugins.models.dmgan import weights
from t2i.plugins.models.dmgan.config import DMGANConfig
from t2i.plugins.models.dmgan.networks import Memory, NextStage, build
from t2i.plugins.models.dmgan.training import GANTrainer, stages
from tests.plugins.models import trees
from tests.stopped import stopped_at

TINY = {
    "image_size": 32, "gf": 4, "df": 4, "residual_blocks": 1, "z_dim": 5, "c_dim": 3,
    "batch_size": 4, "image_encoder": {"kind": "small", "width": 4},
}  # fmt: skip
SMALL = DMGANConfig(**TINY)


def count(module):
    return sum(p.numel() for p in module.parameters())


def shaken(module, seed=0):
    """With weights and statistics that are all different and all matter."""
    shapes = {n: t.shape for n, t in module.state_dict().items() if t.is_floating_point()}
    drawn = trees.random_tensors(shapes, seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name in drawn:
                tensor.copy_(drawn[name])
    return module.eval()


# --- networks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("preset", "generator"), [("cub", 21_449_042), ("coco", 22_335_314)])
def test_parameters_are_those_of_the_authors_modules(preset, generator):
    config = resolve_config("dmgan", preset=preset, data_needed=False).settings
    with torch.device("meta"):
        made = build(config, TextShape(256, 256), None)
        judges = [Discriminator(config, i, 256, "spectral") for i in range(3)]
    assert count(made.network) == generator
    assert [count(d) for d in judges] == [1_878_242, 5_155_810, 18_264_546]
    assert config.sizes == [64, 128, 256]


def test_memory_slot_by_slot_and_each_caption_with_its_own_mask():
    """The authors repeat their mask in the wrong order, so that an image is masked as another
    one."""
    memory = shaken(Memory(4, 6)).double()
    h, words = torch.randn(3, 4, 2, 2).double(), torch.randn(3, 5, 6).double()
    lengths = [5, 2, 3]
    refined = memory(h, words, torch.arange(5) < torch.tensor(lengths)[:, None])
    w = {name: tensor.detach() for name, tensor in memory.named_parameters()}
    for b, length in enumerate(lengths):
        m, slots = h[b].mean((1, 2)), []
        for word in words[b, :length]:
            g = torch.sigmoid(w["gate_word.weight"] @ word + w["gate_image.weight"] @ m)
            write_word = (w["write_word.weight"] @ word + w["write_word.bias"]).relu()
            write_image = (w["write_image.weight"] @ m + w["write_image.bias"]).relu()
            slots.append(g * write_word + (1 - g) * write_image)
        keys, values = (
            torch.stack([(w[f"{name}.weight"] @ s + w[f"{name}.bias"]).relu() for s in slots])
            for name in ("key", "value")
        )
        for place in ((0, 0), (0, 1), (1, 1)):
            q = h[b, :, *place]
            o = torch.softmax(keys @ q, 0) @ values
            r = w["response.weight"][0, :, 0, 0] @ torch.cat([q, o]) + w["response.bias"]
            r = torch.sigmoid(r)
            torch.testing.assert_close(refined[b, :, *place], (1 - r) * q + r * o)


def test_no_gradient_reaches_the_image_through_what_is_written():
    memory = shaken(Memory(4, 6))
    h = torch.randn(2, 4, 2, 2, requires_grad=True)
    written = memory.write(h, torch.randn(2, 3, 6))
    assert written.shape == (2, 3, 8)
    assert written.requires_grad
    assert torch.autograd.grad(written.sum(), h, allow_unused=True) == (None,)


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_the_same_features_twice_cost_half_a_convolution_and_give_the_same(blocks):
    config = DMGANConfig(**{**TINY, "residual_blocks": blocks})
    stage, h, told = shaken(NextStage(config, 6)).double(), torch.randn(2, 4, 8, 8), trees.text(2)
    told = type(told)(told.sentence.double(), told.words.double(), told.mask, told.captions)
    stage.train()
    refined = stage.memory(h.double(), told.words, told.mask)
    plain = stage.up(stage.residual(torch.cat([refined, refined], 1)))
    ours = stage(h.double(), torch.zeros(2, 3), told)
    torch.testing.assert_close(ours, plain)
    given = [p for n, p in stage.named_parameters() if n.startswith(("residual", "up"))]
    weight = torch.randn_like(plain)
    torch.testing.assert_close(
        torch.autograd.grad((weight * ours).sum(), given),
        torch.autograd.grad((weight * plain).sum(), given),
    )


def test_images_depend_on_noise_sentence_and_words_but_not_on_padding_or_the_rest_of_the_batch():
    generator, noise, told = (
        shaken(build(SMALL, trees.TEXT, None)),
        torch.randn(2, 8),
        trees.text(2),
    )
    images, other = generator(noise, told), trees.text(2, seed=9)
    others = [
        (noise.index_add(1, torch.tensor([0]), torch.ones(2, 1)), told),  # z
        (noise.index_add(1, torch.tensor([7]), torch.ones(2, 1)), told),  # eps
        (noise, type(told)(other.sentence, told.words, told.mask)),
        (noise, type(told)(told.sentence, other.words, told.mask)),
    ]
    assert not any(torch.allclose(generator(*given), images, atol=1e-4) for given in others)
    torch.testing.assert_close(generator(noise, told.padded(9)), images, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(generator(noise[:1], told[:1]), images[:1], atol=1e-4, rtol=1e-4)


# --- the authors' files ---------------------------------------------------------------------------


def authors_shapes(gf, words, r):
    shapes = trees.first_shapes(gf, 8, 100, 100)
    for n in (2, 3):
        net = f"h_net{n}"
        shapes |= {f"{net}.A.weight": (1, words), f"{net}.B.weight": (1, gf)}
        parts = {
            "M_r": (2 * gf, gf),
            "M_w": (2 * gf, words),
            "key": (gf, 2 * gf),
            "value": (gf, 2 * gf),
        }
        for name, (c_out, c_in) in parts.items():
            shapes |= {f"{net}.{name}.0.weight": (c_out, c_in, 1), f"{net}.{name}.0.bias": (c_out,)}
        shapes |= {
            f"{net}.response_gate.0.weight": (1, 2 * gf, 1, 1),
            f"{net}.response_gate.0.bias": (1,),
        }
        for i in range(r):
            shapes |= trees.residual_shapes(f"{net}.residual.{i}", 2 * gf)
        shapes |= trees.up_shapes(f"{net}.upsample", 2 * gf, gf)
    return shapes | {f"img_net{n}.img.0.weight": (3, gf, 3, 3) for n in (1, 2, 3)}


def authors_images(state, sentence, words, z, eps):
    """Of one caption (1, L, Dw) without padding."""
    c, _ = trees.condition(state, sentence, eps)
    h = trees.first(state, c, z)
    images, w = [trees.rgb(state, 1, h)], words.transpose(1, 2)

    def pointwise(name, x):
        return F.conv1d(x, state[f"{name}.0.weight"], state[f"{name}.0.bias"]).relu()

    for n in (2, 3):
        net, m = f"h_net{n}", h.mean((2, 3))[..., None]
        g = torch.sigmoid(state[f"{net}.A.weight"] @ w + state[f"{net}.B.weight"] @ m)
        slots = pointwise(f"{net}.M_w", w) * g + pointwise(f"{net}.M_r", m) * (1 - g)
        keys, values = pointwise(f"{net}.key", slots), pointwise(f"{net}.value", slots)
        attended = torch.einsum("bchw,bcl->bhwl", h, keys).softmax(3)
        o = torch.einsum("bhwl,bcl->bchw", attended, values)
        r = torch.sigmoid(trees.conv(state, f"{net}.response_gate.0", torch.cat([h, o], 1)))
        h = (1 - r) * h + r * o
        h = trees.residual(state, f"{net}.residual", torch.cat([h, h], 1))
        h = trees.up(state, f"{net}.upsample", h)
        images.append(trees.rgb(state, n, h))
    return images


@pytest.fixture
def authors(tmp_path):
    """Files of the authors' three kinds, made up, for a narrow network; and its settings."""
    torch.manual_seed(0)
    state = trees.random_tensors(authors_shapes(2, 8, 2))
    torch.save(state, tmp_path / "bird_DMGAN.pth")
    shapes = {
        "weight_ih_l0": (16, 6),
        "weight_hh_l0": (16, 4),
        "bias_ih_l0": (16,),
        "bias_hh_l0": (16,),
    }
    rnn = {f"rnn.{k}{s}": torch.randn(n) for k, n in shapes.items() for s in ("", "_reverse")}
    torch.save({"encoder.weight": torch.randn(4, 6), **rnn}, tmp_path / "text_encoder200.pth")
    words = {0: "<end>", 1: "red", 2: "bird", 3: "wing"}
    (tmp_path / "captions.pickle").write_bytes(pickle.dumps([[[1]], [[2]], words, {}], protocol=2))
    sets = ["gf=2", "encoder.embedding=6", "encoder.width=8"]
    config = resolve_config("dmgan", preset="cub", sets=sets, data_needed=False)
    names = ("captions.pickle", "bird_DMGAN.pth", "text_encoder200.pth")
    return state, config, [tmp_path / name for name in names]


def test_the_authors_generator_draws_the_authors_images(authors, tmp_path):
    state, config, files = authors
    model = weights.load(config, files)
    model.generator.eval()
    noise = torch.randn(2, 200)
    with torch.no_grad():
        told = model.text_encoder.eval().encode(["A red bird, a red wing!", "bird"])
        drawn = model.generator.network(noise, told)
        for i, length in enumerate((4, 1)):
            row = slice(i, i + 1)
            given = told.sentence[row], told.words[row, :length], noise[row, :100], noise[row, 100:]
            for ours, theirs in zip(drawn.images, authors_images(state, *given), strict=True):
                torch.testing.assert_close(ours[row], theirs, atol=1e-4, rtol=0)
    assert drawn.images[-1].std() > 0.05
    assert model.config.encoder.config.vocabulary == ("red", "bird", "wing")
    model.save(tmp_path / "model")
    again = load(tmp_path / "model", "cpu")
    assert [p.tobytes() for p in again.sample(["red wing"])] == [
        p.tobytes() for p in model.sample(["red wing"])
    ]


def test_files_that_are_missing_or_misshapen_are_named(authors):
    state, config, files = authors
    with pytest.raises(UserError, match=r"dmgan: no generator.*bird_DMGAN\.pth"):
        weights.load(config, files[::2])
    broken = {n: t for n, t in state.items() if n != "h_net3.A.weight"}
    torch.save({**broken, "h_net2.key.0.bias": torch.zeros(1)}, files[1])
    with pytest.raises(UserError) as caught:
        weights.load(config, files)
    assert "next.1.memory.gate_word.weight is missing" in str(caught.value)
    assert "next.0.memory.key.bias is (1,), not (2,)" in str(caught.value)


@pytest.mark.parametrize(("scale", "size"), [(0, 64), (1, 128), (2, 256)])
@pytest.mark.parametrize("training", [False, True])
def test_the_authors_discriminators_give_the_authors_scores(scale, size, training):
    """Each call moves the spectral norms by one iteration, in evaluation mode too."""
    df, width = 2, 8
    layers = [("img_code_s16.0", df, 3, 4)]
    layers += [(f"img_code_s16.{2 * i}", df << i, df << (i - 1), 4) for i in (1, 2, 3)]
    later = [[], [("32", 16, 8, 4), ("32_1", 8, 16, 3)],
             [("32", 16, 8, 4), ("64", 32, 16, 4), ("64_1", 16, 32, 3), ("64_2", 8, 16, 3)]]  # fmt: skip  # noqa: E501
    layers += [(f"img_code_s{n}.0", o * df, i * df, k) for n, o, i, k in later[scale]]
    joint = ("COND_DNET.jointConv.0", 8 * df, 8 * df + width, 3)
    shapes = {}
    for name, c_out, c_in, k in (*layers, joint):
        shapes |= {
            f"{name}.module.bias": (c_out,), f"{name}.module.weight_u": (c_out,),
            f"{name}.module.weight_v": (c_in * k * k,),
            f"{name}.module.weight_bar": (c_out, c_in, k, k),
        }  # fmt: skip
    for head in ("COND_DNET", "UNCOND_DNET"):
        shapes |= {
            f"{head}.outlogits.0.weight": (1, 8 * df, 4, 4),
            f"{head}.outlogits.0.bias": (1,),
        }
    state = trees.random_tensors(shapes)
    d = Discriminator(DMGANConfig(image_size=256, df=df), scale, width, "spectral").train(training)
    load_state(d, discriminator_state(state, spectral=True), "netD")

    def layer(name, k, x):
        w, u = state[f"{name}.module.weight_bar"], state[f"{name}.module.weight_u"]
        v = w.flatten(1).T @ u
        v = v / (v.norm() + 1e-12)
        u = w.flatten(1) @ v
        u = state[f"{name}.module.weight_u"] = u / (u.norm() + 1e-12)
        weight, bias = w / (u @ w.flatten(1) @ v), state[f"{name}.module.bias"]
        return F.leaky_relu(F.conv2d(x, weight, bias, stride=k - 2, padding=1), 0.2)

    x, e = torch.rand(3, 3, size, size) * 2 - 1, torch.randn(3, width)
    with torch.no_grad():
        for _ in range(2):
            features = d(x)
            ours = d.conditional(features, e), d.unconditional(features)
            h = x
            for name, _, _, k in layers:
                h = layer(name, k, h)
            both = layer(joint[0], 3, torch.cat([h, e[..., None, None].repeat(1, 1, 4, 4)], 1))
            pairs = ((both, "COND_DNET"), (h, "UNCOND_DNET"))
            for a, (b, head) in zip(ours, pairs, strict=True):
                theirs = trees.conv(state, f"{head}.outlogits.0", b).flatten()
                torch.testing.assert_close(a, theirs, atol=1e-4, rtol=1e-4)


# --- training -------------------------------------------------------------------------------------


@pytest.fixture
def trainer():
    torch.manual_seed(0)
    encoder = trees.Letters()
    networks = Networks(build(SMALL, trees.TEXT, None), encoder, helpers(SMALL, trees.TEXT, True))
    made = GANTrainer(SMALL, networks)
    made.encoder = encoder
    return made


def test_losses_of_a_step_are_the_authors(trainer):
    made, engine = trees.batch(trainer.encoder), trees.Recorder(trainer)
    told = made.text.detach()
    before = {
        name: t.clone()
        for d in trainer.modules
        for name, t in trainer.modules[d].state_dict(prefix=f"{d}.").items()
    }
    losses = trainer.step(made, engine)
    for name, module in trainer.modules.items():
        module.load_state_dict({k: before[f"{name}.{k}"] for k in module.state_dict()})
    drawn = trainer.network(made.noise.normal("z", 0, (8,)), told)
    total = kl_loss(drawn.mean, drawn.logvar)
    for i, d in enumerate(trainer.discriminators):
        real = F.interpolate(made.images, size=(8 << i,) * 2, mode="bilinear", antialias=True)
        real = made.images if i == 2 else real
        expected = discriminator_loss(d, real, drawn.images[i].detach(), told.sentence)
        assert engine.losses[f"discriminator{i}"].item() == pytest.approx(expected.item(), rel=1e-4)
        total = total + generator_loss(d, drawn.images[i], told.sentence)
    seen = trainer.image_encoder(drawn.images[-1])
    total = total + 5 * sum(damsm_losses(seen, told, SMALL.damsm.smoothing))
    assert engine.losses["generator"].item() == pytest.approx(total.item(), rel=1e-4)
    names = {"discriminator0", "discriminator1", "discriminator2", "adversarial", "kl", "damsm"}
    assert set(losses) == names


def test_a_step_wastes_nothing(trainer):
    """G once; each D on real, fake and again on fake; no gradient into what is not updated."""
    calls = dict.fromkeys([*trainer.modules, "images"], 0)
    for name, module in [*trainer.modules.items(), ("images", trainer.image_encoder)]:
        module.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    trainer.step(trees.batch(trainer.encoder), trees.Recorder(trainer))
    assert calls == {
        "network": 1,
        "discriminator0": 3,
        "discriminator1": 3,
        "discriminator2": 3,
        "images": 1,
    }
    modules = [*trainer.modules.values(), trainer.image_encoder, trainer.encoder]
    assert all(p.grad is None for module in modules for p in module.parameters())


def test_damsm_comes_first():
    assert [s.name for s in stages(SMALL, trees.Letters(frozen=False))] == ["damsm", "gan"]
    done = SMALL.model_copy(
        update={"image_encoder": SMALL.image_encoder.model_copy(update={"kind": "none"})}
    )
    assert [s.name for s in stages(done, trees.Letters())] == ["gan"]
    with pytest.raises(UserError, match=r"model 'dmgan': DAMSM's image encoder needs Inception-v3"):
        stages(DMGANConfig(), trees.Letters(frozen=False))


# --- registration and the whole path --------------------------------------------------------------


def test_presets_are_the_authors():
    spec = registry().models["dmgan"]
    assert set(import_object(spec.config).presets()) == set(spec.presets)
    for name, values in (("cub", (64, 32, 2, 10, 5.0, 18)), ("coco", (64, 32, 3, 16, 50.0, 12))):
        run = resolve_config("dmgan", preset=name, data_needed=False)
        s, limit = run.settings, run.encoder.config.max_words
        given = (s.gf, s.df, s.residual_blocks, s.batch_size, s.damsm_weight, limit)
        assert given == values
        assert (s.lr_g, s.lr_d, s.beta1, s.ema_decay, s.kl) == (2e-4, 2e-4, 0.5, 0.999, 1.0)
        assert not s.standardise
        assert not s.recalibrate


def test_trains_saves_draws_and_resumes_to_the_same_weights(small, tmp_path):
    """Spectral norm's vectors are a part of a checkpoint."""
    sets = small("dmgan", "steps=6", "damsm_share=0.34")
    whole = train(resolve_config("dmgan", sets=sets), tmp_path / "run", reporter=Silent())
    model = load(whole.path, "cpu")
    assert [image.size for image in model.sample(["a red star"], n=2)] == [(32, 32)] * 2
    part = stopped_at(whole, 4, tmp_path / "part")
    resume(part.path, reporter=Silent())
    ours, theirs = (load_tensors(r.model / "generator.safetensors", "x") for r in (part, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
