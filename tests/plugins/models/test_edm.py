"""EDM: its scalings against their definitions, its losses, and that it learns what a caption
says."""

import math

import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.interfaces.noise import PromptNoise, StepNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.core.interfaces.trainer import Batch, Networks
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from t2i.plugins.models.edm.config import EDMConfig
from t2i.plugins.models.edm.networks import EDMGenerator
from t2i.plugins.models.edm.preconditioning import iddpm_levels, preconditioner
from t2i.plugins.models.edm.training import EDMTrainer, stages
from tests.plugins.models.stand_ins import Colours, Engine

SMALL = {
    "image_size": 8, "patch": 2, "lr": 5e-3, "lr_text": 5e-3, "caption_dropout": 0.1,
    "sigma_data": 0.8, "p_mean": 0.0,
    "unet": {
        "channels": (16, 16), "layers": 1, "attention": ("none", "none"), "middle": "self",
        "head_width": 8, "groups": 4, "sentence": True, "text_map": 4,
    },
}  # fmt: skip
LEVELS = torch.tensor([0.002, 0.1, 0.5, 3.0, 80.0], dtype=torch.float64)
TRAINED = {"tiny": 32, "shapes": 32, "cifar": 32, "imagenet64": 64}


def made(**settings):
    return preconditioner(EDMConfig.of(settings, "test"))


def test_scalings_are_the_papers():
    """Table 1, written out."""
    c, sd = made().scalings(LEVELS), 0.5
    total = LEVELS**2 + sd**2
    torch.testing.assert_close(c.skip, sd**2 / total)
    torch.testing.assert_close(c.out, LEVELS * sd / total.sqrt())
    torch.testing.assert_close(c.into, 1 / total.sqrt())
    torch.testing.assert_close(c.noise, LEVELS.log() / 4)
    torch.testing.assert_close(made().weight(LEVELS), total / (LEVELS * sd) ** 2)


@pytest.mark.parametrize("skip", [None, 0.1, 2.0])
def test_input_and_target_of_the_network_have_unit_variance(skip):
    """By simulation: images of variance sigma_data^2, at every noise level."""
    torch.manual_seed(0)
    edm = made(sigma_data=0.7, sigma_skip=skip)
    y, n = torch.randn(2, 200_000, dtype=torch.float64)
    for sigma in LEVELS:
        c = edm.scalings(sigma)
        x = 0.7 * y + sigma * n
        target = (0.7 * y - c.skip * x) / c.out
        assert float((c.into * x).std()) == pytest.approx(1, abs=0.01)
        assert float(target.std()) == pytest.approx(1, abs=0.01)
        assert skip or float(edm.weight(sigma) * c.out**2) == pytest.approx(1)


def test_the_papers_skip_amplifies_the_networks_error_least():
    outs = {
        skip: made(sigma_data=0.7, sigma_skip=skip).scalings(LEVELS).out
        for skip in (0.1, 0.6, None, 0.8, 3.0)
    }
    for skip, out in outs.items():
        assert skip is None or bool((out > outs[None]).all())


def test_a_cap_bounds_the_weight():
    weight = made(weight_cap=3.0).weight(LEVELS)
    plain = made().weight(LEVELS)
    torch.testing.assert_close(weight, plain.clamp_max(3 / 0.25))
    assert float(weight[-1]) == pytest.approx(4, rel=1e-3)


def test_noise_levels_are_log_normal_and_finite():
    u = (torch.arange(10_000) + 0.5) / 10_000
    logs = made(p_mean=-1.2, p_std=1.2).levels(u).log()
    assert float(logs.mean()) == pytest.approx(-1.2, abs=1e-3)
    assert float(logs.std()) == pytest.approx(1.2, abs=3e-3)
    assert float(logs[6914].double()) == pytest.approx(-1.2 + 1.2 * 0.5, abs=1e-2)  # Phi(0.5)
    ends = made().levels(torch.tensor([0.0, 1 - 2.0**-24]))
    assert bool((ends.isfinite() & (ends > 0)).all())


def test_levels_belong_to_their_image_only():
    trainer = object.__new__(EDMTrainer)
    trainer.preconditioner = made()
    whole = trainer.times(StepNoise(3, 5, 0, 8, 8))
    torch.testing.assert_close(trainer.times(StepNoise(3, 5, 4, 4, 8)), whole[4:], rtol=0, atol=0)


def test_vp_embeds_the_time_whose_noise_it_is():
    """sigma(t)^2 = exp(19.9 t^2 / 2 + 0.1 t) - 1, D = x - sigma F."""
    vp = made(preconditioning="vp")
    t = torch.tensor([1e-3, 0.3, 0.9], dtype=torch.float64)
    sigma = (torch.expm1(19.9 * t**2 / 2 + 0.1 * t)).sqrt()
    c = vp.scalings(sigma)
    torch.testing.assert_close(c.noise, 999 * t)
    torch.testing.assert_close(c.into, (1 + sigma**2).rsqrt())
    torch.testing.assert_close(c.out, -sigma)
    torch.testing.assert_close(vp.weight(sigma), sigma**-2)
    torch.testing.assert_close(vp.levels((1 - t) / (1 - 1e-5)), sigma)


def test_ve_embeds_the_logarithm():
    ve = made(preconditioning="ve", sigma_min=0.02, sigma_max=100.0)
    c = ve.scalings(LEVELS)
    assert torch.equal(c.out, LEVELS)
    assert bool((c.skip == 1).all() & (c.into == 1).all())
    torch.testing.assert_close(c.noise, (LEVELS / 2).log())
    ends = ve.levels(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    torch.testing.assert_close(
        ends, torch.tensor([0.02, math.sqrt(0.02 * 100), 100.0], dtype=torch.float64)
    )


def test_iddpms_levels_telescope():
    """Where no step is bounded, u_j^2 + 1 = abar_1000 / abar_j; the first step is bounded."""
    u = iddpm_levels()
    j = torch.arange(1001, dtype=torch.float64)
    abar = (math.pi / 2 * j / 1000 / 1.008).sin() ** 2
    torch.testing.assert_close(u[1:], (abar[-1] / abar[1:] - 1).clamp(min=0).sqrt())
    assert float(u[0] ** 2 + 1) == pytest.approx(1000 * float(u[1] ** 2 + 1))
    iddpm = made(
        preconditioning="iddpm", network={"channels": 4, "multipliers": (1,), "kind": "adm"}
    )
    between = (u[100:103] + 0.3 * (u[101:104] - u[100:103])).float()
    assert iddpm.scalings(between).noise.tolist() == [899, 898, 897]
    assert iddpm.levels(torch.tensor([0.0, 0.9999])).tolist() == u[[0, 999]].float().tolist()


@pytest.mark.parametrize("preset", TRAINED)
def test_presets_are_whole(preset):
    paper = preset in ("cifar", "imagenet64")
    run = resolve_config(
        "edm", preset=preset, data_needed=False,
        overrides={"sampler": {"name": "ddim"}} if paper else {},
    )  # fmt: skip
    size = TRAINED[preset]
    with torch.device("meta"):
        network = EDMGenerator(run.settings, TextShape(128, 128))
        text = network.condition(TextFeatures.of(sentence=torch.zeros(2, 128)))
        x = torch.zeros(2, *network.noise_shape)
        assert network(x, torch.tensor([0.1, 80.0]), text).shape == x.shape
    assert network.noise_shape == ((8, 8, 8) if preset == "shapes" else (3, size, size))
    assert network.schedule.times(5)[-1] == 80
    assert network.prediction == "sample"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"sigma_min": 1.0, "sigma_max": 0.5}, "sigma_min"),
        ({"classes": ("cat",)}, "classes"),
        ({"preconditioning": "iddpm"}, "twice the channels"),
        ({"image_size": 30, "network": {"multipliers": (1, 1, 1)}, "patch": 1}, "image_size"),
        ({"network": {"channels": 5}}, "even"),
        ({"network": {"multipliers": (1, 0)}}, "multipliers"),
        ({"ema_sigma_rel": 1e-200}, "ema_sigma_rel"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, named):
    with pytest.raises(UserError, match=named):
        EDMConfig.of({**SMALL, "image_size": 32, **settings}, "test")


@pytest.fixture(scope="module")
def overfitted():
    """A network that knows two colours by their names, its encoder and its losses."""
    torch.manual_seed(0)
    config, encoder = EDMConfig.of(SMALL, "test"), Colours()
    generator = EDMGenerator(config, encoder.shape)
    (stage,) = stages(config, encoder)
    trainer = stage.trainer(Networks(generator, encoder))
    engine = Engine(trainer)
    colours = torch.tensor([[1.0, -1, -1], [-1, -1, 1.0]]).repeat(8, 1)[:, :, None, None]
    images, captions = colours.expand(16, 3, 8, 8).contiguous(), ("red", "blue") * 8
    for i in range(150):
        noise = StepNoise(0, i, 0, 16, 16)
        trainer.step(Batch(images, captions, captions, noise, encoder.encode), engine)
    return generator.eval(), encoder, engine.losses


def test_the_loss_falls(overfitted):
    losses = overfitted[2]
    assert losses[0] == pytest.approx(1, abs=0.5)  # of a network whose output is about 0
    assert sum(losses[-20:]) < 0.75 * sum(losses[:20])


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp-2m", "ddpm"])
def test_it_overfits_two_captions_and_samples_them(overfitted, sampler):
    generator, encoder, _ = overfitted
    asked = ["red", "blue", "red", "blue"]
    chosen = registry().samplers.choose(sampler, {"steps": 20, "guidance": 1.5})
    with torch.no_grad():
        request = Request(
            text=generator.condition(encoder.encode(asked)),
            noise=PromptNoise(0, tuple((i, 0) for i in range(len(asked)))),
            null=generator.condition(encoder.null(len(asked))),
        )
        images = registry().samplers.build(chosen).sample(generator, request).mean((2, 3))
    assert [("red", "blue")[int(image[2] > image[0])] for image in images] == asked
