"""The authors' DF-GAN under our names: their file gives their image, their score and their losses.

`generated`, `judged` and `scored` are an independent reading of the paper's figure 2, as plain
functions of a state dict with the authors' key names, upsampling and pooling in the paper's order.
"""

import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from t2i import load
from t2i.core.errors import UserError
from t2i.core.interfaces.noise import PromptNoise, StepNoise, text_key
from t2i.core.interfaces.text import TextFeatures
from t2i.core.interfaces.trainer import Batch, Networks
from t2i.core.models.importing import import_weights
from t2i.core.models.weights import load_state
from t2i.core.runs.configure import resolve_config
from t2i.plugins.models.dfgan.networks import DFGANGenerator
from t2i.plugins.models.dfgan.training import GANTrainer
from t2i.plugins.models.dfgan.weights import discriminator_state, generator_state, output_state

NF, Z, E, SIZE = 2, 100, 16, 64
CHANNELS = [
    16,
    16,
    8,
    4,
    2,
]  # of 4, 8, 16, 32 and 64 pixels: nf * min(2^k, 8), with a block that changes none
WORDS = ["a", "red", "bird", "beak"]
SMALL = [f"image_size={SIZE}", f"nf={NF}", f"encoder.width={E}", "encoder.embedding=6"]


def drawn(shapes, gain=1.0):
    """Random tensors that keep the size of what passes through them; gammas are about 1, as they
    are in life."""
    state = {
        name: torch.randn(shape) * gain * torch.tensor(shape[1:]).prod() ** -0.5
        for name, shape in shapes.items()
    }
    return {name: tensor + ("gamma.linear2.bias" in name) for name, tensor in state.items()}


def convolution(name, c_out, c_in, size, bias=True):
    return {
        f"{name}.weight": (c_out, c_in, size, size),
        **({f"{name}.bias": (c_out,)} if bias else {}),
    }


def generator_file():
    """netG, with random weights everywhere (the authors' fusions start as the identity)."""
    shapes = {"fc.weight": (CHANNELS[0] * 16, Z), "fc.bias": (CHANNELS[0] * 16,)}
    for i, (c_in, c_out) in enumerate(pairwise(CHANNELS)):
        block = f"GBlocks.{i}"
        shapes |= convolution(f"{block}.c1", c_out, c_in, 3) | convolution(
            f"{block}.c2", c_out, c_out, 3
        )
        for fuse, channels in (("fuse1", c_in), ("fuse2", c_out)):
            for affine in ("affine0", "affine1"):
                for kind in ("fc_gamma", "fc_beta"):
                    for layer, width in (("linear1", Z + E), ("linear2", channels)):
                        name = f"{block}.{fuse}.{affine}.{kind}.{layer}"
                        shapes |= {f"{name}.weight": (channels, width), f"{name}.bias": (channels,)}
        if c_in != c_out:
            shapes |= convolution(f"{block}.c_sc", c_out, c_in, 1)
    return drawn(shapes | convolution("to_rgb.1", 3, CHANNELS[-1], 3), 0.5)


def discriminator_file():
    """netD, with the 1x1 shortcuts that are never used."""
    channels = CHANNELS[::-1]
    shapes = convolution("conv_img", channels[0], 3, 3)
    for i, (c_in, c_out) in enumerate(pairwise(channels)):
        block = f"DBlocks.{i}"
        shapes |= convolution(f"{block}.conv_r.0", c_out, c_in, 4, bias=False)
        shapes |= convolution(f"{block}.conv_r.2", c_out, c_out, 3, bias=False)
        shapes |= convolution(f"{block}.conv_s", c_out, c_in, 1) | {f"{block}.gamma": (1,)}
    return drawn(shapes)


def output_file():
    shapes = convolution("joint_conv.0", 2 * NF, CHANNELS[0] + E, 3, bias=False)
    return drawn(shapes | convolution("joint_conv.2", 1, 2 * NF, 4, bias=False), 2.0)


def conv(w, name, x, **how):
    return F.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), **how)


def fused(w, name, x, c):
    for affine in ("affine0", "affine1"):
        parts = []
        for kind in ("fc_gamma", "fc_beta"):
            at = f"{name}.{affine}.{kind}"
            h = F.relu(F.linear(c, w[f"{at}.linear1.weight"], w[f"{at}.linear1.bias"]))
            parts.append(
                F.linear(h, w[f"{at}.linear2.weight"], w[f"{at}.linear2.bias"])[:, :, None, None]
            )
        x = F.leaky_relu(parts[0] * x + parts[1], 0.2)
    return x


def generated(w, z, e):
    c = torch.cat([z, e], 1)
    x = F.linear(z, w["fc.weight"], w["fc.bias"]).reshape(len(z), -1, 4, 4)
    for i in range(len(CHANNELS) - 1):
        at = f"GBlocks.{i}"
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        h = conv(w, f"{at}.c1", fused(w, f"{at}.fuse1", x, c), padding=1)
        h = conv(w, f"{at}.c2", fused(w, f"{at}.fuse2", h, c), padding=1)
        x = h + (conv(w, f"{at}.c_sc", x) if f"{at}.c_sc.weight" in w else x)
    return torch.tanh(conv(w, "to_rgb.1", F.leaky_relu(x, 0.2), padding=1))


def judged(w, x):
    x = conv(w, "conv_img", x, padding=1)
    for i in range(len(CHANNELS) - 1):
        at = f"DBlocks.{i}"
        h = F.leaky_relu(conv(w, f"{at}.conv_r.0", x, stride=2, padding=1), 0.2)
        h = F.leaky_relu(conv(w, f"{at}.conv_r.2", h, padding=1), 0.2)
        changes = w[f"{at}.conv_r.0.weight"].shape[1] != len(h[0])
        x = F.avg_pool2d(conv(w, f"{at}.conv_s", x) if changes else x, 2) + w[f"{at}.gamma"] * h
    return x


def scored(w, h, e):
    tiled = torch.cat([h, e[:, :, None, None].repeat(1, 1, 4, 4)], 1)
    return conv(
        w, "joint_conv.2", F.leaky_relu(conv(w, "joint_conv.0", tiled, padding=1), 0.2)
    ).flatten()


@pytest.fixture
def settings():
    return resolve_config("dfgan", preset="cub", sets=SMALL, data_needed=False).settings


@pytest.fixture
def theirs():
    torch.manual_seed(0)
    return {"netG": generator_file(), "netD": discriminator_file(), "netC": output_file()}


@pytest.fixture
def trainer(settings, theirs):
    """Our trainer with their weights."""

    class Encoder:
        shape = TextFeatures.of(sentence=torch.zeros(1, E)).shape

    trainer = GANTrainer(settings, Networks(DFGANGenerator(settings, Encoder.shape), Encoder))
    load_state(trainer.generator, generator_state(theirs["netG"]), "netG")
    load_state(trainer.discriminator, discriminator_state(theirs["netD"], settings), "netD")
    load_state(trainer.output, output_state(theirs["netC"]), "netC")
    return trainer


# --- the same numbers -----------------------------------------------------------------------------


def test_the_same_image_and_the_same_score(trainer, theirs):
    z, e, x = torch.randn(3, Z), torch.randn(3, E), torch.rand(3, 3, SIZE, SIZE) * 2 - 1
    with torch.no_grad():
        image = generated(theirs["netG"], z, e)
        assert 0.05 < image.std() < 0.9  # neither grey nor saturated
        assert torch.allclose(trainer.generator(z, TextFeatures.of(sentence=e)), image, atol=1e-5)
        score = scored(theirs["netC"], judged(theirs["netD"], x), e)
        assert score.std() > 0.01
        assert torch.allclose(
            trainer.output(trainer.discriminator(x), e), score, rtol=1e-4, atol=1e-5
        )


class Recorder:
    """An engine that notes each loss with its gradients by name."""

    progress = 0.0

    def __init__(self, trainer):
        self.trainer, self.losses, self.gradients = trainer, {}, {}
        self.parts = {"generator": ("generator",), "discriminator": ("discriminator", "output")}

    def shifted(self, x):
        return torch.roll(x, 1, 0)

    def update(self, name, loss):
        self.losses[name] = loss.item()
        for part in self.parts[name]:
            named = dict(self.trainer.modules[part].named_parameters())
            found = torch.autograd.grad(loss, list(named.values()), retain_graph=True)
            self.gradients[part] = dict(zip(named, found, strict=True))


def test_the_same_losses_and_gradients(trainer, theirs, settings):
    """As the authors' step has it: the features of image i + 1 beside sentence i; sqrt, then the
    sixth power."""
    x, e = torch.rand(3, 3, SIZE, SIZE) * 2 - 1, torch.randn(3, E)
    noise = StepNoise(0, 5, 0, 3, 3)
    engine = Recorder(trainer)
    captions = ("a", "b", "c")
    trainer.step(
        Batch(x, captions, captions, noise, lambda c: TextFeatures.of(sentence=e, captions=c)),
        engine,
    )

    w = {
        part: {name: tensor.requires_grad_() for name, tensor in theirs[part].items()}
        for part in theirs
    }
    images, sentence = x.clone().requires_grad_(), e.clone().requires_grad_()
    features = judged(w["netD"], images)
    real = scored(w["netC"], features, sentence)
    mismatched = scored(w["netC"], torch.cat([features[1:], features[:1]]), e)
    fake = generated(w["netG"], noise.normal("z", 0, (Z,)), e)
    hinge = F.relu(1 - real).mean() + F.relu(1 + mismatched).mean() / 2
    hinge += F.relu(1 + scored(w["netC"], judged(w["netD"], fake.detach()), e)).mean() / 2
    slopes = torch.autograd.grad(real.sum(), (images, sentence), create_graph=True)
    norm = torch.sqrt(sum(slope.flatten(1).square().sum(1) for slope in slopes))
    penalty = 2 * (norm**6).mean()
    assert penalty > 0.01 * hinge  # it matters here
    loss_d, loss_g = hinge + penalty, -scored(w["netC"], judged(w["netD"], fake), e).mean()
    assert engine.losses["discriminator"] == pytest.approx(loss_d.item(), rel=1e-4)
    assert engine.losses["generator"] == pytest.approx(loss_g.item(), rel=1e-4)

    def gradients(loss, part):
        named = w[part]
        found = torch.autograd.grad(
            loss, list(named.values()), retain_graph=True, allow_unused=True
        )
        return {name: slope for name, slope in zip(named, found, strict=True) if slope is not None}

    expected = {
        "generator": generator_state(gradients(loss_g, "netG")),
        "discriminator": discriminator_state(gradients(loss_d, "netD"), settings),
        "output": output_state(gradients(loss_d, "netC")),
    }
    for part, slopes in expected.items():
        assert set(slopes) == set(engine.gradients[part])
        for name, slope in slopes.items():
            scale = slope.abs().max().item()
            assert torch.allclose(
                engine.gradients[part][name], slope, rtol=1e-3, atol=1e-3 * scale
            ), (part, name)


# --- the files ------------------------------------------------------------------------------------


def text_encoder_file():
    gates = 4 * (E // 2)
    shapes = {"encoder.weight": (1 + len(WORDS), 6)}
    for way in ("", "_reverse"):
        shapes |= {f"rnn.weight_ih_l0{way}": (gates, 6), f"rnn.weight_hh_l0{way}": (gates, E // 2)}
        shapes |= {f"rnn.bias_ih_l0{way}": (gates,), f"rnn.bias_hh_l0{way}": (gates,)}
    return drawn(shapes)


def vocabulary_file(words=WORDS):
    ixtoword = {0: "<end>", **{i + 1: word for i, word in enumerate(words)}}
    return [[[1, 2]], [[3]], ixtoword, {word: i for i, word in ixtoword.items()}]


@pytest.fixture
def write(tmp_path, theirs):
    """`write(**changes)` -> the three files, in no telling order, with parts replaced."""

    def files(prefix="", checkpoint=None, text=None, vocabulary=None):
        model = {
            part: {prefix + name: tensor for name, tensor in state.items()}
            for part, state in theirs.items()
        }
        paths = [
            tmp_path / name
            for name in ("captions_DAMSM.pickle", "some name.pth", "text_encoder200.pth")
        ]
        paths[0].write_bytes(pickle.dumps(vocabulary or vocabulary_file(), 2))
        torch.save(
            checkpoint
            or {"model": model, "optimizers": {"optimizer_G": {"state": {}}}, "epoch": 1220},
            paths[1],
        )
        torch.save(text or text_encoder_file(), paths[2])
        return paths

    return files


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_three_files_make_a_run_that_draws_the_authors_images(write, theirs, tmp_path, prefix):
    run = import_weights("dfgan", write(prefix), tmp_path / "run", sets=SMALL)
    config = run.config()
    assert (config.preset, config.encoder.name, config.data.name) == ("cub", "damsm", "cub")
    assert config.encoder.config.vocabulary == tuple(WORDS)
    assert config.sampler.config.truncation == 0.88
    model = load(run.path, "cpu")
    assert not model.text_encoder.trainable
    text = model.text_encoder.encode(["A red, red beak."])
    (image,) = model.sample(["A red, red beak."], settings={"truncation": None})
    z = PromptNoise(0, (text_key("A red, red beak.", 0),), "cpu").start("z", (Z,))
    expected = generated(theirs["netG"], z, text.sentence)[0].permute(1, 2, 0).detach().numpy()
    np.testing.assert_allclose(np.asarray(image) / 127.5 - 1, expected, atol=1 / 127)


@pytest.mark.parametrize(
    ("part", "change", "line"),
    [
        (
            "netG",
            lambda w: w.pop("fc.bias"),
            r"some name\.pth: netG does not fit the network: start\.bias is missing",
        ),
        (
            "netD",
            lambda w: w.update(odd=w["conv_img.bias"]),
            r"netD does not fit the network: odd is surplus",
        ),
        (
            "netC",
            lambda w: w.update({"joint_conv.2.weight": torch.ones(1)}),
            r"netC does not fit .*weight is \(1,\)",
        ),
        ("netG", lambda w: w.clear(), r"'model\.netG' is no state dict"),
    ],
)
def test_damaged_checkpoints_are_refused_by_name(write, theirs, tmp_path, part, change, line):
    change(theirs[part])
    with pytest.raises(UserError, match=line):
        import_weights("dfgan", write(), tmp_path / "run", sets=SMALL)
    assert not (tmp_path / "run").exists()


def test_files_that_are_missing_double_strange_or_of_other_words_are_told(write, tmp_path):
    vocabulary, checkpoint, text = write()

    def refusal(*files):
        with pytest.raises(UserError) as caught:
            import_weights("dfgan", files, tmp_path / "run", sets=SMALL)
        return str(caught.value)

    assert "no text encoder among the files: add the authors' text_encoder*.pth" in refusal(
        vocabulary, checkpoint
    )
    assert "no vocabulary among the files: add the authors' captions*.pickle" in refusal(
        text, checkpoint
    )
    assert "are each a checkpoint: give one of them" in refusal(checkpoint, checkpoint)
    torch.save({"emb_features.weight": torch.ones(1)}, tmp_path / "image_encoder200.pth")
    assert "image_encoder200.pth is none of the files" in refusal(tmp_path / "image_encoder200.pth")
    assert "no 'model.netG'" in refusal(*write(checkpoint={"model": {"G": 1}}))
    line = refusal(*write(vocabulary=vocabulary_file([*WORDS, "one more"])))
    assert "the weights have vectors of 5 words, the vocabulary has 6" in line
    assert "does not hold the authors' four parts" in refusal(*write(vocabulary=[1, 2]))


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).unlink, (self.path,)


def test_hostile_files_touch_nothing(write, tmp_path):
    canary = tmp_path / "canary"
    canary.write_text("alive")
    hostile = {"model": {"netG": Payload(canary)}}
    for changes, line in (
        ({"vocabulary": [Payload(canary)]}, "not plain lists"),
        ({"checkpoint": hostile}, "neither"),
    ):
        with pytest.raises(UserError, match=line):
            import_weights("dfgan", write(**changes), tmp_path / "run", sets=SMALL)
        assert canary.read_text() == "alive"


def test_presets_are_the_papers():
    for preset, steps in (("cub", 359_000), ("coco", 776_000)):
        config = resolve_config("dfgan", preset=preset, data_needed=False)
        s = config.settings
        assert (s.image_size, s.nf, s.z_dim, s.batch_size, s.steps, s.ema_decay) == (
            256,
            32,
            100,
            32,
            steps,
            0,
        )
        assert (s.lr_g, s.lr_d, s.beta1, s.beta2, s.penalty_k, s.penalty_p) == (
            1e-4,
            4e-4,
            0,
            0.9,
            2,
            6,
        )
        assert (s.start_from_text, s.fusion_gain, s.residual_gain, s.augment.flip) == (
            False,
            0,
            0,
            True,
        )
        assert (config.data.name, config.data.config.image_size) == (preset, 304)
        assert (config.encoder.name, config.encoder.config.width) == ("damsm", 256)
        assert config.sampler.config.truncation == 0.88
