"""DF-GAN: the paper's geometry, and one step's mathematics and economy."""

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
from t2i.plugins.common.text.contrastive import MatchingTrainer
from t2i.plugins.models.dfgan.config import DFGANConfig
from t2i.plugins.models.dfgan.networks import (
    DFGANGenerator,
    Discriminator,
    DownBlock,
    OneWayOutput,
    build,
    widths,
)
from t2i.plugins.models.dfgan.training import GANTrainer, stages
from tests.plugins.models.stand_ins import Recorder

TEXT = TextShape(8, 8)
SMALL = DFGANConfig(
    image_size=16, nf=4, z_dim=6, lr_g=1e-3, lr_d=1e-3, residual_gain=1.0, fusion_gain=1.0
)


def count(module):
    return sum(p.numel() for p in module.parameters())


def text(n, width=8):
    return TextFeatures.of(sentence=torch.randn(n, width), captions=[""] * n)


# --- networks -------------------------------------------------------------------------------------


def test_parameters_at_256_pixels_are_the_papers():
    """G 9.7M, D 6.6M, C 0.3M at nf 32. The authors' D counts a 1x1 shortcut in each of its three
    blocks that change no channels, which is never used and which we do not have."""
    config = DFGANConfig(image_size=256)
    assert count(DFGANGenerator(config, TextShape(256, 256))) == 9_744_131
    unused = 3 * (256 * 256 + 256)
    assert count(Discriminator(config)) + unused == 6_619_206
    assert count(OneWayOutput(config, 256)) == 295_936


def test_widths_double_up_to_eight_times():
    assert widths(32, 256) == [32, 64, 128, 256, 256, 256, 256]
    assert widths(16, 32) == [16, 32, 64, 128]
    assert widths(4, 16) == [4, 8, 16]


@pytest.mark.parametrize("size", [16, 32, 64])
def test_every_size_fits_its_networks(size):
    config = DFGANConfig(image_size=size, nf=2)
    generator = build(config, TEXT, None)
    images = generator(torch.randn(2, *generator.noise_shape), text(2))
    assert images.shape == (2, 3, size, size)
    assert images.abs().max() <= 1
    features = Discriminator(config)(images)
    assert features.shape == (2, 2 * min(8, size // 4), 4, 4)
    assert OneWayOutput(config, 8)(features, text(2).sentence).shape == (2,)


def test_refuses_sizes_that_doubling_cannot_reach():
    with pytest.raises(UserError, match="image_size' = 48: must be a power of two"):
        DFGANConfig.of({"image_size": 48}, "here")


def test_generator_hears_text_and_noise():
    torch.manual_seed(0)
    for start_from_text in (False, True):
        generator = DFGANGenerator(
            SMALL.model_copy(update={"start_from_text": start_from_text}), TEXT
        )
        z, words = torch.randn(2, 6), text(2)
        images = generator(z, words)
        assert torch.equal(images, generator(z, words))
        assert not torch.allclose(images, generator(z.flip(0), words), atol=1e-3)
        assert not torch.allclose(images, generator(z, words[[1, 0]]), atol=1e-3)
        assert torch.allclose(images[:1], generator(z[:1], words[:1]), atol=1e-6)


def test_the_papers_start_hears_text_through_fusion_alone_and_not_yet():
    """Gamma and beta start as constants: at step 0 the paper's generator is deaf to its caption."""
    generator = DFGANGenerator(DFGANConfig(image_size=16, nf=4), TEXT)
    z = torch.randn(2, 100)
    assert torch.equal(generator(z, text(2)), generator(z, text(2)))
    assert generator.start.in_features == 100


@pytest.mark.parametrize(("c_in", "c_out"), [(4, 8), (8, 8)])
def test_down_block_equals_the_papers_order_of_shortcut_then_pooling(c_in, c_out):
    block, x = DownBlock(c_in, c_out, gain=0.5), torch.randn(2, c_in, 8, 8)
    residual = F.leaky_relu(block.conv2(F.leaky_relu(block.conv1(x), 0.2)), 0.2)
    assert torch.allclose(block(x), F.avg_pool2d(block.shortcut(x), 2) + 0.5 * residual, atol=1e-6)


def test_the_papers_residuals_start_silent():
    assert [block.gain.item() for block in Discriminator(DFGANConfig(image_size=32)).blocks] == [
        0,
        0,
        0,
    ]


def test_one_way_output_sees_text_and_image():
    torch.manual_seed(0)
    output, features = OneWayOutput(SMALL, 8), torch.randn(2, 16, 4, 4)
    e = torch.randn(2, 8)
    tiled = torch.cat([features, e[:, :, None, None].repeat(1, 1, 4, 4)], 1)
    by_hand = (F.leaky_relu(output.joint(tiled), 0.2) * output.score.weight).sum((1, 2, 3))
    assert torch.allclose(output(features, e), by_hand, atol=1e-5)


# --- training -------------------------------------------------------------------------------------


class Sentences(TextEncoder):
    def __init__(self, frozen):
        super().__init__()
        self.shape = TEXT
        self.table = nn.Embedding(4, 8).requires_grad_(not frozen)

    def encode(self, captions):
        return TextFeatures.of(
            sentence=self.table(torch.tensor([len(c) for c in captions])), captions=captions
        )


def batch(encoder, n=4):
    images = torch.rand(n, 3, 16, 16) * 2 - 1
    captions = tuple("x" * i for i in range(n))
    return Batch(images, captions, captions, StepNoise(0, 5, 0, n, n), encoder.encode)


@pytest.fixture
def trainer():
    torch.manual_seed(0)
    encoder = Sentences(frozen=True)
    trainer = GANTrainer(SMALL, Networks(DFGANGenerator(SMALL, TEXT), encoder))
    trainer.encoder = encoder
    return trainer


def test_losses_of_a_step_are_the_papers(trainer):
    """Worked out anew: hinge with the sentences shifted by one, plus MA-GP; then -E[D(G(z, e),
    e)]."""
    made, engine = batch(trainer.encoder), Recorder(trainer)
    trainer.step(made, engine)
    D, C, G = trainer.discriminator, trainer.output, trainer.generator
    x, e = made.images.clone().requires_grad_(), made.text.sentence.detach().requires_grad_()
    fake = G(made.noise.normal("z", 0, (6,)), made.text)
    real = C(D(x), e)
    hinge = F.relu(1 - real).mean() + F.relu(1 + C(D(fake), e)).mean() / 2
    hinge += F.relu(1 + C(D(x), e[[3, 0, 1, 2]])).mean() / 2
    gx, ge = torch.autograd.grad(real.sum(), (x, e), create_graph=True)
    norm = torch.cat([gx.flatten(1), ge], 1).norm(dim=1)
    loss = hinge + 2 * (norm**6).mean()
    assert engine.losses["discriminator"].item() == pytest.approx(loss.item(), rel=1e-4)
    assert engine.losses["generator"].item() == pytest.approx(
        -C(D(fake), e).mean().item(), rel=1e-4
    )
    judges = [*D.parameters(), *C.parameters()]
    expected = torch.autograd.grad(loss, judges)
    for ours, theirs in zip(engine.gradients["discriminator"], expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-6)


def test_a_step_wastes_nothing(trainer):
    """One run of G; D on real, fake and again on fake; no gradient into anything that is not being
    updated."""
    calls = {"generator": 0, "discriminator": 0, "output": 0}
    for name in calls:
        trainer.modules[name].register_forward_hook(
            lambda *_, name=name: calls.update({name: calls[name] + 1})
        )
    made = batch(trainer.encoder)
    trainer.step(made, Recorder(trainer))
    assert calls == {"generator": 1, "discriminator": 3, "output": 4}
    assert all(p.grad is None for module in trainer.modules.values() for p in module.parameters())
    assert not made.images.requires_grad
    assert trainer.encoder.table.weight.grad is None


def test_a_frozen_encoder_stays_as_it_is_and_both_players_move(trainer):
    before = {
        n: [p.clone() for p in m.parameters()]
        for n, m in [*trainer.modules.items(), ("text", trainer.encoder)]
    }
    trainer.step(batch(trainer.encoder), Recorder(trainer, move=True))
    moved = {
        name: any(
            not torch.equal(p, q) for p, q in zip(module.parameters(), before[name], strict=True)
        )
        for name, module in [*trainer.modules.items(), ("text", trainer.encoder)]
    }
    assert moved == {"generator": True, "discriminator": True, "output": True, "text": False}


def test_optimizers_are_the_papers_by_default():
    config = DFGANConfig(image_size=16)
    trainer = GANTrainer(config, Networks(build(config, TEXT, None), Sentences(True)))
    settings = {
        name: (o.defaults["lr"], o.defaults["betas"]) for name, o in trainer.optimizers.items()
    }
    assert settings == {"generator": (1e-4, (0.0, 0.9)), "discriminator": (4e-4, (0.0, 0.9))}


def test_text_is_pretrained_where_it_can_be():
    generator = build(SMALL, TEXT, None)
    only = stages(SMALL, Sentences(frozen=True))
    assert [stage.name for stage in only] == ["gan"]
    both = stages(SMALL, Sentences(frozen=False))
    assert [stage.name for stage in both] == ["text", "gan"]
    assert both[0].share / (both[0].share + both[1].share) == pytest.approx(SMALL.text_share)
    encoder = Sentences(frozen=False)
    first, second = (stage.trainer(Networks(generator, encoder)) for stage in both)
    assert isinstance(first, MatchingTrainer)
    trained = {
        id(p) for o in second.optimizers.values() for g in o.param_groups for p in g["params"]
    }
    assert id(encoder.table.weight) not in trained
    assert not trained & {
        id(p) for o in first.optimizers.values() for g in o.param_groups for p in g["params"]
    }


# --- registration and the whole path --------------------------------------------------------------


def test_is_registered_with_its_presets():
    spec = registry().models["dfgan"]
    config = resolve_config("dfgan")
    assert (config.model, config.preset, config.data.name, config.encoder.name) == (
        "dfgan",
        "tiny",
        "shapes",
        "words",
    )
    assert config.sampler.name == "direct"
    assert set(import_object(spec.config).presets()) == set(spec.presets)


def test_trains_saves_and_draws(tmp_path):
    from t2i import load
    from t2i.core.engine import train

    config = resolve_config(
        "dfgan", sets=["steps=6", "text_share=0.34", "batch_size=4", "nf=2", "encoder.width=16"]
    )
    run = train(config, tmp_path / "run")
    assert [stage["name"] for stage in run.summary()["stages"]] == ["text", "gan"]
    model = load(run.path)
    captions = ["a large red star on the left", "a small blue circle in the center"]
    plain = model.sample(captions, n=2, seed=1)
    assert [image.size for image in plain] == [(32, 32)] * 4
    assert [p.tobytes() for p in plain] == [
        p.tobytes() for p in model.sample(captions, n=2, seed=1, batch_size=1)
    ]
    truncated = model.sample(captions, n=2, seed=1, settings={"truncation": 0.5})
    assert plain[0].tobytes() != truncated[0].tobytes()
