"""GAN-CLS and GAN-INT: the authors' geometry and losses, worked out anew, and a step's economy."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape
from t2i.core.interfaces.trainer import Batch, Networks
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from t2i.plugins.models.gancls.config import GANCLSConfig
from t2i.plugins.models.gancls.networks import Discriminator, PairHead, build, widths
from t2i.plugins.models.gancls.training import GANTrainer, stages

E = 7
TEXT = TextShape(E, E)
SETTINGS = {
    "image_size": 32, "ngf": 4, "ndf": 4, "nt": 3, "z_dim": 5, "batch_size": 4, "captions": 1,
}  # fmt: skip
PORT = {
    "residuals": False, "joint": False, "norm_text": "both", "bare_third": False, "cls": 0.0,
    "fake": 1.0, "interp": 0.0, "label": 0.9, "features": 100.0, "pixels": 50.0,
}  # fmt: skip


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)


def preset(name):
    return GANCLSConfig.of(GANCLSConfig.presets()[name].settings, name)


def shaken(module, seed=0):
    """The network with weights and statistics that are all different and all matter."""
    draw = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and name != "to_rgb.bias":
            value = torch.randn(tensor.shape, generator=draw) * 0.2
            gain = tensor.dim() == 1 and "bias" not in name and "mean" not in name
            tensor.copy_(value.abs() + 0.5 if gain else value)
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


# --- networks -------------------------------------------------------------------------------------


def test_sizes_of_the_authors_and_of_the_ports_networks():
    """CUB 18.9M and 4.0M (the sheet's counts, which have the authors' unused biases); the port's
    4.76M and 2.90M are those of its own modules."""
    text = TextShape(1024, 1024)
    with torch.device("meta"):
        cub, port = preset("cub"), preset("port")
        sizes = [
            (
                count(build(one, text, None)),
                count(Discriminator(one), PairHead(one, 8 * one.ndf, 1024)),
            )
            for one in (cub, port)
        ]
    assert round(sizes[0][0] / 1e6, 1) == 18.9
    assert round(sizes[0][1] / 1e6, 1) == 4.0
    assert sizes[1] == (4_756_736, 2_899_072)


def test_widths_double_up_to_eight_times():
    assert widths(64, 64) == [64, 128, 256, 512]
    assert widths(64, 32) == [64, 128, 256]
    assert widths(4, 256) == [4, 8, 16, 32, 32, 32]


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("variant", [{}, PORT])
def test_every_size_fits_its_networks(size, variant):
    config = GANCLSConfig(**SETTINGS | variant | {"image_size": size})
    generator = build(config, TEXT, None)
    e = torch.randn(2, E)
    images = generator(torch.randn(2, 5), TextFeatures.of(sentence=e))
    assert images.shape == (2, 3, size, size)
    d = Discriminator(config)
    features = d(images)
    assert features.shape == (2, d.width, 4, 4)
    assert PairHead(config, d.width, E)(features, e).shape == (2,)


def normed(x, n):
    axes = (0, 2, 3)[: x.dim() - 1] if x.dim() == 4 else (0,)
    shape = (1, -1, *[1] * (x.dim() - 2))
    x = (x - x.mean(axes, keepdim=True)) / (x.var(axes, unbiased=False, keepdim=True) + 1e-5).sqrt()
    return x * n.weight.view(shape) + n.bias.view(shape)


def judged(d, head, x, e, config):
    """main_cls_int.lua's D (and main_cls.lua's), from the layers' weights."""
    convs = [m for m in d.layers if isinstance(m, nn.Conv2d)]
    norms = [m for m in d.layers if isinstance(m, nn.BatchNorm2d)]
    (block,) = (m for m in d.layers if hasattr(m, "conv3"))
    h = F.leaky_relu(F.conv2d(x, convs[0].weight, stride=2, padding=1), 0.2)
    for i in range(1, len(convs)):
        h = normed(F.conv2d(h, convs[i].weight, stride=2, padding=1), norms[i - 1])
        if i < len(convs) - 1 and not (config.bare_third and i == len(convs) - 2):
            h = F.leaky_relu(h, 0.2)
    r = F.leaky_relu(normed(F.conv2d(h, block.conv1.weight), block.norm1), 0.2)
    r = F.leaky_relu(normed(F.conv2d(r, block.conv2.weight, padding=1), block.norm2), 0.2)
    h = F.leaky_relu(h + normed(F.conv2d(r, block.conv3.weight, padding=1), block.norm3), 0.2)
    t = e @ head.text[1].weight.T + head.text[1].bias
    t = normed(t, head.text[2]) if config.norm_text != "none" else t
    t = F.leaky_relu(t, 0.2)[:, :, None, None].repeat(1, 1, 4, 4)
    j = F.conv2d(torch.cat([h, t], 1), head.joint[0].weight)
    return F.conv2d(F.leaky_relu(normed(j, head.joint[1]), 0.2), head.score.weight).flatten()


@pytest.mark.parametrize("norm", ["none", "discriminator"])
@pytest.mark.parametrize("bare", [True, False])
def test_the_discriminator_is_the_authors(norm, bare):
    config = GANCLSConfig(**SETTINGS | {"image_size": 64, "norm_text": norm, "bare_third": bare})
    d = shaken(Discriminator(config)).double().train()
    head = shaken(PairHead(config, d.width, E), 1).double().train()
    x, e = torch.randn(3, 3, 64, 64).double(), torch.randn(3, E).double()
    torch.testing.assert_close(head(d(x), e), judged(d, head, x, e, config), rtol=1e-9, atol=1e-9)


def test_refuses_settings_that_cannot_work():
    for settings, message in (
        ({"image_size": 48}, "doubles 4x4 pixels"),
        ({"batch_size": 1}, "two images at a time"),
        ({"cls": 1.0}, "generated images would weigh"),
    ):
        with pytest.raises(UserError, match=message):
            GANCLSConfig.of(settings, "here")
    assert GANCLSConfig.of({"cls": 1.0, "fake": 1.0}, "here").weight_of_fakes == 1


# --- training -------------------------------------------------------------------------------------


class Recorder:
    """An engine that notes each loss with its gradients."""

    progress = 0.0

    def __init__(self, trainer):
        self.trainer, self.losses, self.gradients = trainer, {}, {}

    def shifted(self, x):
        return torch.roll(x, 1, 0)

    def update(self, name, loss):
        groups = self.trainer.optimizers[name].param_groups
        parameters = [p for group in groups for p in group["params"] if p.requires_grad]
        self.losses[name] = loss.detach()
        loss.backward(inputs=parameters)
        self.gradients[name] = [p.grad.clone() for p in parameters]
        self.trainer.optimizers[name].zero_grad()


def trainer_of(**settings):
    torch.manual_seed(0)
    config = GANCLSConfig(**SETTINGS | settings)
    trainer = GANTrainer(config, Networks(build(config, TEXT, None), Sentences()))
    for i, module in enumerate(trainer.modules.values()):
        shaken(module, i).double().train()
    return trainer


def batch(**more):
    torch.manual_seed(1)
    captions = ("a", "bb", "ccc", "dddd")
    features = TextFeatures.of(sentence=torch.randn(4, E).double(), captions=captions)

    class Noise(StepNoise):
        def normal(self, *key):
            return super().normal(*key).double()

    images = (torch.rand(4, 3, 32, 32) * 2 - 1).double()
    noise = Noise(0, 5, 0, 4, 4)
    return Batch(images, captions, captions, noise, None, **{"features": features, **more})


def bce(logits, target, weight=1.0):
    target = torch.full_like(logits, target)
    return (F.binary_cross_entropy(logits.sigmoid(), target, reduction="none") * weight).mean()


def expected(trainer, made):
    """Both losses of a step, as main_cls_int.lua and the port have them."""
    c, D, P, e, x = (
        trainer.config,
        trainer.discriminator,
        trainer.pair,
        made.text.sentence,
        made.images,
    )
    z, half = made.noise.normal, torch.zeros(0, E).double()
    if c.interp:
        half = (e[:2] + e[2:]) / 2
        if c.extrapolate:
            half = half + (2 * made.noise.uniform("extrapolate", 0, (1,))[:2] - 1) * (e[2:] - e[:2])
    texts, name = torch.cat([e, half]), "fresh z" if c.fresh else "z"
    noise = torch.cat([z(name, 0, (5,)), z(name, 1, (5,))[: len(half)]])
    images = trainer.generator(noise, TextFeatures.of(sentence=texts))
    fake = images[:4].detach()
    if c.fresh:
        fake = trainer.generator(z("z", 0, (5,)), TextFeatures.of(sentence=e)).detach()
    # The authors' wrong pairs are other images with the right text: here, image i + 1.
    loss_d = bce(P(D(x), e), c.label) + c.weight_of_fakes * bce(P(D(fake), e), 0.0)
    loss_d = loss_d + c.cls * bce(P(D(x[[1, 2, 3, 0]]), e), 0.0)
    weight = torch.tensor([1.0] * 4 + [c.interp] * len(half)).double()
    features = D(images)
    loss_g = bce(P(features, texts), 1.0, weight)
    loss_g = loss_g + c.features * (features.mean(0) - D(x).mean(0).detach()).square().mean()
    loss_g = loss_g + c.pixels * (images[:4] - x).abs().mean()
    return {"discriminator": loss_d, "generator": loss_g}


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"interp": 0.5, "extrapolate": True, "fresh": False}, {"cls": 0.0},
        {"interp": 0.0, "fresh": False, "norm_text": "none"}, PORT, {**PORT, "cls": 1.0},
    ],
    ids=["both", "extrapolated", "int", "cls", "port", "port with cls"],
)  # fmt: skip
def test_losses_of_a_step_and_their_gradients_are_the_authors(settings):
    trainer, made = trainer_of(**settings), batch()
    engine = Recorder(trainer)
    trainer.step(made, engine)
    for name, loss in expected(trainer, made).items():
        assert engine.losses[name].item() == pytest.approx(loss.item(), rel=1e-9)
        groups = trainer.optimizers[name].param_groups
        parameters = [p for group in groups for p in group["params"] if p.requires_grad]
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
        for ours, theirs in zip(engine.gradients[name], gradients, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-10)


def test_wrong_pairs_of_one_class_do_not_count():
    trainer = trainer_of()
    made = batch(extras={"class_id": torch.tensor([1, 1, 2, 1])})
    losses = trainer.step(made, Recorder(trainer))
    D, P, e = trainer.discriminator, trainer.pair, made.text.sentence
    logits = P(D(made.images), e[[3, 0, 1, 2]])
    assert losses["wrong"].item() == pytest.approx(bce(logits[[2, 3]], 0.0).item())
    same = batch(extras={"class_id": torch.ones(4)})
    assert trainer.step(same, Recorder(trainer))["wrong"].item() == 0


def test_a_sentence_is_the_mean_of_several_captions_of_the_image():
    trainer = trainer_of(captions=3)
    encoder = Sentences()
    choices = (("a", "bb"), ("ccc",), ("dddd", "eeeee", "ffffff"), ("g",))
    made = batch(features=None, choices=choices)
    made.encode = encoder.encode
    e = trainer.sentences(made)
    u = made.noise.uniform("captions", 0, (3,))
    for i, captions in enumerate(choices):
        rows = [len(captions[int(float(x) * len(captions))]) for x in u[i]]
        torch.testing.assert_close(e[i], encoder.table.weight[rows].mean(0))
    assert not e.requires_grad
    torch.testing.assert_close(trainer.sentences(batch()), batch().text.sentence)


@pytest.mark.parametrize(("fresh", "runs"), [(True, 2), (False, 1)])
def test_a_step_wastes_nothing(fresh, runs):
    """D on real, on fake, and on fake for G; wrong pairs cost the output alone."""
    trainer = trainer_of(fresh=fresh)
    calls = dict.fromkeys(trainer.modules, 0)
    for name, module in trainer.modules.items():
        module.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    trainer.step(batch(), Recorder(trainer))
    assert calls == {"generator": runs, "discriminator": 3, "pair": 4}
    assert all(p.grad is None for module in trainer.modules.values() for p in module.parameters())


def test_statistics_are_those_of_the_averaged_weights_when_the_stage_ends():
    trainer = trainer_of(recalibrate=3)
    for module in trainer.modules.values():
        module.eval()
    means, layer = [], trainer.generator.norms[0]
    layer.register_forward_pre_hook(lambda _, x: means.append(x[0].mean((0, 2, 3))))
    with torch.no_grad():
        trainer.finish(batch)
    assert len(means) == 3
    torch.testing.assert_close(layer.running_mean, torch.stack(means).mean(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "relativistic"}, "loss=relativistic: interpolated sentences"),
        ({"unroll": 1}, "unroll=1: interpolated"),
        ({"augment_images": "ada"}, "augment_images=ada: interpolated"),
        ({"loss": "wasserstein", "interp": 0.0, "features": 1.0}, "feature matching"),
    ],
)
def test_remedies_that_it_cannot_take_are_refused_by_name(settings, message):
    with pytest.raises(UserError, match=message):
        trainer_of(**settings)


# --- registration ---------------------------------------------------------------------------------


def test_is_registered_with_its_presets():
    spec = registry().models["gancls"]
    config = resolve_config("gancls")
    presets = import_object(spec.config).presets()
    assert set(presets) == set(spec.presets)
    assert (config.encoder.name, config.sampler.name) == ("words", "direct")
    assert {presets[n].encoder[0] for n in ("cub", "flowers", "coco", "port")} == {"char-cnn-rnn"}
    assert [s.name for s in stages(preset("cub"), Sentences())] == ["gan"]
    assert [s.name for s in stages(preset("cub"), Sentences(frozen=False))] == ["text", "gan"]


def test_schedules_are_the_authors():
    cub, coco = preset("cub"), preset("coco")
    assert (cub.steps / (8855 // 64), cub.lr_halvings, cub.captions) == (600, 5, 4)
    assert (coco.steps / (82783 // 64), coco.lr_halvings, coco.captions) == (200, 4, 3)
    assert (cub.ngf, cub.ndf, coco.ngf, coco.ndf) == (128, 64, 196, 196)
    assert (cub.lr_g, cub.lr_d, cub.beta1, cub.augment.scale) == (2e-4, 2e-4, 0.5, 76 / 64)
