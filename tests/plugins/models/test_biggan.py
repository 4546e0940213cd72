"""BigGAN: the authors' networks and losses as plain functions, sizes, and one step's economy."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape
from t2i.core.interfaces.trainer import Batch, Networks
from t2i.core.models.weights import load_state
from t2i.core.runs.configure import resolve_config
from t2i.plugins.common.gan.penalties.orthogonal import orthogonal_regularisation
from t2i.plugins.common.weights.legacy import counted
from t2i.plugins.models.biggan.config import BigGANConfig
from t2i.plugins.models.biggan.networks import (
    BigGANGenerator,
    Discriminator,
    Projection,
    generator_widths,
)
from t2i.plugins.models.biggan.training import GANTrainer
from t2i.plugins.models.biggan.weights import discriminator_states, generator_state, load

K, CHUNK, SHARED = 5, 3, 6
SMALL = {"image_size": 64, "ch": 2, "z_dim": 5 * CHUNK, "shared": SHARED, "attention": [32]}
G_WIDTHS, D_WIDTHS = [32, 32, 16, 8, 4], [8, 16, 32, 64, 128]


def count(module):
    return sum(p.numel() for p in module.parameters())


class OneHot(TextEncoder):
    """Captions are numbers of classes."""

    def __init__(self):
        super().__init__()
        self.shape = TextShape(K, K)
        self.dtype = torch.float64

    def encode(self, captions):
        ids = torch.tensor([int(c) for c in captions])
        return TextFeatures.of(sentence=F.one_hot(ids, K).to(self.dtype), captions=captions)


class Double:
    """Noise in double precision."""

    def __init__(self, n):
        self.noise = StepNoise(0, 5, 0, n, n)
        self.at = self.noise.at

    def normal(self, *call):
        return self.noise.normal(*call).double()


def batch(n=4):
    captions = ("1", "0", "4", "2")[:n]
    images = torch.rand(n, 3, 64, 64).double() * 2 - 1
    return Batch(images, captions, captions, Double(n), OneHot().encode)


class Recorder:
    """An engine that notes each loss with its gradients."""

    progress = 0.0

    def __init__(self, trainer):
        self.trainer, self.losses, self.gradients = trainer, {}, {}

    def shifted(self, x):
        return torch.roll(x, 1, 0)

    def update(self, name, loss):
        optimizer = self.trainer.optimizers[name]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.losses[name] = loss.detach()
        loss.backward(inputs=parameters)
        self.gradients[name] = {p: p.grad.clone() for p in parameters}
        optimizer.zero_grad()


# --- the networks as plain functions of a state dict with the authors' names ----------------------


def layer(name, *shape, bias=True):
    return {
        f"{name}.weight": torch.randn(shape).double() * torch.tensor(shape[1:]).prod() ** -0.5,
        f"{name}.u0": torch.randn(1, shape[0]).double(),
        f"{name}.sv0": torch.ones(1).double(),
        **({f"{name}.bias": torch.randn(shape[0]).double()} if bias else {}),
    }


def attention_file(name, c):
    return {
        f"{name}.gamma": torch.randn(()).double(),
        **layer(f"{name}.theta", c // 8, c, 1, 1, bias=False),
        **layer(f"{name}.phi", c // 8, c, 1, 1, bias=False),
        **layer(f"{name}.g", c // 2, c, 1, 1, bias=False),
        **layer(f"{name}.o", c, c // 2, 1, 1, bias=False),
    }


def statistics(name, c):
    return {
        f"{name}.stored_mean": torch.randn(c).double(),
        f"{name}.stored_var": torch.rand(c).double() + 0.5,
    }


def generator_file():
    state = {"shared.weight": torch.randn(K, SHARED).double()}
    state |= layer("linear", G_WIDTHS[0] * 16, CHUNK)
    for i, (c_in, c_out) in enumerate(pairwise(G_WIDTHS)):
        name = f"blocks.{i}.0"
        state |= layer(f"{name}.conv1", c_out, c_in, 3, 3)
        state |= layer(f"{name}.conv2", c_out, c_out, 3, 3)
        state |= layer(f"{name}.conv_sc", c_out, c_in, 1, 1)
        for norm, c in (("bn1", c_in), ("bn2", c_out)):
            state |= statistics(f"{name}.{norm}", c)
            for part in ("gain", "bias"):
                state |= layer(f"{name}.{norm}.{part}", c, SHARED + CHUNK, bias=False)
    state |= attention_file("blocks.2.1", 8) | statistics("output_layer.0", G_WIDTHS[-1])
    state |= {f"output_layer.0.{n}": torch.randn(G_WIDTHS[-1]).double() for n in ("gain", "bias")}
    return state | layer("output_layer.2", 3, G_WIDTHS[-1], 3, 3)


def discriminator_file():
    state = {}
    for i, (c_in, c_out) in enumerate(zip([3, *D_WIDTHS], D_WIDTHS, strict=False)):
        name = f"blocks.{i}.0"
        state |= layer(f"{name}.conv1", c_out, c_in, 3, 3)
        state |= layer(f"{name}.conv2", c_out, c_out, 3, 3)
        state |= layer(f"{name}.conv_sc", c_out, c_in, 1, 1)
    state |= attention_file("blocks.0.1", D_WIDTHS[0]) | layer("linear", 1, D_WIDTHS[-1])
    return state | layer("embed", K, D_WIDTHS[-1], bias=False)


def normalised(state, name):
    """W / sigma, v first; u moves in place."""
    weight, key = state[f"{name}.weight"], f"{name}.u0"
    w = weight.flatten(1)
    with torch.no_grad():
        v = F.normalize(state[key] @ w, eps=1e-6)
        u = F.normalize(v @ w.t(), eps=1e-6)
    state[key] = u
    return weight / (v @ w.t() @ u.t()).squeeze()


def conv(state, name, x):
    weight = normalised(state, name)
    return F.conv2d(x, weight, state.get(f"{name}.bias"), padding=weight.shape[-1] // 2)


def attended(state, name, x):
    b, c, h, w = x.shape
    theta = conv(state, f"{name}.theta", x).view(b, c // 8, h * w)
    phi = F.max_pool2d(conv(state, f"{name}.phi", x), 2).view(b, c // 8, h * w // 4)
    g = F.max_pool2d(conv(state, f"{name}.g", x), 2).view(b, c // 2, h * w // 4)
    beta = torch.einsum("bcq,bck->bqk", theta, phi).softmax(-1)
    o = torch.einsum("bck,bqk->bcq", g, beta).view(b, c // 2, h, w)
    return state[f"{name}.gamma"] * conv(state, f"{name}.o", o) + x


def normed(x):
    mean = x.mean((0, 2, 3), keepdim=True)
    return (x - mean) / (x.var((0, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()


def generated(state, z, ids):
    """G in training mode."""
    y = state["shared.weight"][ids]
    chunks = z.split(CHUNK, 1)
    h = chunks[0] @ normalised(state, "linear").t() + state["linear.bias"]
    h = h.view(len(z), -1, 4, 4)
    for i in range(4):
        name, c = f"blocks.{i}.0", torch.cat([y, chunks[i + 1]], 1)

        def bn(which, x, name=name, c=c):
            gain = c @ normalised(state, f"{name}.{which}.gain").t()
            bias = c @ normalised(state, f"{name}.{which}.bias").t()
            return normed(x) * (1 + gain)[..., None, None] + bias[..., None, None]

        x = F.interpolate(F.relu(bn("bn1", h)), scale_factor=2)
        x = conv(state, f"{name}.conv1", x)
        x = conv(state, f"{name}.conv2", F.relu(bn("bn2", x)))
        h = x + conv(state, f"{name}.conv_sc", F.interpolate(h, scale_factor=2))
        if i == 2:
            h = attended(state, "blocks.2.1", h)
    gain, bias = (state[f"output_layer.0.{n}"].view(1, -1, 1, 1) for n in ("gain", "bias"))
    return torch.tanh(conv(state, "output_layer.2", F.relu(normed(h) * gain + bias)))


def judged(state, x, ids):
    h = x
    for i in range(5):
        name = f"blocks.{i}.0"
        y = conv(state, f"{name}.conv1", h if i == 0 else F.relu(h))
        y = conv(state, f"{name}.conv2", F.relu(y))
        s = conv(state, f"{name}.conv_sc", h)
        h = F.avg_pool2d(y, 2) + F.avg_pool2d(s, 2) if i < 4 else y + s
        if i == 0:
            h = attended(state, "blocks.0.1", h)
    h = F.relu(h).sum((2, 3))
    out = h @ normalised(state, "linear").t() + state["linear.bias"]
    return (out + (normalised(state, "embed")[ids] * h).sum(1, keepdim=True))[:, 0]


@pytest.fixture
def pair():
    """A trainer with the weights of the authors' files, and these files."""
    torch.manual_seed(0)
    g, d = generator_file(), discriminator_file()

    def made(**more):
        config = BigGANConfig(**{**SMALL, "ch_d": 8, **more})
        generator = BigGANGenerator(config, TextShape(K, K)).double()
        trainer = GANTrainer(config, Networks(generator, OneHot()))
        for module in trainer.modules.values():
            module.double()
        load_state(generator, counted(generator, generator_state(g)), "G")
        features, output = discriminator_states(d)
        load_state(trainer.discriminator, features, "D")
        load_state(trainer.output, output, "D")
        return trainer, g, d

    return made


def test_a_step_is_the_authors(pair):
    """Losses and all gradients, with orthogonal regularisation of both networks."""
    trainer, g, d = pair(ortho_g=1e-2, ortho_d=2e-2)
    made, engine = batch(), Recorder(trainer)
    trainer.step(made, engine)
    g = {k: v.clone().requires_grad_("stored" not in k and "0" not in k[-2:]) for k, v in g.items()}
    d = {k: v.clone().requires_grad_("0" not in k[-2:]) for k, v in d.items()}
    ids = torch.tensor([1, 0, 4, 2])
    fake = generated(g, made.noise.normal("z", 0, (15,)), ids)
    scores = judged(d, torch.cat([fake.detach(), made.images]), torch.cat([ids, ids]))
    loss_d = F.relu(1 - scores[4:]).mean() + F.relu(1 + scores[:4]).mean()

    def expected(loss, state, strength):
        names = [k for k, v in state.items() if v.requires_grad and "u0" not in k]
        found = {}
        for k, grad in zip(
            names, torch.autograd.grad(loss, [state[k] for k in names]), strict=True
        ):
            if state[k].ndim > 1 and k != "shared.weight":
                w = state[k].detach().flatten(1)
                off = (w @ w.t()) * (1 - torch.eye(len(w)))
                grad = grad + strength * (2 * off @ w).view(grad.shape)
            found[k] = grad
        return found

    features, output = discriminator_states(expected(loss_d, d, 2e-2))
    ours = dict(trainer.discriminator.named_parameters())
    ours |= dict(trainer.output.named_parameters())
    for name, grad in (features | output).items():
        torch.testing.assert_close(
            engine.gradients["discriminator"][ours[name]], grad, rtol=1e-9, atol=1e-11
        )
    loss_g = -judged(d, fake, ids).mean()
    ours = dict(trainer.generator.named_parameters())
    for name, grad in generator_state(expected(loss_g, g, 1e-2)).items():
        torch.testing.assert_close(
            engine.gradients["generator"][ours[name]], grad, rtol=1e-9, atol=1e-11
        )


def test_regularisation_in_numbers():
    """W = [[1, 0], [2, 1]]: the one product off the diagonal is 2, twice."""
    w = torch.tensor([[1.0, 0.0], [2.0, 1.0]], requires_grad=True)
    term = orthogonal_regularisation([w])
    assert term.item() == 4
    (grad,) = torch.autograd.grad(term, w, create_graph=True)
    assert grad.tolist() == [[8, 4], [4, 0]]
    wide = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: orthogonal_regularisation([x]), wide)


def test_parameters_at_128_pixels_are_the_authors():
    with torch.device("meta"):
        nn.init.orthogonal_, kept = lambda w: w, nn.init.orthogonal_
        try:
            config = BigGANConfig(image_size=128)
            g = BigGANGenerator(config, TextShape(1000, 1000))
            d = count(Discriminator(config)) + count(Projection(config, 1000))
        finally:
            nn.init.orthogonal_ = kept
    assert (round(count(g) / 1e6, 2), round(d / 1e6, 2)) == (70.43, 87.98)
    assert g.noise_shape == (120,)


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("first", ["v", "u"])
def test_every_size_fits_its_networks(size, first):
    config = BigGANConfig(
        image_size=size, ch=2, widths="doubling", attention=(8,), z_dim=8, spectral_first=first,
        pooling="mean", start_from_text=True,
    )  # fmt: skip
    assert generator_widths(config)[-2:] == [4, 2]
    generator = BigGANGenerator(config.model_copy(update={"ch": 8}), TextShape(K, K))
    text = TextFeatures.of(sentence=torch.randn(2, K), captions=["", ""])
    images = generator(torch.randn(2, *generator.noise_shape), text)
    assert images.shape == (2, 3, size, size)
    config = config.model_copy(update={"ch_d": 8})
    features = Discriminator(config)(images)
    assert Projection(config, K)(features, text.sentence).shape == (2,)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image_size": 48}, "doubles 4x4 pixels"),
        ({"image_size": 16}, "widths=doubling"),
        ({"image_size": 64, "z_dim": 4}, "use more"),
    ],
)
def test_refuses_what_does_not_fit(given, said):
    with pytest.raises(UserError, match=said):
        BigGANConfig.of(given, "here")


def test_imports_a_generator_of_sentences_and_refuses_one_of_classes(tmp_path):
    sets = ("image_size=64", "ch=2", "z_dim=15", "shared=6", "attention=[32]", "widths=authors")
    more = ("spectral_g=true", "start_from_text=false", "encoder.width=16", "encoder.heads=2")
    config, path = resolve_config("biggan", sets=(*sets, *more)), tmp_path / "G_ema.pth"
    theirs = {f"module.{n}": t.float() for n, t in generator_file().items()}
    torch.save(theirs, path)
    with pytest.raises(UserError, match=r"no map of sentences of 16 .* on 1,000 classes") as told:
        load(config, [path])
    assert "\n" not in str(told.value)
    theirs["module.shared.weight"] = torch.randn(6, 16)
    torch.save(theirs, path)
    generator = load(config, [path]).generator
    assert torch.equal(generator.shared.weight, theirs["module.shared.weight"])
    assert torch.equal(generator.blocks[1].conv1.weight, theirs["module.blocks.1.0.conv1.weight"])
    assert torch.equal(generator.start.u, theirs["module.linear.u0"][0])
    with pytest.raises(UserError, match="one file holds the generator, 2 are given"):
        load(config, [path, path])


def test_wrong_pairs_and_penalty_by_hand(pair):
    """With vectors that no longer move, D's loss has DF-GAN's halves and its penalty."""
    trainer, _, _ = pair(wrong_pairs=True, penalty_k=2.0)
    made, engine = batch(), Recorder(trainer)
    for module in (trainer.discriminator, trainer.output, trainer.generator):
        module.eval()
    trainer.step(made, engine)
    x, e = made.images.clone().requires_grad_(), made.text.sentence.clone().requires_grad_()
    fake = trainer.generator(made.noise.normal("z", 0, (15,)), made.text)
    score = lambda x, e: trainer.output(trainer.discriminator(x), e)  # noqa: E731
    real = score(x, e)
    loss = F.relu(1 - real).mean() + F.relu(1 + score(fake, e)).mean() / 2
    loss = loss + F.relu(1 + score(x, e.roll(1, 0))).mean() / 2
    gx, ge = torch.autograd.grad(real.sum(), (x, e), create_graph=True)
    loss = loss + 2 * (torch.cat([gx.flatten(1), ge], 1).norm(dim=1) ** 6).mean()
    assert engine.losses["discriminator"].item() == pytest.approx(loss.item(), rel=1e-9)


def test_a_step_wastes_nothing(pair):
    """One run of G; D on both kinds in one pass and again on the fake; no other gradients."""
    trainer, _, _ = pair()
    calls = dict.fromkeys(("generator", "discriminator", "output"), 0)
    for name in calls:
        trainer.modules[name].register_forward_hook(
            lambda *_, name=name: calls.update({name: calls[name] + 1})
        )
    trainer.step(batch(), Recorder(trainer))
    assert calls == {"generator": 1, "discriminator": 2, "output": 2}
    assert all(p.grad is None for module in trainer.modules.values() for p in module.parameters())
