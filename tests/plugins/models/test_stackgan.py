"""StackGAN: the authors' geometry, networks and losses, worked out anew, and one step's economy."""

import math
from itertools import pairwise

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from t2i.core.errors import Interrupted, UserError
from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape
from t2i.core.interfaces.trainer import Batch, Networks
from t2i.core.io.tensors import load_tensors
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from t2i.core.runs.folder import Run
from t2i.plugins.common.gan.losses.cross_entropy import (
    cross_entropy,
    discriminator_of_pairs_and_images,
    matching_aware_discriminator_loss,
)
from t2i.plugins.models.stackgan import weights
from t2i.plugins.models.stackgan.config import StackGANConfig
from t2i.plugins.models.stackgan.networks import (
    ConditionalHead,
    Discriminator,
    UnconditionalHead,
    build,
)
from t2i.plugins.models.stackgan.training import FirstTrainer, SecondTrainer, stages
from tests.plugins.models.stand_ins import Recorder

SETTINGS = {
    "image_size": 32, "upscale": 2, "gf": 8, "df": 4, "z_dim": 5, "c_dim": 6, "residuals": 2,
    "batch_size": 4,
    "lr_g": 1e-3, "lr_d": 1e-3,
}  # fmt: skip
SMALL = StackGANConfig(**SETTINGS)
ALONE = StackGANConfig(**SETTINGS | {"stages": 1, "image_size": 16})
TEXT = TextShape(7, 7)


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def text(n, seed=0):
    return TextFeatures.of(
        sentence=torch.randn(n, TEXT.sentence, generator=torch.Generator().manual_seed(seed))
    )


def preset(name):
    return StackGANConfig.of(StackGANConfig.presets()[name].settings, name)


def shaken(module, seed=0):
    """The network with weights and statistics that are all different and all matter."""
    draw = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            value = torch.randn(tensor.shape, generator=draw) * 0.2
            tensor.copy_(
                value.abs() + 0.5
                if tensor.dim() == 1 and "bias" not in name and "mean" not in name
                else value
            )
    return module


# --- the authors' networks, written down as functions of their state dicts ------------------------


def norm(state, name, x, train=False):
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    if train:
        axes = [0, *range(2, x.dim())]
        mean, var = x.mean(axes), x.var(axes, unbiased=False)
    shape = (1, -1, *[1] * (x.dim() - 2))
    x = (x - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt()
    return x * state[f"{name}.weight"].view(shape) + state[f"{name}.bias"].view(shape)


def upsampled(state, x):
    n = 1
    while f"upsample{n}.1.weight" in state:
        x = F.conv2d(
            x.repeat_interleave(2, 2).repeat_interleave(2, 3),
            state[f"upsample{n}.1.weight"],
            padding=1,
        )
        x = norm(state, f"upsample{n}.2", x).relu()
        n += 1
    return torch.tanh(F.conv2d(x, state["img.0.weight"], padding=1))


def augmented(state, e, eps):
    both = (e @ state["ca_net.fc.weight"].T + state["ca_net.fc.bias"]).relu()
    mu, logvar = both[:, : eps.shape[1]], both[:, eps.shape[1] :]
    return mu + eps * (logvar / 2).exp()


def authors_first(state, e, z, eps):
    h = torch.cat([z, augmented(state, e, eps)], 1) @ state["fc.0.weight"].T
    return upsampled(state, norm(state, "fc.1", h).relu().view(len(z), -1, 4, 4))


def authors_second(state, e, z, eps0, eps):
    inner = {
        name.removeprefix("STAGE1_G."): value
        for name, value in state.items()
        if name.startswith("STAGE1_G.")
    }
    h = F.conv2d(authors_first(inner, e, z, eps0), state["encoder.0.weight"], padding=1).relu()
    for conv in (2, 5):
        h = F.conv2d(h, state[f"encoder.{conv}.weight"], stride=2, padding=1)
        h = norm(state, f"encoder.{conv + 1}", h).relu()
    c = augmented(state, e, eps)[:, :, None, None].repeat(1, 1, *h.shape[2:])
    h = norm(
        state, "hr_joint.1", F.conv2d(torch.cat([h, c], 1), state["hr_joint.0.weight"], padding=1)
    ).relu()
    n = 0
    while f"residual.{n}.block.0.weight" in state:
        r = norm(
            state,
            f"residual.{n}.block.1",
            F.conv2d(h, state[f"residual.{n}.block.0.weight"], padding=1),
        ).relu()
        r = norm(
            state,
            f"residual.{n}.block.4",
            F.conv2d(r, state[f"residual.{n}.block.3.weight"], padding=1),
        )
        h, n = (h + r).relu(), n + 1
    return upsampled(state, h)


def normed(prefix, width):
    shapes = {
        f"{prefix}.{name}": (width,) for name in ("weight", "bias", "running_mean", "running_var")
    }
    return shapes | {f"{prefix}.num_batches_tracked": ()}


def ca_shapes():
    return {"ca_net.fc.weight": (12, 7), "ca_net.fc.bias": (12,)}


def up_shapes(widths):
    shapes = {"img.0.weight": (3, widths[-1], 3, 3)}
    for n, (c_in, c_out) in enumerate(pairwise(widths), 1):
        shapes |= {f"upsample{n}.1.weight": (c_out, c_in, 3, 3), **normed(f"upsample{n}.2", c_out)}
    return shapes


def first_shapes(*more):
    return (
        ca_shapes()
        | {"fc.0.weight": (1024, 11)}
        | normed("fc.1", 1024)
        | up_shapes([64, 32, 16, *more])
    )


def second_shapes():
    shapes = ca_shapes() | {"encoder.0.weight": (8, 3, 3, 3), "hr_joint.0.weight": (32, 38, 3, 3)}
    shapes |= normed("hr_joint.1", 32) | up_shapes([32, 16, 8, 4])
    for conv, width in ((2, 16), (5, 32)):
        shapes |= {
            f"encoder.{conv}.weight": (width, width // 2, 4, 4),
            **normed(f"encoder.{conv + 1}", width),
        }
    for block in ("residual.0.block", "residual.1.block"):
        for conv in (0, 3):
            shapes |= {
                f"{block}.{conv}.weight": (32, 32, 3, 3),
                **normed(f"{block}.{conv + 1}", 32),
            }
    return shapes | {f"STAGE1_G.{name}": shape for name, shape in first_shapes().items()}


def authors_state(shapes, seed=0):
    draw = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=draw) * 0.2
        state[name] = value.abs() + 0.5 if name.endswith("running_var") else value
    return state


def run_config(*sets):
    sets = [f"{key}={value}" for key, value in SETTINGS.items()] + list(sets)
    return resolve_config(
        "stackgan", overrides={"encoder": {"name": "words", "width": 8, "heads": 1}}, sets=sets
    )


def written(path, state):
    save_file(state, path)
    return path


@pytest.fixture
def seven_wide(monkeypatch):
    """Text of width 7, so that no two sizes of the networks are alike."""
    monkeypatch.setattr(Sentences, "shape", TEXT, raising=False)
    monkeypatch.setattr(
        "t2i.plugins.encoders.words.encoder.build", lambda config, assets: Sentences(frozen=True)
    )


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.usefixtures("seven_wide")
def test_stage_two_of_the_authors_draws_their_images(tmp_path, prefix):
    state = authors_state(second_shapes())
    path = written(
        tmp_path / "netG.safetensors", {prefix + name: value for name, value in state.items()}
    )
    model = weights.load(run_config(), [path])
    e, z, eps0, eps = (torch.randn(3, n) for n in (7, 5, 6, 6))
    assert model.generator.noise_shape == (17,)
    ours = model.generator.eval()(torch.cat([z, eps0, eps], 1), TextFeatures.of(sentence=e))
    theirs = authors_second(state, e, z, eps0, eps)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.usefixtures("seven_wide")
def test_stage_one_of_the_authors_is_a_model_of_small_images(tmp_path, prefix):
    """Written by a PyTorch that did not count batch norm's batches yet."""
    state = {
        name: value
        for name, value in authors_state(first_shapes(8)).items()
        if "num_batches" not in name
    }
    path = written(
        tmp_path / "netG.safetensors", {prefix + name: value for name, value in state.items()}
    )
    model = weights.load(run_config("image_size=64"), [path])
    assert (model.config.settings.stages, model.config.settings.image_size) == (1, 32)
    assert model.config.data.config.image_size == model.generator.image_size == 32
    e, z, eps = (torch.randn(3, n) for n in (7, 5, 6))
    ours = model.generator.eval()(torch.cat([z, eps], 1), TextFeatures.of(sentence=e))
    torch.testing.assert_close(ours, authors_first(state, e, z, eps), atol=1e-4, rtol=0)


@pytest.mark.usefixtures("seven_wide")
def test_an_imported_model_is_saved_and_loaded(tmp_path):
    from t2i.core.models.loading import load_model

    model = weights.load(
        run_config(), [written(tmp_path / "g.safetensors", authors_state(second_shapes()))]
    )
    model.save(tmp_path / "model")
    noise = torch.randn(2, 17)
    again = load_model(tmp_path / "model").generator.eval()
    assert torch.equal(again(noise, text(2)), model.generator.eval()(noise, text(2)))


@pytest.mark.usefixtures("seven_wide")
def test_refuses_weights_that_do_not_fit(tmp_path):
    state = authors_state(second_shapes())
    del state["hr_joint.0.weight"]
    state["img.0.weight"] = state["img.0.weight"][:1].clone()
    path = written(tmp_path / "g.safetensors", state)
    with pytest.raises(
        UserError,
        match=r"preset 'tiny'.*second\.joint\.0\.weight is missing; second.to_rgb.weight is \(1, 4",
    ):
        weights.load(run_config(), [path])
    with pytest.raises(UserError, match="no state dict of a StackGAN generator"):
        weights.load(run_config(), [written(tmp_path / "x.safetensors", {"a": torch.zeros(1)})])
    with pytest.raises(UserError, match=r"one file of weights is expected.*2 were given"):
        weights.load(run_config(), [path, path])


# --- networks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "first", "both", "judge1", "judge2"),
    [
        ("cub", 10_301_248, 36_591_328, 5_715_713, 71_269_122),
        ("coco", 20_020_832, 57_151_312, 12_407_425, 159_889_538),
    ],
)
def test_parameters_are_those_of_the_authors_networks(name, first, both, judge1, judge2):
    """Counted in the authors' own modules, at 1024-d text."""
    config = preset(name)
    with torch.device("meta"):
        generator = build(config, TextShape(1024, 1024), None)
        small, large = (
            Discriminator(config.df, config.first_size),
            Discriminator(config.df, config.image_size),
        )
        heads = (
            ConditionalHead(small.width, config.c_dim),
            ConditionalHead(large.width, config.c_dim),
            UnconditionalHead(large.width),
        )
    assert (config.first_size, config.image_size) == (64, 256)
    assert (count(generator.first), count(generator)) == (first, both)
    assert (count(small, heads[0]), count(large, *heads[1:])) == (judge1, judge2)
    assert (small.width, large.width) == (8 * config.df, 8 * config.df)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("upscale", [2, 4])
def test_every_size_fits_its_networks(size, upscale):
    config = StackGANConfig(**SETTINGS | {"image_size": size, "upscale": upscale})
    generator = build(config, TEXT, None)
    noise = torch.randn(2, *generator.noise_shape)
    z, eps0, eps = generator.split(noise)
    assert [part.shape[1] for part in (z, eps0, eps)] == [5, 6, 6]
    small = generator.first(z, eps0, text(2).sentence)
    assert small.images.shape == (2, 3, size // upscale, size // upscale)
    large = generator.second(small.images, eps, text(2).sentence)
    assert large.images.shape == (2, 3, size, size)
    assert large.mean.shape == large.logvar.shape == (2, 6)
    for images in (small.images, large.images):
        judge = Discriminator(config.df, images.shape[-1])
        features = judge(images)
        assert features.shape == (2, judge.width, 4, 4)
        assert (
            ConditionalHead(judge.width, 6)(features, large.mean).shape
            == UnconditionalHead(judge.width)(features).shape
            == (2,)
        )


def test_images_are_stage_ones_enlarged_until_stage_two_begins():
    generator = shaken(build(SMALL, TEXT, None)).eval()
    noise = torch.randn(2, 17)
    z, eps0, eps = generator.split(noise)
    generator.refines.fill_(False)
    small = generator.first(z, eps0, text(2).sentence).images
    assert torch.equal(
        generator(noise, text(2)), small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    )
    generator.refines.fill_(True)
    assert torch.equal(
        generator(noise, text(2)), generator.second(small, eps, text(2).sentence).images
    )
    alone = build(ALONE, TEXT, None).eval()
    assert alone.noise_shape == (11,)
    assert alone(noise[:, :11], text(2)).shape == (2, 3, 16, 16)


def test_zeros_in_the_noise_give_the_mean_condition():
    generator = shaken(build(SMALL, TEXT, None)).eval()
    e = text(2).sentence
    both = (
        e @ generator.first.augment.linear.weight.T + generator.first.augment.linear.bias
    ).relu()
    assert torch.equal(generator.first(torch.zeros(2, 5), torch.zeros(2, 6), e).mean, both[:, :6])


def test_discriminators_are_the_authors():
    """Stage II's, with the widths 4, 8, ... 128 at 256 pixels narrowed to 64 and 32; stage I's has
    no narrowing."""
    judge, pairs, alone = Discriminator(4, 256), ConditionalHead(32, 6), UnconditionalHead(32)
    for module in (judge, pairs, alone):
        shaken(module).eval()
    state = judge.state_dict()
    convolutions = [name for name, value in state.items() if value.dim() == 4]
    assert [tuple(state[name].shape[:2]) for name in convolutions] == [
        (4, 3), (8, 4), (16, 8), (32, 16), (64, 32), (128, 64), (64, 128), (32, 64),
    ]  # fmt: skip
    x, mu = torch.rand(2, 3, 256, 256), torch.rand(2, 6)
    h = x
    for n, name in enumerate(convolutions):
        h = F.conv2d(h, state[name], stride=2 if n < 6 else 1, padding=1)
        after = f"layers.{int(name.split('.')[1]) + 1}"
        h = F.leaky_relu(norm(state, after, h) if n else h, 0.2)
    torch.testing.assert_close(judge(x), h, rtol=1e-3, atol=1e-3)
    joint = pairs.state_dict()
    tiled = torch.cat([h, mu[:, :, None, None].repeat(1, 1, 4, 4)], 1)
    g = F.leaky_relu(
        norm(joint, "joint.1", F.conv2d(tiled, joint["joint.0.weight"], padding=1)), 0.2
    )
    logits = (g * joint["score.weight"]).sum((1, 2, 3)) + joint["score.bias"]
    torch.testing.assert_close(pairs(judge(x), mu), logits, rtol=1e-4, atol=1e-3)
    logits = (h * alone.score.weight).sum((1, 2, 3)) + alone.score.bias
    torch.testing.assert_close(alone(judge(x)), logits, rtol=1e-4, atol=1e-3)
    assert (
        count(Discriminator(4, 64))
        == sum(16 * a * b for a, b in ((4, 3), (8, 4), (16, 8), (32, 16))) + 2 * 56
    )


def test_networks_start_as_the_authors():
    torch.manual_seed(0)
    generator = build(StackGANConfig(**SETTINGS | {"gf": 32}), TextShape(64, 64), None)
    linear, gain = generator.first.start[0].weight, generator.first.start[1].weight
    assert (linear.mean().item(), linear.std().item()) == pytest.approx((0, 0.02), abs=1e-3)
    assert (gain.mean().item(), gain.std().item()) == pytest.approx((1, 0.02), abs=1e-3)
    assert not generator.first.augment.linear.bias.any()
    assert generator.second.joint[0].weight.std().item() == pytest.approx(0.02, abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 48}, "image_size = 48: the generators double 4x4 pixels"),
        ({"image_size": 16, "upscale": 4}, "stage I draws 4 px: use 32 or more"),
        ({"batch_size": 4, "accumulate": 4}, "wrong pairs and batch norm need two images"),
        (
            {"stage1_batch": 4, "batch_size": 8, "accumulate": 4},
            "wrong pairs and batch norm need two images",
        ),
    ],
)
def test_refuses_what_cannot_be_built(settings, message):
    with pytest.raises(UserError, match=message):
        StackGANConfig.of(settings, "here")


# --- losses ---------------------------------------------------------------------------------------


def log_sigmoid(x):
    return -math.log(1 + math.exp(-x))


def test_both_discriminators_losses_by_hand():
    real, fake, wrong, real_u, fake_u = (
        torch.tensor(v, requires_grad=True)
        for v in ([2.0, 0.5], [-3.0, 0.2], [-0.5], [1.0, -1.0], [0.3, 0.0])
    )
    yes = lambda x: -sum(log_sigmoid(v) for v in x.tolist()) / len(x)  # noqa: E731
    no = lambda x: -sum(log_sigmoid(-v) for v in x.tolist()) / len(x)  # noqa: E731
    three = matching_aware_discriminator_loss(real, fake, wrong)
    assert three.item() == pytest.approx(yes(real) + (no(fake) + no(wrong)) / 2)
    three.backward()
    assert real.grad.tolist() == pytest.approx(
        [(torch.tensor(v).sigmoid().item() - 1) / 2 for v in (2.0, 0.5)]
    )
    assert fake.grad.tolist() == pytest.approx(
        [torch.tensor(v).sigmoid().item() / 4 for v in (-3.0, 0.2)]
    )
    assert wrong.grad.tolist() == pytest.approx([torch.tensor(-0.5).sigmoid().item() / 2])
    for tensor in (real, fake, wrong):
        tensor.grad = None
    five = discriminator_of_pairs_and_images(real, fake, wrong, real_u, fake_u)
    assert five.item() == pytest.approx(
        (yes(real) + yes(real_u)) / 2 + (no(fake) + no(wrong) + no(fake_u)) / 3
    )
    five.backward()
    assert real_u.grad.tolist() == pytest.approx(
        [(torch.tensor(v).sigmoid().item() - 1) / 4 for v in (1.0, -1.0)]
    )
    assert fake_u.grad.tolist() == pytest.approx(
        [torch.tensor(v).sigmoid().item() / 6 for v in (0.3, 0.0)]
    )
    assert wrong.grad.tolist() == pytest.approx([torch.tensor(-0.5).sigmoid().item() / 3])


def test_cross_entropy_of_confident_logits_is_finite():
    logits = torch.tensor([200.0, -200.0], requires_grad=True)
    loss = cross_entropy(logits, real=True) + cross_entropy(logits, real=False)
    loss.backward()
    assert loss.item() == pytest.approx(200)
    assert logits.grad.tolist() == pytest.approx([0.5, -0.5])


# --- training -------------------------------------------------------------------------------------


class Sentences(TextEncoder):
    shape = TEXT

    def __init__(self, frozen):
        super().__init__()
        self.table = nn.Embedding(4, TEXT.sentence).requires_grad_(not frozen)

    def encode(self, captions):
        return TextFeatures.of(
            sentence=self.table(torch.tensor([len(c) for c in captions])), captions=captions
        )


def batch(n=4, size=32):
    images = torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(3)) * 2 - 1
    captions = tuple("x" * i for i in range(n))
    return Batch(
        images, captions, captions, StepNoise(0, 5, 0, n, n), Sentences(frozen=True).encode
    )


def trainer_of(kind, config=SMALL):
    torch.manual_seed(0)
    trainer = kind(config, build(config, TEXT, None))
    for module in trainer.modules.values():
        shaken(module).train()
    return trainer


def bce(logits, target):
    return F.binary_cross_entropy(logits.sigmoid(), torch.full_like(logits, target))


def expected(trainer, made):
    """Both losses of a step, as the authors' code has them, from the same networks."""
    second = isinstance(trainer, SecondTrainer)
    generator, D, C = trainer.generator, trainer.discriminator, trainer.matching
    noise, e = made.noise.normal("z", 0, (17,)), made.text.sentence.detach()
    z, eps0, eps = noise[:, :5], noise[:, 5:11], noise[:, 11:]
    drawn, x = (
        generator.first(z, eps0, e),
        F.interpolate(made.images, scale_factor=0.5, mode="area"),
    )
    if second:
        drawn, x = generator.second(drawn.images.detach(), eps, e), made.images
    mu, logvar = drawn.mean, drawn.logvar
    real, fake, c = D(x), D(drawn.images.detach()), mu.detach()
    parts = [bce(C(real, c), 1.0), bce(C(fake, c), 0.0), bce(C(real[:3], c[1:]), 0.0)]
    loss_d = parts[0] + (parts[1] + parts[2]) / 2
    if second:
        U = trainer.realism
        loss_d = (parts[0] + bce(U(real), 1.0)) / 2 + (parts[1] + parts[2] + bce(U(fake), 0.0)) / 3
    judged = D(drawn.images)
    loss_g = bce(C(judged, c), 1.0) + (bce(U(judged), 1.0) if second else 0)
    kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).mean()
    return {"discriminator": loss_d, "generator": loss_g + 2.0 * kl}


@pytest.mark.parametrize("kind", [FirstTrainer, SecondTrainer])
def test_losses_of_a_step_and_their_gradients_are_the_authors(kind):
    trainer, made = trainer_of(kind), batch()
    engine = Recorder(trainer)
    trainer.step(made, engine)
    for name, loss in expected(trainer, made).items():
        assert engine.losses[name].item() == pytest.approx(loss.item(), rel=1e-4)
        parameters = [p for group in trainer.optimizers[name].param_groups for p in group["params"]]
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
        for ours, theirs in zip(engine.gradients[name], gradients, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def calls_of(trainer):
    calls = dict.fromkeys(trainer.modules, 0)
    for name, module in trainer.modules.items():
        module.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    return calls


@pytest.mark.parametrize("kind", [FirstTrainer, SecondTrainer])
def test_a_step_wastes_nothing(kind):
    """One run of each generator; D on real, fake and again on fake; no gradient into anything not
    being updated."""
    trainer = trainer_of(kind)
    calls = calls_of(trainer)
    trainer.step(batch(), Recorder(trainer))
    heads = {"realism": 3, "first": 1} if kind is SecondTrainer else {}
    assert calls == {"network": 1, "discriminator": 3, "matching": 4, **heads}
    assert all(p.grad is None for module in trainer.modules.values() for p in module.parameters())


def test_stage_one_is_frozen_in_stage_two_but_for_its_statistics():
    trainer = trainer_of(SecondTrainer)
    first, second = trainer.generator.first, trainer.generator.second
    weights_before = [p.clone() for p in first.parameters()]
    statistics = first.start[1].running_mean.clone()
    second_before = [p.clone() for p in second.parameters()]
    trainer.step(batch(), Recorder(trainer, move=True))
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), weights_before, strict=True))
    assert not torch.equal(first.start[1].running_mean, statistics)
    assert not any(
        torch.equal(p, q) for p, q in zip(second.parameters(), second_before, strict=True)
    )
    optimized = {
        p for o in trainer.optimizers.values() for g in o.param_groups for p in g["params"]
    }
    assert not optimized & set(first.parameters())
    assert trainer.generator.refines


def test_stage_one_leaves_stage_two_alone():
    trainer = trainer_of(FirstTrainer)
    before = {name: value.clone() for name, value in trainer.generator.second.state_dict().items()}
    trainer.step(batch(), Recorder(trainer, move=True))
    assert all(
        torch.equal(value, before[name])
        for name, value in trainer.generator.second.state_dict().items()
    )
    assert not trainer.generator.refines


@pytest.mark.parametrize("kind", [FirstTrainer, SecondTrainer])
def test_statistics_are_those_of_the_averaged_weights_when_a_stage_ends(kind):
    """The plain mean over the batches that `finish` is given; the paper's presets leave them as
    they are."""
    trainer = trainer_of(kind, SMALL.model_copy(update={"recalibrate": 3}))
    for module in trainer.modules.values():
        module.eval()
    layer = trainer.network.blocks[0][1]
    means = []
    layer.register_forward_pre_hook(lambda _, x: means.append(x[0].mean((0, 2, 3))))
    with torch.no_grad():
        trainer.finish(batch)
    assert len(means) == 3
    torch.testing.assert_close(layer.running_mean, torch.stack(means).mean(0))
    assert (layer.training, layer.momentum) == (False, 0.1)
    trainer_of(kind, preset("coco").model_copy(update=SETTINGS)).finish(
        lambda: pytest.fail("nothing to do")
    )


def own(config, stage):
    settings = config.with_(**stage.settings)
    return settings.batch_size, settings.lr_halvings


def test_optimizers_and_schedules_are_the_authors():
    trainer = FirstTrainer(
        StackGANConfig(image_size=64), build(StackGANConfig(image_size=64), TEXT, None)
    )
    assert {(o.defaults["lr"], o.defaults["betas"]) for o in trainer.optimizers.values()} == {
        (2e-4, (0.5, 0.999))
    }
    coco, cub = preset("coco"), preset("cub")
    assert coco.lr_schedule == cub.lr_schedule == "halving"
    planned = stages(coco, Sentences(frozen=True))
    assert [s.name for s in planned] == ["stage1", "stage2"]
    assert [own(coco, s) for s in planned] == [(128, 5), (40, 4)]
    epochs = [coco.steps * s.share / sum(s.share for s in planned) for s in planned]
    assert [epochs[0] / (82_783 // 128), epochs[1] / (82_783 // 40)] == pytest.approx([120, 100])
    planned = stages(cub, Sentences(frozen=True))
    assert [own(cub, s) for s in planned] == [(64, 11), (64, 5)]
    assert cub.steps / 2 / (8_855 // 64) == 600


def test_text_is_pretrained_where_it_can_be_and_stages_come_in_order():
    frozen, trainable = Sentences(frozen=True), Sentences(frozen=False)
    assert [s.name for s in stages(SMALL, frozen)] == ["stage1", "stage2"]
    assert [s.name for s in stages(ALONE, frozen)] == ["stage1"]
    three = stages(SMALL, trainable)
    assert [s.name for s in three] == ["text", "stage1", "stage2"]
    assert sum(s.share for s in three) == pytest.approx(1)
    generator = build(SMALL, TEXT, None)
    for stage in three[1:]:
        trainer = stage.trainer(Networks(generator, trainable))
        optimized = {
            p for o in trainer.optimizers.values() for g in o.param_groups for p in g["params"]
        }
        assert trainable.table.weight not in optimized


# --- registration and the whole path --------------------------------------------------------------


def test_is_registered_with_its_presets():
    spec = registry().models["stackgan"]
    config = resolve_config("stackgan")
    assert (config.data.name, config.encoder.name, config.sampler.name) == (
        "shapes",
        "words",
        "direct",
    )
    presets = import_object(spec.config).presets()
    assert set(presets) == set(spec.presets)
    assert presets["coco"].encoder[0] == presets["cub"].encoder[0] == "char-cnn-rnn"


SHORT = (
    "steps=9",
    "text_share=0.34",
    "checkpoint_every=100",
    "sample_every=100",
    "encoder.width=8",
    "encoder.heads=1",
)


def trained(folder, *more):
    from t2i.core.engine import train

    sets = [f"{key}={value}" for key, value in SETTINGS.items()]
    return train(resolve_config("stackgan", sets=[*sets, *SHORT, *more]), folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never stopped."""
    return trained(tmp_path_factory.mktemp("stackgan") / "whole")


def test_trains_saves_and_draws(whole):
    from t2i import load

    run = whole
    assert [stage["name"] for stage in run.summary()["stages"]] == ["text", "stage1", "stage2"]
    model = load(run.path, "cpu")
    assert model.generator.refines
    captions = ["a large red star on the left", "a small blue circle in the center"]
    plain = model.sample(captions, n=2, seed=1)
    assert [image.size for image in plain] == [(32, 32)] * 4
    assert [p.tobytes() for p in plain] == [
        p.tobytes() for p in model.sample(captions, n=2, seed=1, batch_size=1)
    ]


def test_stage_one_alone_can_be_trained(tmp_path):
    run = trained(tmp_path / "run", "stages=1")
    assert [stage["name"] for stage in run.summary()["stages"]] == ["text", "stage1"]


@pytest.mark.parametrize("stop", [4, 7])
def test_a_run_stopped_in_either_stage_goes_on_as_if_it_never_had(
    whole, tmp_path, monkeypatch, stop
):
    """It draws stage I's images, enlarged, if it was stopped there."""
    import os
    import signal

    from t2i import load
    from t2i.core.engine import resume
    from t2i.plugins.models.stackgan.training import GANTrainer

    step = GANTrainer.step

    def interrupted(self, made, engine):
        if made.noise.at == stop:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, made, engine)

    monkeypatch.setattr(GANTrainer, "step", interrupted)
    with pytest.raises(Interrupted):
        trained(tmp_path / "halves")
    monkeypatch.setattr(GANTrainer, "step", step)
    model = load(tmp_path / "halves", "cpu")
    assert bool(model.generator.refines) == (stop == 7)
    resume(tmp_path / "halves")
    ours, theirs = (
        load_tensors(run.model / "generator.safetensors", "x")
        for run in (whole, Run(tmp_path / "halves"))
    )
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
