"""The vanilla and the conditional GAN: layers and losses by hand, and one step's economy."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape
from t2i.core.interfaces.trainer import Batch, Networks, optimizations
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from t2i.plugins.common.gan.mlp.networks import Layers, Maxout, uniform_of
from t2i.plugins.models.cgan.config import CGANConfig
from t2i.plugins.models.cgan.networks import build as build_cgan
from t2i.plugins.models.cgan.networks import discriminator as pairs
from t2i.plugins.models.cgan.training import CGANTrainer
from t2i.plugins.models.cgan.training import stages as cgan_stages
from t2i.plugins.models.gan.config import GANModelConfig
from t2i.plugins.models.gan.networks import build as build_gan
from t2i.plugins.models.gan.networks import discriminator
from t2i.plugins.models.gan.training import GANTrainer

E = 7
TEXT = TextShape(E, E)
DRY = {"dropout_input": 0.0, "dropout_d": 0.0, "batch_size": 4}
SMALL = {"image_size": 8, "z_dim": 5, "widths_g": (6, 9), "widths_d": (4, 3), "pieces": 2, **DRY}
PAIR = {
    **SMALL, "widths_z": (4,), "widths_text_g": (6,), "widths_text_d": (3,), "widths_pair": (5,),
    "dropout_g": 0.0,
}  # fmt: skip
QUICK = {"activations_g": ("leaky",), "output": "tanh", "activation_d": "leaky",
         "simultaneous": False, "optimizer": "adam"}  # fmt: skip


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def preset(config, name):
    return config.of(config.presets()[name].settings, name)


def shaken(module, seed=0):
    """The network with weights that all matter: the paper's are small, and biases start at 0."""
    draw = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        p.data.copy_(torch.randn(p.shape, generator=draw) * 0.5)
    return module


class Sentences(TextEncoder):
    def __init__(self, frozen=True):
        super().__init__()
        self.shape = TEXT
        self.table = nn.Embedding(8, E).requires_grad_(not frozen)

    def encode(self, captions):
        return TextFeatures.of(
            sentence=self.table(torch.tensor([len(c) for c in captions])), captions=captions
        )


# --- layers ---------------------------------------------------------------------------------------


def test_maxout_by_hand():
    """Unit u is the largest of the linear maps 3u, 3u + 1, 3u + 2."""
    torch.manual_seed(0)
    layer, x = Maxout(4, 2, 3), torch.randn(5, 4)
    z = x @ layer.linear.weight.T + layer.linear.bias
    by_hand = torch.stack([z[:, :3].max(1).values, z[:, 3:].max(1).values], 1)
    torch.testing.assert_close(layer(x), by_hand)


def test_dropout_is_of_what_a_layer_takes_and_keeps_the_mean():
    """Kept inputs are divided by the share that is kept, as the authors scale them."""
    layers = Layers(1000, (1,), ("relu",), dropout=0.2, hidden=0.5)
    nn.init.ones_(layers.layers[0][0].weight)
    layers.layers[0][0].bias.data.zero_()
    torch.manual_seed(0)
    x = torch.ones(1, 1000)
    assert layers(x).item() == pytest.approx(1000, rel=0.1)
    assert layers(x).item() % 1.25 == pytest.approx(0, abs=1e-3)
    assert layers.eval()(x).item() == 1000


def test_uniform_noise_is_the_papers():
    z = uniform_of(torch.randn(20000, generator=torch.Generator().manual_seed(0)))
    assert z.abs().max() <= math.sqrt(3)
    assert z.std().item() == pytest.approx(1, abs=0.02)
    assert (z.abs() < math.sqrt(3) / 2).float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert uniform_of(torch.zeros(1)).item() == 0


# --- the papers' networks -------------------------------------------------------------------------


def test_sizes_of_the_papers_networks():
    """MNIST: 100-1200-1200-784 and 784-(240 x 5)-(240 x 5)-1; CIFAR fully connected; Mirza."""
    mnist = preset(GANModelConfig, "mnist")
    with torch.device("meta"):
        assert count(build_gan(mnist, TEXT, None)) == 101 * 1200 + 1201 * 1200 + 1201 * 784
        assert count(*discriminator(mnist)) == 785 * 1200 + 241 * 1200 + 241
        cifar = preset(GANModelConfig, "cifar")
        assert count(build_gan(cifar, TEXT, None)) == 101 * 8000 + 8001 * 8000 + 8001 * 3072
        assert count(*discriminator(cifar)) == 3073 * 8000 + 1601 * 8000 + 1601
        mirza = preset(CGANConfig, "mnist")
        both = 101 * 200 + (E + 1) * 1000 + 1201 * 1200 + 1201 * 784
        assert count(build_cgan(mirza, TEXT, None)) == both
        judged = 785 * 1200 + (E + 1) * 250 + 291 * 960 + 241
        assert count(*pairs(mirza, E)) == judged


@pytest.mark.parametrize(
    ("config", "build", "text"),
    [(GANModelConfig(**SMALL), build_gan, False), (CGANConfig(**PAIR), build_cgan, True)],
)
def test_the_papers_generators_by_hand(config, build, text):
    g = shaken(build(config, TEXT, None))
    z, e = torch.randn(3, 5), torch.randn(3, E)
    h = torch.erf(z / 2**0.5) * 3**0.5

    def linear(name, x):
        return x @ g.get_submodule(name).weight.T + g.get_submodule(name).bias

    if text:
        of_z, of_e = (
            linear(f"{name}.layers.0.0", x).relu() for name, x in (("of_noise", h), ("of_text", e))
        )
        h = torch.cat([of_z, of_e], 1)
    for i in range(2):
        h = linear(f"hidden.layers.{i}.0", h).relu()
    y = linear("pixels", h).sigmoid().view(3, 3, 8, 8) * 2 - 1
    torch.testing.assert_close(g(z, TextFeatures.of(sentence=e)), y, atol=1e-5, rtol=0)


def test_outputs_and_activations():
    z, text = torch.randn(2, 5), TextFeatures.of(sentence=torch.randn(2, E))
    linear = GANModelConfig(**SMALL | {"output": "linear", "activations_g": ("relu", "sigmoid")})
    g = shaken(build_gan(linear, TEXT, None))
    assert [type(layer[1]) for layer in g.hidden.layers] == [nn.ReLU, nn.Sigmoid]
    assert g(z, text).abs().max() > 1
    torch.testing.assert_close(g.eval()(z, text), g.train()(z, text).clamp(-1, 1))
    grey = GANModelConfig(**SMALL | {"channels": 1})
    images = build_gan(grey, TEXT, None)(z, text)
    assert torch.equal(images[:, 0], images[:, 2])
    layers, _ = discriminator(grey)
    torch.testing.assert_close(layers(images), layers(images[:, [2, 0, 1]]))
    assert layers(torch.cat([images, images]).view(4, 3, 8, 8)).shape == (4, 3)


@pytest.mark.parametrize("standardise", [False, True])
def test_the_text_reaches_the_image_from_the_first_step(standardise):
    torch.manual_seed(0)
    config = CGANConfig(**PAIR | QUICK | {"spread_g": None, "standardise": standardise})
    g, z, e = build_cgan(config, TEXT, None).eval(), torch.randn(2, 5), torch.randn(2, E)
    images, others = (g(z, TextFeatures.of(sentence=x)) for x in (e, e.flip(0)))
    assert not torch.allclose(images, others, atol=1e-3)


def test_refuses_settings_that_cannot_work():
    with pytest.raises(UserError, match="outline: the images of this model do not depend"):
        GANModelConfig.of({"outline": 1.0}, "here")
    with pytest.raises(UserError, match="discriminator would not see the text"):
        CGANConfig.of({"widths_pair": [], "projection": False}, "here")
    with pytest.raises(UserError, match="wrong pairs need two images"):
        CGANConfig.of({"cls": 0.5, "batch_size": 1}, "here")
    with pytest.raises(UserError, match="needs a hidden layer"):
        GANModelConfig.of({"widths_d": []}, "here")


# --- training -------------------------------------------------------------------------------------


class Recorder:
    """An engine that notes each loss with its gradients, and steps if asked."""

    progress = 0.0

    def __init__(self, trainer, move=False):
        self.trainer, self.move, self.losses, self.gradients = trainer, move, {}, {}

    def shifted(self, x):
        return torch.roll(x, 1, 0)

    def update(self, name, loss):
        chosen = optimizations(self.trainer)[name]
        self.losses[name] = loss.detach()
        loss.backward(inputs=chosen.parameters)
        self.gradients[name] = [p.grad.clone() for p in chosen.parameters]
        if self.move:
            chosen.optimizer.step()
        chosen.optimizer.zero_grad()


def trainer_of(kind, settings):
    torch.manual_seed(0)
    if kind == "gan":
        config = GANModelConfig(**SMALL | settings)
        made = GANTrainer(config, Networks(build_gan(config, TEXT, None), Sentences()))
    else:
        config = CGANConfig(**PAIR | settings)
        made = CGANTrainer(config, Networks(build_cgan(config, TEXT, None), Sentences()))
    for name, module in made.modules.items():
        shaken(module, len(name)).double().train()
    return made


def batch(n=4):
    torch.manual_seed(1)
    images = (torch.rand(n, 3, 8, 8) * 2 - 1).double()
    captions = tuple("x" * i for i in range(n))
    features = TextFeatures.of(sentence=torch.randn(n, E).double(), captions=captions)

    class Noise(StepNoise):
        def normal(self, *key):
            return super().normal(*key).double()

    return Batch(images, captions, captions, Noise(0, 5, 0, n, n), None, features=features)


def bce(logits, target):
    return F.binary_cross_entropy(logits.sigmoid(), torch.full_like(logits, target))


SETTINGS = [
    {}, {"optimizer": "adam"}, {**QUICK, "cls": 0.5}, {**QUICK, "cls": 0.3, "projection": True},
    {**QUICK, "projection": True, "widths_pair": ()},
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("gan", SETTINGS[0]), ("gan", QUICK), *(("cgan", one) for one in SETTINGS)],
)
def test_losses_of_a_step_and_their_gradients_are_the_papers(kind, settings):
    trainer, made = trainer_of(kind, settings), batch()
    engine = Recorder(trainer)
    trainer.step(made, engine)
    e, x = made.text.sentence, made.images
    fake = trainer.generator(made.noise.normal("z", 0, (5,)), made.text)

    def logits(images, sentence):
        h = trainer.layers(images)
        return trainer.score(h) if kind == "gan" else trainer.pair(h, sentence)

    cls = getattr(trainer.config, "cls", 0.0)
    loss = bce(logits(x, e), 1.0) + (1 - cls) * bce(logits(fake.detach(), e), 0.0)
    loss = (loss + cls * bce(logits(x, e[[3, 0, 1, 2]]), 0.0)) / 2
    expected = {"discriminator": loss, "generator": bce(logits(fake, e), 1.0)}
    for name, value in expected.items():
        assert engine.losses[name].item() == pytest.approx(value.item(), rel=1e-9)
        parameters = optimizations(trainer)[name].parameters
        wanted = torch.autograd.grad(value, parameters, retain_graph=True)
        for ours, theirs in zip(engine.gradients[name], wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_projection_by_hand():
    config = CGANConfig(**PAIR | {"widths_pair": (), "projection": True})
    _, head = pairs(config, E)
    shaken(head)
    h, e = torch.randn(3, 3), torch.randn(3, E)
    by_hand = h @ head.score.weight[0] + head.score.bias + (h * (e @ head.project.weight.T)).sum(1)
    torch.testing.assert_close(head(h, e), by_hand)


@pytest.mark.parametrize("simultaneous", [True, False])
def test_order_of_the_updates(simultaneous):
    """At once: both gradients are at the weights before. Else G is updated against D's new ones."""
    settings = {"optimizer": "adam", "simultaneous": simultaneous, "lr_d": 0.5, "lr_g": 0.5}
    still, moving = (trainer_of("gan", settings) for _ in range(2))
    first, second = Recorder(still), Recorder(moving, move=True)
    still.step(batch(), first)
    moving.step(batch(), second)
    assert torch.equal(first.losses["discriminator"], second.losses["discriminator"])
    assert torch.equal(first.losses["generator"], second.losses["generator"]) == simultaneous
    pairs = zip(first.gradients["generator"], second.gradients["generator"], strict=True)
    assert all(torch.equal(p, q) for p, q in pairs) == simultaneous


@pytest.mark.parametrize("kind", ["gan", "cgan"])
def test_a_step_wastes_nothing(kind):
    """One run of G; D on real and fake together, then on fake; no gradient left anywhere."""
    trainer = trainer_of(kind, {**QUICK, **({"cls": 0.5} if kind == "cgan" else {})})
    calls = dict.fromkeys(trainer.modules, 0)
    for name, module in trainer.modules.items():
        module.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    trainer.step(batch(), Recorder(trainer, move=True))
    head = {"score": 2} if kind == "gan" else {"pair": 4}
    assert calls == {"generator": 1, "discriminator": 2, **head}
    assert all(p.grad is None for module in trainer.modules.values() for p in module.parameters())


def test_gradient_descent_is_the_papers():
    """Rates are divided by 1.000004 a step, down to 1e-6; the momentum rises over 250 epochs."""
    config = preset(GANModelConfig, "mnist")
    with torch.device("meta"):
        networks = Networks(build_gan(config, TEXT, None), Sentences())
        trainer = GANTrainer(config, networks)
    one = trainer.optimizers["generator"]
    assert (one.optimizer.defaults["lr"], one.optimizer.defaults["momentum"]) == (0.1, 0.5)
    assert one.schedule(0.0) == 1
    assert one.schedule(0.5) == pytest.approx(1.000004**-62500)
    slow = config.model_copy(update={"lr_divisor": 1.1})
    assert GANTrainer(slow, networks).optimizers["generator"].schedule(1.0) == pytest.approx(1e-5)
    trainer._set_momentum(0.5)
    assert one.optimizer.param_groups[0]["momentum"] == pytest.approx(0.6)
    trainer._set_momentum(1.0)
    assert one.optimizer.param_groups[0]["momentum"] == pytest.approx(0.7)


def test_initial_weights_are_the_papers():
    config = preset(GANModelConfig, "cifar").with_(image_size=8, widths_g=(40, 40), widths_d=(9,))
    g, d = build_gan(config, TEXT, None), nn.ModuleList(discriminator(config))
    assert g.hidden.layers[0][0].weight.abs().max().item() == pytest.approx(0.05, rel=0.01)
    assert g.pixels.weight.abs().max().item() == pytest.approx(0.5, rel=0.01)
    assert d[0].layers.layers[0].linear.weight.abs().max().item() == pytest.approx(0.005, rel=0.01)
    assert not any(
        p.any() for name, p in [*g.named_parameters(), *d.named_parameters()] if "bias" in name
    )


def test_sentences_are_standardised_and_measured_anew_when_the_stage_ends():
    settings = {**QUICK, "standardise": True, "recalibrate": 2}
    trainer = trainer_of("cgan", settings)
    layer = trainer.generator.sentence
    rows = layer.train()(5 + 0.1 * torch.randn(64, E).double())
    assert rows.mean().abs() < 1e-6
    assert rows.std().item() == pytest.approx(1, abs=0.05)
    for module in trainer.modules.values():
        module.eval()
    with torch.no_grad():
        trainer.finish(batch)
    torch.testing.assert_close(layer.running_mean, batch().text.sentence.mean(0))
    assert not layer.training


# --- registration ---------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["gan", "cgan"])
def test_is_registered_with_its_presets(model):
    spec = registry().models[model]
    config = resolve_config(model)
    assert (config.data.name, config.sampler.name) == ("shapes", "direct")
    assert config.encoder.name == ("none" if model == "gan" else "words")
    assert set(import_object(spec.config).presets()) == set(spec.presets)


def test_text_is_pretrained_where_it_can_be():
    config = CGANConfig(**PAIR)
    assert [s.name for s in cgan_stages(config, Sentences())] == ["gan"]
    assert [s.name for s in cgan_stages(config, Sentences(frozen=False))] == ["text", "gan"]
