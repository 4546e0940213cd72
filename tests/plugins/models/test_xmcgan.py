"""XMC-GAN: the authors' geometry, and a step's mathematics and economy.

`generated`, `judged` and the losses below are an independent reading of the paper and the authors'
code, as plain functions of a state dict, in their order of upsampling, tiling and pooling.
"""

import pytest
import torch
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape
from t2i.core.interfaces.trainer import Batch, Networks
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from t2i.plugins.common.gan.losses.contrastive import contrast, equal_rows, word_scores
from t2i.plugins.models.xmcgan.config import ImageNetConfig, XMCGANConfig
from t2i.plugins.models.xmcgan.image_nets import FrozenResNet, helpers
from t2i.plugins.models.xmcgan.networks import Discriminator, XMCGANGenerator, build
from t2i.plugins.models.xmcgan.training import GANTrainer, stages

TEXT = TextShape(6, 5)
N, L, Z = 4, 6, 3
SMALL = XMCGANConfig(
    image_size=32, gf=4, df=4, widths_g=(4, 2, 1), widths_d=(2, 3, 3), regions=8, z_dim=Z,
    critic_steps=1, image_net={"kind": "none"},
)  # fmt: skip


class Sentences(TextEncoder):
    """Random features of as many words as a caption has characters; frozen."""

    shape = TEXT

    def encode(self, captions):
        made = []
        for caption in captions:
            rng = torch.Generator().manual_seed(sum(map(ord, caption)))
            made.append(torch.randn(1 + L, 6, generator=rng))
        drawn = torch.stack(made).to(torch.get_default_dtype())
        mask = torch.arange(L) < torch.tensor([[len(c)] for c in captions])
        return TextFeatures(drawn[:, 0], drawn[:, 1:, :5], mask, tuple(captions))


class Recorder:
    """An engine that notes each loss with its gradients; it steps if asked."""

    progress = 0.0

    def __init__(self, trainer, move=False):
        self.trainer, self.move, self.losses, self.gradients = trainer, move, [], {}

    def shifted(self, x):
        return torch.roll(x, 1, 0)

    def gathered(self, x):
        return x

    def update(self, name, loss):
        optimizer = self.trainer.optimizers[name]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.losses.append((name, loss.item()))
        loss.backward(inputs=parameters)
        self.gradients[name] = [p.grad.clone() for p in parameters]
        if self.move:
            optimizer.step()
        optimizer.zero_grad()


class Noise(StepNoise):
    """Noise in the default precision."""

    def normal(self, name, step, shape):
        return super().normal(name, step, shape).to(torch.get_default_dtype())


def batch(captions=("abcde", "ab", "cdefgh", "cab"), at=5):
    n = len(captions)
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(n, 3, 32, 32, generator=rng).to(torch.get_default_dtype()) * 2 - 1
    keys = tuple(map(str, range(n)))
    return Batch(images, captions, keys, Noise(0, at, 0, n, n), Sentences().encode)


def trainer(**settings):
    """Both networks in float64, with every number drawn at random."""
    config = SMALL.model_copy(update=settings)
    made = GANTrainer(config, Networks(build(config, TEXT, None), Sentences()))
    for module in made.modules.values():
        module.double()
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                fan = tensor[0].numel() if tensor.dim() > 1 else 4
                tensor.data.normal_(0, 1.2 * fan**-0.5)
    return made


@pytest.fixture
def double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# --- the paper, as plain functions ----------------------------------------------------------------


def normed(x):
    return (x - x.mean((0, 2, 3), keepdim=True)) / (
        x.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5
    ).sqrt()


def conv(s, name, x):
    return F.conv2d(x, s[f"{name}.weight"], s[f"{name}.bias"], padding="same")


def dense(s, name, x):
    return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]


def twice(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def generated(s, z, text):
    g = torch.cat([dense(s, "sentence", text.sentence), z], 1)

    def over_all(name, x, _):
        gamma, beta = dense(s, f"{name}.gamma", g), dense(s, f"{name}.beta", g)
        return normed(x) * (gamma[..., None, None] + 1) + beta[..., None, None]

    def place_by_place(name, x, m):
        return normed(x) * (conv(s, f"{name}.gamma", m) + 1) + conv(s, f"{name}.beta", m)

    def block(name, x, norm, before, after):
        h = conv(s, f"{name}.conv1", twice(norm(f"{name}.norm1", x, before).relu()))
        h = conv(s, f"{name}.conv2", norm(f"{name}.norm2", h, after).relu())
        return h + conv(s, f"{name}.shortcut", twice(x))

    x = block("blocks.0", dense(s, "start", z).view(len(z), -1, 4, 4), over_all, None, None)
    query = unit(conv(s, "query", x).flatten(2).transpose(1, 2))
    scores = 15 * query @ unit(text.words).transpose(1, 2)
    alpha = scores.masked_fill(~text.mask[:, None], -1e9).softmax(2)
    context = (alpha @ unit(text.words)).transpose(1, 2).reshape(len(z), -1, 8, 8)
    m = torch.cat([context, g[..., None, None].repeat(1, 1, 8, 8)], 1)
    for name in ("local_blocks.0", "local_blocks.1"):
        x = block(name, x, place_by_place, m, twice(m))
        m = twice(m)
    return conv(s, "to_rgb", place_by_place("norm", x, m).relu()).tanh()


def spectral(s):
    """Every weight over its sigma, and the new u: kernels as (in, out), the authors' epsilons."""
    made, new = dict(s), {}
    for name in [n.removesuffix(".u") for n in s if n.endswith(".u")]:
        w = s[f"{name}.weight"].flatten(1).T
        v = s[f"{name}.u"] @ w.T
        v = (v / (v.square().sum() + 1e-10).sqrt()).detach()
        u = v @ w
        u = (u / (u.square().sum() + 1e-10).sqrt()).detach()
        made[f"{name}.weight"] = s[f"{name}.weight"] / (v @ w @ u + 1e-10)
        new[f"{name}.u"] = u
    return made, new


def judged(s, images, text):
    """Scores, features, V e and regions; images first the real, then the generated ones."""
    x = (images + 1) / 2
    h = conv(s, "first.conv2", conv(s, "first.conv1", x).relu())
    x = F.avg_pool2d(h, 2) + conv(s, "first.shortcut", F.avg_pool2d(x, 2))
    for i, halves in enumerate((True, True, False)):
        h = conv(s, f"blocks.{i}.conv2", conv(s, f"blocks.{i}.conv1", x.relu()).relu())
        if halves:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(conv(s, f"blocks.{i}.shortcut", x), 2)
        x = h + x
        if i == 0:
            regions = conv(s, "regions", x).flatten(2).transpose(1, 2)
    f, e = x.relu().sum((2, 3)), dense(s, "sentence", text.sentence)
    score = dense(s, "realism", f).flatten() + (f * e.repeat(len(f) // len(e), 1)).sum(1)
    return score, f, e, regions


def both_ways(scores):
    rows = -scores.log_softmax(1).diagonal().mean()
    return rows - scores.log_softmax(0).diagonal().mean()


def of_vectors(a, b):
    return both_ways(unit(a) @ unit(b).T / 0.1)


def of_words(regions, text):
    scores = torch.zeros(len(regions), len(regions))
    for i, image in enumerate(regions):
        for j in range(len(regions)):
            words = text.words[j][text.mask[j]]
            alpha = (5 * unit(image) @ unit(words).T).softmax(0)
            context = alpha.T @ unit(image)
            cosine = (words * context).sum(1) / (words.norm(dim=1) * context.norm(dim=1))
            scores[i, j] = (5 * cosine).exp().sum().log() / 5
    return both_ways(50 * scores)


def leaves(module):
    return {
        name: t.clone().requires_grad_(t.is_floating_point() and name in dict(
            module.named_parameters()
        ))
        for name, t in module.state_dict().items()
    }  # fmt: skip


def test_a_step_has_the_losses_and_gradients_of_the_equations(double):
    made, data = trainer(), batch()
    g, d = leaves(made.generator), leaves(made.discriminator)
    engine = Recorder(made)
    made.step(data, engine)

    text = data.text
    fake = generated(g, data.noise.normal("z", 0, (Z,)), text)
    weights, new = spectral(d)
    scores, f, e, regions = judged(weights, torch.cat([data.images, fake]), text)
    hinge = (1 - scores[:N]).relu().mean() + (1 + scores[N:]).relu().mean()
    loss_d = hinge + of_words(regions[:N], text) + of_vectors(f[:N], e)
    loss_g = -scores[N:].mean() + of_words(regions[N:], text) + of_vectors(f[N:], e)
    loss_g = loss_g + of_vectors(f[N:], f[:N])
    assert [name for name, _ in engine.losses] == ["generator", "discriminator"]
    assert [value for _, value in engine.losses] == pytest.approx([loss_g.item(), loss_d.item()])
    for name, loss, state, module in (
        ("generator", loss_g, g, made.generator), ("discriminator", loss_d, d, made.discriminator)
    ):  # fmt: skip
        named = [n for n, _ in module.named_parameters()]
        expected = torch.autograd.grad(loss, [state[n] for n in named], retain_graph=True)
        size = max(float(x.abs().max()) for x in expected)
        for n, ours, theirs in zip(named, engine.gradients[name], expected, strict=True):
            assert (ours - theirs).abs().max() < 1e-9 * size, n
    after = made.discriminator.state_dict()
    for name, u in new.items():  # D's vectors have moved once, although D ran twice
        assert torch.allclose(after[name], u, rtol=0, atol=1e-12)


def test_a_step_wastes_nothing():
    """G runs once; D on real and generated images at once, and on the latter for G's loss. The
    generator waits in every other step: it then runs without a graph, and D once."""
    torch.manual_seed(0)
    config = SMALL.model_copy(update={"critic_steps": 2})
    made = GANTrainer(config, Networks(build(config, TEXT, None), Sentences()))
    runs = {"generator": [], "discriminator": []}
    for name, seen in runs.items():
        made.modules[name].register_forward_hook(
            lambda _, args, out, seen=seen: seen.append(len(args[0]))
        )
    reported, updated = [], []
    for at in range(2):
        data, engine = batch(at=at), Recorder(made)
        reported.append(set(made.step(data, engine)))
        updated.append([name for name, _ in engine.losses])
    assert runs == {"generator": [4, 4], "discriminator": [8, 4, 8]}
    assert updated == [["discriminator"], ["generator", "discriminator"]]
    assert reported[0] == reported[1]
    assert all(p.grad is None for module in made.modules.values() for p in module.parameters())
    assert not data.images.requires_grad


def test_a_step_of_the_discriminator_alone_is_that_of_both_without_a_trace_in_g(double):
    made, both = trainer(critic_steps=2), trainer()
    for name, module in both.modules.items():
        module.load_state_dict(made.modules[name].state_dict())
    before = {n: b.clone() for n, b in made.generator.named_buffers() if "num_" not in n}
    alone, engine = Recorder(made), Recorder(both)
    logged, expected = made.step(batch(at=4), alone), both.step(batch(at=4), engine)
    for name, buffer in before.items():
        assert torch.equal(dict(made.generator.named_buffers())[name], buffer), name
    for ours, theirs in zip(
        alone.gradients["discriminator"], engine.gradients["discriminator"], strict=True
    ):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert {n: x.item() for n, x in logged.items()} == pytest.approx(
        {n: x.item() for n, x in expected.items()}
    )


def test_options_that_are_ours_change_what_they_say(double):
    torch.manual_seed(2)
    data = batch()
    made = trainer(mismatched=0.5)
    weights, _ = spectral(leaves(made.discriminator))
    fake = generated(leaves(made.generator), data.noise.normal("z", 0, (Z,)), data.text)
    score, f, e, _ = judged(weights, torch.cat([data.images, fake]), data.text)
    realism = score - (f * e.repeat(2, 1)).sum(1)
    wrong = realism[:N] + (f[:N] * e[[3, 0, 1, 2]]).sum(1)
    hinge = (1 - score[:N]).relu().mean()
    hinge += (1 + score[N:]).relu().mean() / 2 + (1 + wrong).relu().mean() / 2
    assert made.step(data, Recorder(made))["discriminator"].item() == pytest.approx(hinge.item())

    generator = XMCGANGenerator(SMALL.model_copy(update={"start_from_text": True}), TEXT)
    assert generator.start.in_features == Z + 6


def test_equal_captions_are_no_mismatch():
    scores, sentences = torch.randn(3, 3), torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
    alike = equal_rows(sentences)
    assert alike.tolist() == [[True, False, True], [False, True, False], [True, False, True]]
    without = contrast(scores, alike)
    scores[0, 2] = scores[2, 0] = 7.0
    assert torch.equal(contrast(scores, alike), without)
    assert contrast(scores) > without


def test_padding_does_not_change_the_score_of_words():
    regions, words = torch.randn(2, 9, 4), torch.randn(3, 5, 4)
    mask = torch.arange(5) < torch.tensor([[5], [2], [3]])
    scores = word_scores(regions, words * mask[..., None], mask, 5.0, 5.0)
    alone = word_scores(regions, words[1:2, :2], mask[1:2, :2], 5.0, 5.0)
    assert torch.allclose(scores[:, 1:2], alone, atol=1e-5)
    assert scores.isfinite().all()


# --- networks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "g", "d"), [("coco", 78_507_779, 87_911_713), ("coco-256", 92_865_539, 99_415_585)]
)
def test_parameters_are_the_authors(preset, g, d):
    config = XMCGANConfig(**XMCGANConfig.presets()[preset].settings)
    text = TextShape(768, 768)
    with torch.device("meta"):
        made = XMCGANGenerator(config, text), Discriminator(config, text)
    assert [sum(p.numel() for p in m.parameters()) for m in made] == [g, d]


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_every_size_fits_its_networks(size):
    settings = {**XMCGANConfig.sized(size, None).settings, "gf": 2, "df": 2, "regions": 4}
    config = XMCGANConfig(**settings)
    generator = build(config, TEXT, None)
    text = Sentences().encode(["a", "bcd"])
    images = generator(torch.randn(2, *generator.noise_shape), text)
    assert images.shape == (2, 3, size, size)
    assert Discriminator(config, TEXT)(images, text.sentence).regions.shape == (2, 16, 5)


def test_the_caption_is_heard_from_the_first_step_on():
    torch.manual_seed(0)
    generator, text = build(SMALL, TEXT, None).eval(), Sentences().encode(["abc", "cdefg"])
    z = torch.randn(1, Z).expand(2, -1)
    images = generator(z, text)
    assert (images[0] - images[1]).abs().mean() > 0.05
    words = TextFeatures(text.sentence[[0, 0]], text.words, text.mask)
    assert (generator(z, words)[0] - generator(z, words)[1]).abs().mean() > 0.01
    assert torch.allclose(generator(z[:1], text[:1]), images[:1], atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 64}, r"image_size \(64\) must be 4 pixels doubled as often"),
        ({"regions": 64}, r"regions \(64\) must be one of \[4, 8, 16, 32\]"),
        ({"batch_size": 4, "accumulate": 4}, "needs two images"),
    ],
)
def test_what_does_not_fit_is_refused(settings, message):
    given = {"batch_size": 8, "image_size": 128, **settings}
    with pytest.raises(UserError, match=message):
        XMCGANConfig.of({**given, "regions": given.get("regions", 16)}, "here")


# --- the frozen image network ---------------------------------------------------------------------


def test_there_is_no_image_network_where_its_loss_has_no_weight():
    assert helpers(SMALL, TEXT, True) == {}
    config = SMALL.model_copy(update={"frozen_contrast": 0.0, "image_net": ImageNetConfig()})
    assert helpers(config, TEXT, True) == {}


def test_resnet_is_frozen_and_its_lack_is_said_with_the_remedy(monkeypatch, tmp_path):
    network = FrozenResNet().train()
    assert not network.network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert sum(p.numel() for p in network.parameters()) == 25_557_032
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("T2I_HOME", str(tmp_path))
    config = XMCGANConfig(batch_size=4)
    with pytest.raises(UserError, match=r"'xmcgan': 'timm/resnet50\.tv_in1k'.*t2i fetch resnet50"):
        helpers(config, TEXT, True)


def test_the_frozen_contrast_compares_its_vectors():
    torch.manual_seed(0)
    data = batch()
    config = SMALL.model_copy(update={"frozen_contrast": 3.0})
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 7))
    network.requires_grad_(False)
    networks = Networks(build(config, TEXT, None), Sentences(), {"image_net": network})
    made = GANTrainer(config, networks)
    fake = []
    made.generator.register_forward_hook(lambda _, __, out: fake.append(out.detach()))
    losses = made.step(data, engine := Recorder(made))
    expected = of_vectors(network(data.images), network(fake[0]))
    assert losses["fake_frozen"].item() == pytest.approx(expected.item(), rel=1e-5)
    parts = [losses[f"fake_{name}"] for name in ("words", "sentence", "images")]
    whole = losses["generator"] + sum(parts) + 3 * expected
    assert dict(engine.losses)["generator"] == pytest.approx(whole.item(), rel=1e-5)


# --- registration and the whole path --------------------------------------------------------------


def test_is_registered_with_its_presets():
    spec = registry().models["xmcgan"]
    config = resolve_config("xmcgan")
    assert (config.preset, config.data.name, config.encoder.name) == ("tiny", "shapes", "words")
    assert set(import_object(spec.config).presets()) == set(spec.presets)
    paper = resolve_config("xmcgan", preset="coco")
    assert (paper.encoder.name, paper.encoder.config.length) == ("bert", 17)
    assert (paper.settings.batch_size, paper.settings.critic_steps) == (56, 2)


def test_text_is_pretrained_where_it_can_be():
    assert [stage.name for stage in stages(SMALL, Sentences())] == ["gan"]


@pytest.mark.parametrize("kind", ["none", "clip"])
def test_trains_saves_and_draws(tmp_path, kind, small):
    from t2i import load
    from t2i.core.engine import train

    sets = small("xmcgan", "steps=4", "critic_steps=2", f"image_net.kind={kind}")
    run = train(resolve_config("xmcgan", sets=sets), tmp_path / "run")
    model = load(run.path)
    captions = ["a large red star on the left", "a small blue circle in the center"]
    plain = model.sample(captions, n=2, seed=1)
    assert [image.size for image in plain] == [(32, 32)] * 4
    assert not any("image_net" in path.read_text() for path in run.path.glob("model/*.index.json"))
