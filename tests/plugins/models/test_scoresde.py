"""Score-based models: the equations by simulation, the networks, the losses, and that it learns."""

import math

import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.families.schedule import add_noise
from t2i.core.interfaces.noise import PromptNoise, StepNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.core.interfaces.trainer import Batch, Networks
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from t2i.plugins.models.scoresde.config import NCSNppConfig, ScoreSDEConfig
from t2i.plugins.models.scoresde.ncsnpp import NCSNpp
from t2i.plugins.models.scoresde.networks import build
from t2i.plugins.models.scoresde.sde import (
    diffusion,
    drift,
    paper_time,
    relative_diffusion,
    schedule_of,
    timestep,
)
from t2i.plugins.models.scoresde.training import ScoreTrainer, stages
from tests.plugins.models.stand_ins import Colours, Engine

SDES = ("ve", "vp", "sub-vp")
every_sde = pytest.mark.parametrize("sde", SDES)
NARROW = {"width": 8, "multipliers": (1, 2), "layers": 1, "attention": (4,), "dropout": 0.0}
DDPMPP = {"embedding": "positional", "fir": False, "progressive_input": "none"}
SKIPS = {"progressive_input": "input_skip", "progressive": "output_skip"}
KINDS = {"ncsn++": {}, "ddpm++": DDPMPP, "skips": SKIPS}


def config_of(sde, **settings):
    net = {**NARROW, **({} if sde == "ve" else DDPMPP), **settings.pop("ncsnpp", {})}
    return ScoreSDEConfig.of({"sde": sde, "image_size": 8, "ncsnpp": net, **settings}, "test")


def randomised(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.05)
    return module


# The equations


def beta(u):
    return 0.1 + 19.9 * u


def alpha_of(u):
    return math.exp(-19.9 * u**2 / 4 - 0.1 * u / 2)


@every_sde
def test_drift_and_diffusion_are_the_papers(sde):
    """Equations 9 and 11 and the one after 12, for the sigmas of images in [-1, 1]."""
    schedule = schedule_of(ScoreSDEConfig(sde=sde, **({"network": "unet"} if sde != "ve" else {})))
    u = torch.tensor([0.01, 0.3, 0.7, 1.0], dtype=torch.float64)
    t = timestep(schedule, u)
    torch.testing.assert_close(paper_time(schedule, t), u)
    for i, time in enumerate(u.tolist()):
        a = alpha_of(time)
        f, g, sigma = {
            "ve": (0, 0.02 * 5000**time * math.sqrt(2 * math.log(5000)), 0.02 * 5000**time),
            "vp": (-beta(time) / 2, math.sqrt(beta(time)), math.sqrt(1 - a**2)),
            "sub-vp": (-beta(time) / 2, math.sqrt(beta(time) * (1 - a**4)), 1 - a**2),
        }[sde]
        assert float(schedule.sigma(t)[i]) == pytest.approx(sigma, rel=1e-9)
        assert float(drift(schedule, t)[i]) == pytest.approx(f, rel=1e-9)
        assert float(diffusion(schedule, t)[i]) == pytest.approx(g, rel=1e-9)


def path(sde, n, steps, first=0.0, last=1.0):
    """Times, drifts and diffusions of a simulation in small steps, and a source of noise."""
    config = ScoreSDEConfig(sde=sde, network="unet", sigma_max=5.0)
    schedule = schedule_of(config)
    u = torch.linspace(max(first, 1e-4), last, steps + 1, dtype=torch.float64)
    noise = torch.Generator().manual_seed(0)

    def draw():
        return torch.randn(n, generator=noise, dtype=torch.float64)

    return schedule, timestep(schedule, u), float(u[1] - u[0]), draw


@every_sde
def test_the_simulated_equation_has_the_schedules_marginals(sde):
    """Euler and Maruyama, 20,000 paths: standard errors are 0.7 % of the standard deviation, 0.5 %
    of that for the deviation itself."""
    schedule, t, du, draw = path(sde, 20_000, 300, last=0.5)
    f, g = drift(schedule, t), diffusion(schedule, t)
    x = 0.7 * schedule.alpha(t)[0] + schedule.sigma(t)[0] * draw()
    for i in range(300):
        middle_f, middle_g = (f[i] + f[i + 1]) / 2, ((g[i] ** 2 + g[i + 1] ** 2) / 2).sqrt()
        x = x * torch.exp(middle_f * du) + middle_g * math.sqrt(du) * draw()
    alpha, sigma = float(schedule.alpha(t)[-1]), float(schedule.sigma(t)[-1])
    assert float(x.mean()) == pytest.approx(0.7 * alpha, abs=0.03 * sigma)
    assert float(x.std()) == pytest.approx(sigma, rel=0.02)


CENTRES, SHARES, WIDTH = (-0.8, 0.5), (0.3, 0.7), 0.1


def mixture_score(x, alpha, sigma):
    """The exact score of a mixture of two Gaussians after noise: of each, weighted by its share."""
    variance = alpha**2 * WIDTH**2 + sigma**2
    pulls = [alpha * centre - x for centre in CENTRES]
    logs = [
        math.log(share) - pull**2 / (2 * variance)
        for share, pull in zip(SHARES, pulls, strict=True)
    ]
    weights = torch.softmax(torch.stack(logs), 0)
    return sum(weight * pull for weight, pull in zip(weights, pulls, strict=True)) / variance


@every_sde
def test_the_reverse_equation_draws_a_mixture_of_gaussians(sde):
    """Equation 6, from pure noise to the data."""
    schedule, t, du, draw = path(sde, 6000, 1000)
    f, g = drift(schedule, t), diffusion(schedule, t)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x = sigma[-1] * draw()
    for i in range(len(t) - 1, 0, -1):
        slope = f[i] * x - g[i] ** 2 * mixture_score(x, alpha[i], sigma[i])
        x = x - slope * du + g[i] * math.sqrt(du) * draw()
    right = x > -0.15
    assert float(right.double().mean()) == pytest.approx(SHARES[1], abs=0.04)
    for chosen, centre in zip((~right, right), CENTRES, strict=True):
        assert float(x[chosen].mean()) == pytest.approx(centre, abs=0.02)
        assert float(x[chosen].std()) == pytest.approx(math.hypot(WIDTH, float(sigma[0])), rel=0.1)


@every_sde
def test_times_are_uniform_in_the_papers_time(sde):
    trainer = object.__new__(ScoreTrainer)
    trainer.config = config_of(sde, t_min=0.1)
    trainer.generator = build(trainer.config, TextShape(1, 1))
    u = paper_time(trainer.generator.schedule, trainer.times(StepNoise(0, 0, 0, 4000, 4000)))
    assert float(u.min()) > 0.1 - 1e-5
    counts = torch.histc(u, 9, 0.1, 1.0)
    assert float((counts - 4000 / 9).abs().max()) < 90  # 4.5 standard deviations


# The networks


@pytest.mark.parametrize(
    ("preset", "count"),
    [
        ("cifar-ve", 62_758_787),
        ("cifar-ve-deep", 107_586_947),
        ("cifar-vp", 61_804_419),
        ("cifar-sub-vp-deep", 106_632_579),
        ("ffhq256", 65_574_421),
    ],
)
def test_the_papers_networks_have_the_papers_sizes(preset, count):
    run = resolve_config("scoresde", preset=preset)
    config = run.settings.ncsnpp.model_copy(update={"sentence": False})
    with torch.device("meta"):
        network = NCSNpp(config, run.settings.image_size, TextShape(1, 1))
    assert sum(p.numel() for p in network.parameters()) == count
    assert sum(b.numel() for b in network.buffers()) == (0 if "vp" in preset else 128)


@pytest.mark.parametrize("preset", ["tiny", "cifar-ve", "cifar-sub-vp", "ffhq256", "shapes"])
def test_presets_are_whole(preset):
    run = resolve_config("scoresde", preset=preset)
    with torch.device("meta"):
        made = build(run.settings, TextShape(128, 128))
        text = made.condition(TextFeatures.of(sentence=torch.zeros(2, 128)))
        x, t = torch.zeros(2, *made.noise_shape), torch.ones(2)
        assert made(x, t, text).shape == x.shape
    size = run.settings.image_size
    assert made.noise_shape == ((8, 8, 8) if preset == "shapes" else (3, size, size))


@pytest.mark.parametrize("kind", KINDS)
def test_without_text_it_is_the_papers_network(kind):
    """Text of zeros adds exactly nothing, other text adds something, whatever the weights."""
    torch.manual_seed(0)
    shape = TextShape(6, 6)
    plain = randomised(NCSNpp(NCSNppConfig(**{**NARROW, **KINDS[kind]}), 8, shape))
    config = NCSNppConfig(**{**NARROW, **KINDS[kind], "sentence": True, "words": True})
    texted = randomised(NCSNpp(config, 8, shape))
    texted.load_state_dict(plain.state_dict(), strict=False)
    x, numbers = torch.randn(2, 3, 8, 8), torch.tensor([0.5, 30.0])
    zero = TextFeatures.of(words=torch.zeros(2, 3, 6), sentence=torch.zeros(2, 6))
    expected = plain(x, numbers, plain.condition(zero))
    assert torch.equal(texted(x, numbers, texted.condition(zero)), expected)
    for given in ({"words": torch.randn(2, 3, 6)}, {"sentence": torch.randn(2, 6)}):
        text = TextFeatures.of(**{"words": zero.words, "sentence": zero.sentence, **given})
        assert not torch.allclose(texted(x, numbers, texted.condition(text)), expected)


def test_padding_words_count_for_nothing():
    torch.manual_seed(0)
    config = NCSNppConfig(**NARROW, words=True)
    network = randomised(NCSNpp(config, 8, TextShape(6, 6)))
    words, mask = torch.randn(1, 3, 6), torch.tensor([[True, True, False]])
    x, numbers = torch.randn(1, 3, 8, 8), torch.ones(1)
    outputs = [
        network(x, numbers, network.condition(TextFeatures.of(words=words, mask=mask)))
        for words in (words, torch.cat([words[:, :2], torch.randn(1, 1, 6)], 1))
    ]
    assert torch.equal(*outputs)


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_matters(kind):
    """Each parameter gets a gradient, so that no layer is built and left out."""
    torch.manual_seed(0)
    config = NCSNppConfig(**{**NARROW, **KINDS[kind], "sentence": True, "words": True})
    network = randomised(NCSNpp(config, 8, TextShape(6, 6)))
    text = network.condition(TextFeatures.of(words=torch.randn(2, 3, 6)))
    network(torch.randn(2, 3, 8, 8), torch.tensor([0.5, 30.0]), text).square().sum().backward()
    assert not [name for name, p in network.named_parameters() if not p.grad.abs().sum() > 0]


# The losses


def papers_loss(network, sde, images, u, z, weighting, half_sum):
    """Equation 7 in the paper's own variables: VE data are in [0, 1], and the network maps them to
    [-1, 1] and divides by sigma; a VP network is divided by -sigma outside."""
    text, a, losses = TextFeatures.of(sentence=torch.zeros(1, 1)), alpha_of, []
    for i, time in enumerate(u.tolist()):
        if sde == "ve":
            x, sigma = (images[i] + 1) / 2, 0.01 * 5000**time
            g2 = sigma**2 * 2 * math.log(5000)
            noisy = x + sigma * z[i]
            row = network(2 * noisy[None] - 1, torch.tensor([sigma]).double(), text)[0]
            score = row / sigma
        else:
            sigma = math.sqrt(1 - a(time) ** 2) if sde == "vp" else 1 - a(time) ** 2
            g2 = beta(time) * (1 if sde == "vp" else 1 - a(time) ** 4)
            noisy = a(time) * images[i] + sigma * z[i]
            row = network(noisy[None], torch.tensor([999 * time]).double(), text)[0]
            score = -row / sigma
        weight = sigma**2 if weighting == "std" else g2
        error = (score + z[i] / sigma).square()
        losses.append(weight * (error.sum() / 2 if half_sum else error.mean()))
    return sum(losses) / len(losses)


@every_sde
@pytest.mark.parametrize("weighting", ["std", "likelihood"])
@pytest.mark.parametrize("reduction", ["mean", "half-sum"])
def test_the_loss_is_the_papers(sde, weighting, reduction):
    torch.manual_seed(0)
    config = config_of(sde, weighting=weighting, reduction=reduction)
    generator = randomised(build(config, TextShape(1, 1))).double()
    trainer = object.__new__(ScoreTrainer)
    trainer.config, trainer.generator = config, generator
    images, z = torch.rand(2, 2, 3, 8, 8).double().mul(2).sub(1).unbind()
    u = torch.tensor([0.2, 0.9], dtype=torch.float64)
    t = timestep(generator.schedule, u)
    x_t = add_noise(generator.schedule, images, t, z)
    text = generator.condition(TextFeatures.of(sentence=torch.zeros(2, 1)))
    loss = trainer.loss(generator(x_t, t, text), images, x_t, t, z)
    half_sum = reduction == "half-sum"
    expected = papers_loss(generator.network, sde, images, u, z, weighting, half_sum)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v"])
def test_the_loss_does_not_depend_on_what_the_unet_computes(prediction):
    """The same eps, said in other words, has the same loss. Bounds are weights of x_0's error."""
    config = config_of("vp", network="unet", unet=SMALL, patch=2, prediction=prediction)
    trainer = object.__new__(ScoreTrainer)
    trainer.config, trainer.generator = config, build(config, TextShape(1, 1))
    schedule = trainer.generator.schedule
    images, z, guess = torch.randn(3, 2, 3, 8, 8).double().unbind()
    t = torch.tensor([0.2, 0.6], dtype=torch.float64)
    x_t = add_noise(schedule, images, t, z)
    alpha, sigma = (part(t).view(2, 1, 1, 1) for part in (schedule.alpha, schedule.sigma))
    x_0 = (x_t - sigma * guess) / alpha
    output = {"epsilon": guess, "sample": x_0, "v": alpha * guess - sigma * x_0}[prediction]
    loss = trainer.loss(output, images, x_t, t, z)
    torch.testing.assert_close(loss, (guess - z).square().mean())
    trainer.config = config.model_copy(update={"weight_bounds": (3.0, 3.0)})
    loss = trainer.loss(output, images, x_t, t, z)
    torch.testing.assert_close(loss, 3 * (x_0 - images).square().mean())


# Learning


SMALL = {
    "channels": (16, 16), "layers": 1, "attention": ("none", "none"), "middle": "self",
    "head_width": 8, "groups": 4, "sentence": True, "text_map": 4,
}  # fmt: skip
UNET = {
    "network": "unet", "prediction": "sample", "weight_bounds": (1.0, 5.0), "patch": 2,
    "unet": SMALL,
}  # fmt: skip


def overfit(sde, steps, **settings):
    """A network that knows two colours by their names, its encoder, and the losses."""
    torch.manual_seed(0)
    settings = {"lr": 5e-3, "lr_text": 5e-3, "sigma_max": 10.0, **settings}
    config, encoder = config_of(sde, **settings), Colours()
    generator = build(config, encoder.shape)
    (stage,) = stages(config, encoder)
    trainer = stage.trainer(Networks(generator, encoder))
    engine = Engine(trainer)
    colours = torch.tensor([[1.0, -1, -1], [-1, -1, 1.0]]).repeat(8, 1)
    images = colours[:, :, None, None].expand(16, 3, 8, 8).contiguous()
    captions = ("red", "blue") * 8
    for i in range(steps):
        batch = Batch(images, captions, captions, StepNoise(0, i, 0, 16, 16), encoder.encode)
        trainer.step(batch, engine)
    return generator.eval(), encoder, engine.losses


@pytest.mark.parametrize("sde", ["ve", pytest.param("sub-vp", marks=pytest.mark.slow)])
def test_it_overfits_two_captions_and_draws_them(sde):
    generator, encoder, losses = overfit(sde, 100, **UNET)
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])
    asked = ["red", "blue", "red", "blue"]
    chosen = registry().samplers.choose("ddim", {"steps": 20, "guidance": 1.5})
    with torch.no_grad():
        noise = PromptNoise(0, tuple((i, 0) for i in range(len(asked))))
        text, null = (generator.condition(encoder.encode(c)) for c in (asked, [""] * 4))
        request = Request(text=text, noise=noise, null=null)
        drawn = registry().samplers.build(chosen).sample(generator, request).mean((2, 3))
    assert [("red", "blue")[int(image[2] > image[0])] for image in drawn] == asked


def test_the_papers_network_learns():
    _, _, losses = overfit("ve", 40, ncsnpp={"sentence": True, "words": True})
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


# Settings


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"sigma_min": 60.0}, "sigma_min must be below sigma_max"),
        ({"sde": "vp", "beta_0": 30.0}, "beta_0 must be below beta_1"),
        ({"sde": "vp", "beta_1": 3000.0}, "beta_1"),
        ({"weight_bounds": (5.0, 1.0)}, "two ascending numbers"),
        ({"prediction": "sample"}, "computes eps"),
        ({"network": "diffusers"}, "names its folder"),
        ({"ncsnpp": {"embedding": "positional"}}, "is for times"),
        ({"ncsnpp": {"fir": False}}, "use the filter"),
        ({"ncsnpp": {"multipliers": ()}}, "at least one number"),
        ({"image_size": 8, "unet": SMALL, "ncsnpp": {"multipliers": (1,) * 5}}, "multiple of 16"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, named):
    with pytest.raises(UserError, match=named):
        ScoreSDEConfig.of(settings, "test")


def test_an_unused_unet_does_not_bound_the_size_and_odd_widths_are_refused():
    narrow = {"width": 8, "multipliers": (1, 2), "layers": 1}
    assert ScoreSDEConfig.of({"image_size": 36, "ncsnpp": narrow}, "test").image_size == 36
    config = ScoreSDEConfig.of({"ncsnpp": {"width": 132, "layers": 1}}, "test")
    with pytest.raises(UserError, match=r"132 channels: .* 32 groups"):
        build(config, TextShape(1, 1))


def test_the_likelihood_weight_of_ve_is_a_constant():
    schedule = schedule_of(ScoreSDEConfig())
    weight = relative_diffusion(schedule, torch.tensor([0.02, 3.0, 100.0]))
    torch.testing.assert_close(weight, torch.full((3,), 2 * math.log(5000)))
