"""NCSN and NCSNv2: the papers' networks, noise levels and loss, and that a caption is learned."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chi

from t2i.core.errors import UserError
from t2i.core.interfaces.noise import PromptNoise, StepNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.core.interfaces.trainer import Batch, Networks
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from t2i.plugins.models.ncsn.config import NCSNConfig
from t2i.plugins.models.ncsn.layers import Condition, InstanceNormPlus, NormShape
from t2i.plugins.models.ncsn.levels import NoiseLevels, level_count, overlap
from t2i.plugins.models.ncsn.measure import largest_distance
from t2i.plugins.models.ncsn.networks import NCSNGenerator
from t2i.plugins.models.ncsn.training import dequantised, stages
from tests.plugins.models.stand_ins import Colours, Engine

V1 = {
    "output": "score",
    "sigma_begin": 1.0,
    "levels": 10,
    "network": {"ngf": 128, "per_level": True},
}
V2 = {"output": "noise", "sigma_begin": 50.0, "levels": 232, "network": {"ngf": 128}}
NONE = TextShape(1, 1)


def generator_of(text=NONE, seed=0, **settings):
    """A small generator whose weights are all random."""
    torch.manual_seed(seed)
    made = NCSNGenerator(NCSNConfig.of({"image_size": 8, **settings}, "test"), text)
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(0, 0.2)
    return made.double().eval()


def no_text(n):
    return TextFeatures.of(sentence=torch.zeros(n, 1, dtype=torch.float64))


SMALL = {
    "v1": {
        "output": "score", "sigma_begin": 1.0, "levels": 4,
        "network": {"ngf": 4, "per_level": True},
    },
    "v2": {"output": "noise", "sigma_begin": 8.0, "levels": 5, "network": {"ngf": 4}},
    "image": {
        "output": "image", "scaled_input": True, "sigma_begin": 8.0, "levels": 5, "patch": 2,
        "network": {"ngf": 4},
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        (V1, 30_117_635),
        (V2, 29_694_083),
    ],
)
def test_the_papers_networks_have_the_papers_size(settings, count):
    with torch.device("meta"):
        made = NCSNGenerator(NCSNConfig.of({"image_size": 32, **settings}, "test"), NONE)
    assert sum(p.numel() for p in made.parameters()) == count


@pytest.mark.parametrize("preset", ["tiny", "cifar-v1", "cifar-v2", "celeba64", "shapes"])
def test_presets_are_whole(preset):
    run = resolve_config("ncsn", preset=preset, data_needed=False)
    size = run.settings.image_size
    with torch.device("meta"):
        made = NCSNGenerator(run.settings, TextShape(128, 128))
        text = made.condition(TextFeatures.of(sentence=torch.zeros(2, 128)))
        x = torch.zeros(2, *made.noise_shape)
        assert made(x, torch.tensor([0.1, 1.0]), text).shape == x.shape
    assert made.noise_shape == ((8, 8, 8) if preset == "shapes" else (3, size, size))


@pytest.mark.parametrize(("depth", "step"), [("plain", 2), ("deeper", 4), ("deepest", 8)])
def test_every_depth_accepts_the_sizes_that_it_names(depth, step):
    made = generator_of(image_size=16, levels=3, network={"ngf": 2, "depth": depth})
    assert made.size_step == step
    x = torch.randn(1, 3, 2 * step, 3 * step, dtype=torch.float64)
    assert made(x, torch.ones(1), no_text(1)).shape == x.shape


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 9}, "multiple of 2"),
        ({"output": "score"}, "does not take the noise level"),
        ({"sigma_end": 60.0}, "below sigma_begin"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        NCSNConfig.of(settings, "test")


def test_instance_norm_plus_by_hand():
    """Channel means, standardised over channels with the unbiased variance, by loops."""
    torch.manual_seed(0)
    norm = InstanceNormPlus(3, NormShape(2, 0))
    torch.nn.init.normal_(norm.embed.weight)
    x = torch.randn(2, 3, 4, 5)
    out = norm(x, Condition(torch.eye(2), None)).detach().numpy()
    rows = norm.embed.weight.detach().numpy()
    for b in range(2):
        gamma, alpha, beta = rows[b, :3], rows[b, 3:6], rows[b, 6:]
        image = x[b].numpy().astype(np.float64)
        mu = [channel.mean() for channel in image]
        m, v = np.mean(mu), np.std(mu, ddof=1)
        for c in range(3):
            unit = (image[c] - mu[c]) / math.sqrt(image[c].var() + 1e-5)
            shifted = unit + alpha[c] * (mu[c] - m) / math.sqrt(v**2 + 1e-5)
            np.testing.assert_allclose(out[b, c], gamma[c] * shifted + beta[c], rtol=0, atol=2e-6)


def test_levels_are_a_geometric_sequence_that_chains_visit():
    levels = NoiseLevels(2.0, 0.02, 10)
    sigma = levels.times(None)
    np.testing.assert_allclose(sigma.flip(0), 2 * 0.01 ** (np.arange(10) / 9), rtol=1e-12)
    np.testing.assert_allclose(levels.embedded(sigma), np.arange(9, -1, -1), atol=1e-9)
    between = torch.sqrt(sigma[3] * sigma[4])  # half way in log(sigma)
    assert float(levels.embedded(between)) == pytest.approx(5.5)
    few = levels.times(3)
    np.testing.assert_allclose(few, sigma[[2, 6, 9]])
    with pytest.raises(UserError, match="trained with 10"):
        levels.times(11)


def test_levels_are_drawn_uniformly_and_told_as_shares():
    levels = NoiseLevels(2.0, 0.02, 4)
    drawn = levels.time_at(torch.linspace(0, 0.9999, 400))
    values, counts = drawn.double().unique(return_counts=True)
    assert len(values) == 4
    assert set(counts.tolist()) <= {99, 100, 101}
    np.testing.assert_allclose(levels.level(levels.times(None)), [0.25, 0.5, 0.75, 1], atol=1e-12)


@pytest.mark.parametrize("values", [3072, 12288])
def test_neighbouring_levels_share_half_of_their_mass(values):
    """Against the exact distribution of the radius, sigma times a chi of D degrees."""
    ratio = 1 / (1 - 3 / math.sqrt(2 * values))  # where the lower end of the interval is the mean
    above, spread = math.sqrt(values) * ratio, ratio / math.sqrt(2)
    exact = chi.cdf(above + 3 * spread, values) - chi.cdf(above - 3 * spread, values)
    assert overlap(ratio, values) == pytest.approx(exact, abs=5e-3)
    assert overlap(ratio, values) == pytest.approx(0.5, abs=1e-6)
    assert level_count(50, 0.01, values) == round(math.log(5000) / math.log(ratio)) + 1


def test_the_largest_distance_by_hand():
    images = torch.rand(300, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    rows = images.flatten(1).double().numpy()
    expected = max(np.sqrt(((rows - row) ** 2).sum(1)).max() for row in rows)
    assert largest_distance(images) == pytest.approx(expected, rel=1e-9)


def test_dequantised_values_lie_within_their_step():
    level = torch.arange(256) / 255 * 2 - 1
    for u in (0.0, 0.999):
        spread = (dequantised(level, torch.full((256,), u)) + 1) / 2
        np.testing.assert_allclose(spread, (np.arange(256) + u) / 256, atol=1e-6)


class Recorder:
    progress = 0.0

    def update(self, name, loss):
        self.loss = loss


@pytest.mark.parametrize("kind", SMALL)
def test_the_loss_is_the_papers_for_images_in_0_to_1(kind):
    """1/2 sigma^2 ||s(x', sigma) + (x' - x) / sigma^2||^2, summed, where s is the gradient with
    respect to x' in [0, 1] of what the network models."""
    made = generator_of(**SMALL[kind])
    config = made.config
    (stage,) = stages(config, None)
    trainer = stage.trainer(Networks(made, Colours()))
    images = torch.rand(6, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    noise = StepNoise(0, 0, 0, 6, 6)
    engine = Recorder()
    encode = lambda captions: no_text(len(captions))  # noqa: E731
    losses = trainer.step(Batch(2 * images - 1, ("",) * 6, ("",) * 6, noise, encode), engine)
    sigmas = config.sigma_begin * (config.sigma_end / config.sigma_begin) ** (
        np.arange(config.levels) / (config.levels - 1)
    )
    index = config.levels - 1 - (noise.uniform("t", 0, ()) * config.levels).long()
    sigma = torch.from_numpy(sigmas)[index].view(-1, 1, 1, 1)
    x = images + sigma * noise.normal("eps", 0, (3, 8, 8))
    # d log p / dx' = 2 d log p / dx for x = 2 x' - 1
    s = 2 * made(2 * x - 1, 2 * sigma.flatten(), no_text(6))
    expected = (0.5 * sigma**2 * (s + (x - images) / sigma**2) ** 2).sum((1, 2, 3)).mean()
    torch.testing.assert_close(engine.loss, expected, rtol=1e-5, atol=0)
    assert losses["diffusion"] is not None


@pytest.mark.parametrize(("kind", "power"), [("v1", 0), ("v2", 1)])
def test_scores_are_those_of_the_networks_with_images_in_0_to_1(kind, power):
    """The papers' s(x', sigma') is the network's output (v1), or that over sigma' (v2)."""
    made = generator_of(**SMALL[kind])
    sigma = made.schedule.times(None)[[1, 3]]
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    output = made.network(x, made.schedule.embedded(sigma), no_text(2))
    papers = output / ((sigma / 2).view(-1, 1, 1, 1) ** power)
    torch.testing.assert_close(made(x, sigma, no_text(2)), papers / 2)


def test_a_bounded_weight_counts_the_error_of_x_0():
    """min(1 + SNR, gamma) ||x_0^ - x_0||^2 in the mean, whatever the network's output is."""
    made = generator_of(**SMALL["v2"], min_snr_gamma=5.0, reduction="mean")
    (stage,) = stages(made.config, None)
    trainer = stage.trainer(Networks(made, Colours()))
    x_0, eps = torch.randn(2, 4, 3, 8, 8, dtype=torch.float64)
    t = torch.tensor([0.1, 0.5, 2.0, 16.0], dtype=torch.float64)
    x_t = x_0 + t.view(-1, 1, 1, 1) * eps
    output = made(x_t, t, no_text(4))
    error = x_t + t.view(-1, 1, 1, 1) ** 2 * output - x_0
    weight = torch.tensor([5.0, 5.0, 1.25, 1 + 1 / 256]).view(-1, 1, 1, 1)
    expected = (weight * error**2).mean()
    torch.testing.assert_close(trainer.loss(output, x_0, x_t, t, eps), expected)


def test_a_level_of_v1_has_its_own_rows():
    made = generator_of(**SMALL["v1"])
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    made(x, made.schedule.times(None)[[1]], no_text(1)).sum().backward()
    rows = made.network.res1[0].normalize1.embed.weight.grad.abs().sum(1)
    assert rows[2] > 0
    assert rows[[0, 1, 3]].max() < 1e-6 * rows[2]


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_without_text_the_network_is_the_papers(kind):
    settings = SMALL[kind]
    network = settings["network"]
    plain = generator_of(**settings)
    told = generator_of(TextShape(6, 6), **{**settings, "network": {**network, "sentence": True}})
    own = plain.network.state_dict()
    told.network.load_state_dict(own, strict=False)
    extra = set(told.network.state_dict()) - set(own)
    assert extra
    assert all(".text." in name for name in extra)
    x, t = torch.randn(2, 3, 8, 8, dtype=torch.float64), plain.schedule.times(None)[[0, 2]]
    zero = TextFeatures.of(sentence=torch.zeros(2, 6, dtype=torch.float64))
    torch.testing.assert_close(told(x, t, zero), plain(x, t, no_text(2)), rtol=0, atol=0)
    other = TextFeatures.of(sentence=torch.ones(2, 6, dtype=torch.float64))
    assert (told(x, t, other) - plain(x, t, no_text(2))).abs().max() > 1e-3


@pytest.fixture(scope="module")
def overfitted():
    """A network that knows two colours by their names, and the encoder that was trained with it."""
    torch.manual_seed(0)
    config = NCSNConfig.of(
        {
            "image_size": 8, "patch": 2, "lr": 5e-3, "lr_text": 5e-3, "sigma_begin": 10.0,
            "levels": 12, "output": "image", "scaled_input": True, "min_snr_gamma": 5.0,
            "reduction": "mean",
            "network": {"ngf": 16, "sentence": True, "text_map": 4},
        },
        "test",
    )  # fmt: skip
    encoder = Colours()
    generator = NCSNGenerator(config, encoder.shape)
    (stage,) = stages(config, encoder)
    trainer = stage.trainer(Networks(generator, encoder))
    engine = Engine(trainer)
    colours = torch.tensor([[1.0, -1, -1], [-1, -1, 1.0]]).repeat(8, 1)[:, :, None, None]
    images, captions = colours.expand(16, 3, 8, 8).contiguous(), ("red", "blue") * 8
    for i in range(120):
        noise = StepNoise(0, i, 0, 16, 16)
        trainer.step(Batch(images, captions, captions, noise, encoder.encode), engine)
    assert sum(engine.losses[-20:]) < 0.5 * sum(engine.losses[:20])
    return generator.eval(), encoder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "settings"),
    [("ddim", {"steps": 6}), ("ddpm", {}), ("dpmpp-2m", {"steps": 6}), ("langevin", {"each": 2})],
)
def test_it_overfits_two_captions_and_samples_them(overfitted, sampler, settings):
    generator, encoder = overfitted
    asked = ["red", "blue", "red", "blue"]
    made = registry().samplers.build(
        registry().samplers.choose(sampler, {"guidance": 1.5, **settings})
    )
    with torch.no_grad():
        noise = PromptNoise(0, tuple((i, 0) for i in range(len(asked))))
        text, null = (generator.condition(encoder.encode(c)) for c in (asked, [""] * 4))
        drawn = made.sample(generator, Request(text=text, noise=noise, null=null)).mean((2, 3))
    assert [("red", "blue")[int(image[2] > image[0])] for image in drawn] == asked
    colours = torch.tensor([[1.0, -1, -1], [-1, -1, 1.0]]).repeat(2, 1)
    assert (drawn - colours).abs().max() < 0.5
