"""Flow matching: its path, times and loss against closed forms, that every network learns, and that
reflow makes paths straight."""

from types import SimpleNamespace

import pytest
import torch
from scipy import stats
from torch import nn

from t2i.core.engine import resume, train
from t2i.core.engine.reporting import Silent
from t2i.core.errors import UserError
from t2i.core.families.continuous import FlowSchedule
from t2i.core.interfaces.noise import PromptNoise, StepNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.core.interfaces.trainer import Batch, Networks
from t2i.core.io.tensors import load_tensors
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from t2i.plugins.models.flowmatching.config import FlowMatchingConfig
from t2i.plugins.models.flowmatching.networks import FlowMatchingGenerator
from t2i.plugins.models.flowmatching.times import timesteps
from t2i.plugins.models.flowmatching.training import FlowTrainer, ReflowTrainer, carried, stages
from tests.plugins.models.stand_ins import Colours, Engine
from tests.stopped import stopped_at

SMALL = {
    "image_size": 8, "space": "pixels", "lr": 5e-3, "lr_text": 5e-3, "patch": 2,
    "unet": {
        "channels": (16, 16), "layers": 1, "attention": ("none", "none"), "middle": "self",
        "head_width": 8, "groups": 4, "sentence": True, "text_map": 4,
    },
    "transformer": {"patch": 1, "width": 32, "depth": 2, "heads": 2},
}  # fmt: skip
NETWORKS = {
    "unet": {"network": "unet"},
    "cross": {"network": "transformer"},
    "joint": {"network": "transformer", "transformer": {"blocks": "joint", "qk_norm": True}},
}


def config(**settings):
    return FlowMatchingConfig.of(settings, "test", SMALL)


# --- times and loss -------------------------------------------------------------------------------


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.5, 0.6)])
def test_logit_normal_times_have_their_distribution(mean, std):
    u = torch.linspace(0.01, 0.99, 99)
    t = timesteps(config(logit_mean=mean, logit_std=std), u)
    logits = (t / (1 - t)).log()
    torch.testing.assert_close(
        torch.from_numpy(stats.norm.cdf(logits.numpy(), mean, std)).float(), u, rtol=0, atol=1e-5
    )


def test_uniform_times_are_the_numbers_themselves_and_both_ends_are_times():
    u = torch.tensor([0.0, 0.25, 1 - 2**-24])
    assert torch.equal(timesteps(config(times="uniform"), u), u)
    t = timesteps(config(), u)
    assert t[0] == 0
    assert bool((t.isfinite() & (t <= 1)).all())


@pytest.mark.parametrize("times", ["uniform", "logit-normal"])
def test_a_shift_multiplies_the_ratio_of_noise_to_signal(times):
    u = torch.linspace(0.05, 0.95, 19)
    plain, moved = (timesteps(config(times=times, shift=k), u) for k in (1.0, 3.0))
    torch.testing.assert_close(moved / (1 - moved), 3 * plain / (1 - plain), rtol=1e-4, atol=1e-6)


def test_the_loss_is_least_at_the_derivative_of_the_path():
    generator = FlowMatchingGenerator(config(), TextShape(6, 6))
    trainer = FlowTrainer(config(), Networks(generator, Colours()))
    x_0, eps = torch.randn(2, 4, 3, 8, 8)
    t = torch.rand(4, dtype=torch.float64)

    def path(t):
        share = t[:, None, None, None]
        return (1 - share) * x_0 + share * eps

    velocity = torch.func.jvp(path, (t,), (torch.ones(4, dtype=torch.float64),))[1].float()
    assert trainer.loss(velocity, x_0, x_0, t, eps) < 1e-10
    assert trainer.loss(velocity + 2, x_0, x_0, t, eps) == pytest.approx(4, abs=1e-4)
    assert isinstance(generator.schedule, FlowSchedule)
    assert generator.prediction == "velocity"


def test_eulers_method_carries_noise_to_a_gaussian():
    """For x_0 ~ N(m, s^2) the flow is x_0 = m + s eps, and E[eps - x_0 | x_t] has a closed form."""
    m, s = 0.7, 0.5

    def velocity(x, t):
        share = t[:, None]
        a = 1 - share
        rate = (share - a * s**2) / (a**2 * s**2 + share**2)
        return rate * (x - a * m) - m

    eps = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    errors = [(carried(velocity, eps, n) - (m + s * eps)).abs().max() for n in (50, 100)]
    assert errors[1] < 0.02
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.2)  # of first order


# --- presets and stages ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "shape", "text", "parameters"),
    [
        ("tiny", (8, 8, 8), TextShape(128, 128), None),
        ("shapes", (8, 8, 8), TextShape(128, 128), None),
        ("coco", (4, 32, 32), TextShape(768, 768), 159_654_928),
        ("sd3", (4, 32, 32), TextShape(768, 768), 2_018_747_856),
    ],
)
def test_presets_are_whole(preset, shape, text, parameters):
    """The numbers are sums over the layers of DiT-B/2 with words and of Stable Diffusion 3 with
    depth 24."""
    run = resolve_config("flowmatching", preset=preset, data_needed=False)
    with torch.device("meta"):
        made = FlowMatchingGenerator(run.settings, text)
        assert made.noise_shape == shape
        words = TextFeatures.of(
            words=torch.zeros(2, 9, text.words), sentence=torch.zeros(2, text.sentence)
        )
        x, t = torch.zeros(2, *shape), torch.rand(2)
        assert made(x, t, made.condition(words)).shape == x.shape
    if parameters:
        assert sum(p.numel() for p in made.network.parameters()) == parameters


def test_stages_and_their_shares():
    def shares(**settings):
        return {s.name: s.share for s in stages(config(**settings), Colours())}

    latents = {"space": "latents", "image_size": 64, "autoencoder": {"share": 0.2}}
    assert shares() == {"flow": 1}
    assert shares(**latents) == {"autoencoder": 0.2, "flow": 0.8}
    straight = shares(**latents, reflow={"share": 0.25})
    assert straight == pytest.approx({"autoencoder": 0.2, "flow": 0.6, "reflow": 0.2})
    latents["autoencoder"]["weights"] = "somewhere"
    assert shares(**latents, reflow={"share": 0.25}) == {"flow": 0.75, "reflow": 0.25}
    for preset in FlowMatchingConfig.presets():
        run = resolve_config("flowmatching", preset=preset, data_needed=False)
        assert run.settings.reflow.share == 0


def test_sizes_that_do_not_fit_are_refused():
    for settings in (
        {"image_size": 10, "network": "unet"},
        {"image_size": 9, "network": "transformer"},
        {"image_size": 12, "network": "transformer", "transformer": {"patch": 4}},
    ):
        with pytest.raises(UserError, match=r"image_size \(\d+\) must be a multiple of"):
            config(**settings)


# --- learning -------------------------------------------------------------------------------------


def batch(encoder, step, images, captions):
    noise = StepNoise(0, step, 0, len(captions), len(captions))
    return Batch(images, captions, captions, noise, encoder.encode)


def overfit(settings, steps=120):
    """A flow that knows two colours by their names, its trainer, and the losses."""
    torch.manual_seed(0)
    encoder = Colours()
    generator = FlowMatchingGenerator(settings, encoder.shape)
    trainer = FlowTrainer(settings, Networks(generator, encoder))
    engine = Engine(trainer)
    red, blue = torch.tensor([[1.0, -1, -1], [-1, -1, 1.0]])[:, :, None, None]
    images = torch.stack([red, blue] * 8).expand(16, 3, 8, 8).contiguous()
    for i in range(steps):
        trainer.step(batch(encoder, i, images, ("red", "blue") * 8), engine)
    return generator.eval(), encoder, engine.losses


def sampled_colours(generator, encoder, captions, steps=10, guidance=1.5):
    made = registry().samplers.build(
        registry().samplers.choose("ddim", {"steps": steps, "guidance": guidance})
    )
    with torch.no_grad():
        noise = PromptNoise(0, tuple((i, 0) for i in range(len(captions))))
        text, null = encoder.encode(captions), encoder.null(len(captions))
        text, null = generator.condition(text), generator.condition(null)
        images = made.sample(generator, Request(text=text, noise=noise, null=null)).mean((2, 3))
    return [("red", "blue")[int(image[2] > image[0])] for image in images]


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_network_learns_what_a_caption_says(kind):
    generator, encoder, losses = overfit(config(**NETWORKS[kind]))
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])
    captions = ["red", "blue", "red", "blue"]
    assert sampled_colours(generator, encoder, captions) == captions


# --- reflow ---------------------------------------------------------------------------------------


class Field(nn.Module):
    """A velocity field of two numbers, which has no text: a perceptron of x and t."""

    step = 1

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2)
        )

    def condition(self, text):
        return text

    def forward(self, x, t, text):
        return self.layers(torch.cat([x.flatten(1), t[:, None] / 1000], 1)).view_as(x)


class Points(FlowMatchingGenerator):
    """The flow of a field, on "images" of two numbers."""

    def __init__(self, settings):
        nn.Module.__init__(self)
        self.config, self.schedule, self.prediction = settings, FlowSchedule(), "velocity"
        self.noise_shape, self.patch, self.autoencoder = (2, 1, 1), 1, None
        self.network = Field()


def two_dots(noise, n):
    """Points near (-2, 0) and (2, 0): straight paths to them cross."""
    side = noise.integers("side", 0, 2, ()).float() * 4 - 2
    return torch.stack([side, torch.zeros(n)], 1)[..., None, None] + 0.1 * noise.normal(
        "x_0", 0, (2, 1, 1)
    )


def trained(trainer, encoder, steps, n=256):
    engine = Engine(trainer)
    for i in range(steps):
        images = two_dots(StepNoise(1, i, 0, n, n), n)
        trainer.step(batch(encoder, i, images, ("red",) * n), engine)


@pytest.fixture(scope="module")
def straightened():
    """A flow to two dots before and after reflow."""
    torch.manual_seed(0)
    settings = config(times="uniform", reflow={"share": 0.5, "steps": 20, "guidance": 1, "lr": 3e-3,
                                               "uses": 2})  # fmt: skip
    generator, encoder = Points(settings), Colours()
    networks = Networks(generator, encoder)
    trained(FlowTrainer(settings, networks), encoder, 400)
    trainer = ReflowTrainer(settings, networks)
    trained(trainer, encoder, 250)
    return SimpleNamespace(trainer=trainer, encoder=encoder, networks=networks)


def bend(field, eps, steps=40):
    """E int ||(eps - x_0) - v(x_t, t)||^2 dt along the paths of a field: 0 if they are straight
    (Liu et al. 2023)."""
    rates = []

    def velocity(x, t):
        rates.append(field(x, t * 1000, None))
        return rates[-1]

    with torch.no_grad():
        whole = eps - carried(velocity, eps, steps)
    return float(sum((whole - rate).square().sum((1, 2, 3)).mean() for rate in rates) / steps)


def test_reflow_makes_paths_straight_and_keeps_where_they_end(straightened):
    before, after = straightened.trainer.teacher, straightened.trainer.network
    eps = torch.randn(512, 2, 1, 1, generator=torch.Generator().manual_seed(5))
    assert bend(before, eps) > 0.3
    assert bend(after, eps) < 0.3 * bend(before, eps)

    def ends(field, steps):
        with torch.no_grad():
            return carried(lambda x, t: field(x, t * 1000, None), eps, steps).flatten(1)

    def away(points):
        """Mean distance from the nearer dot."""
        return float(torch.hypot(points[:, 0].abs() - 2, points[:, 1]).mean())

    assert away(ends(before, 40)) < 0.35
    assert away(ends(after, 2)) < 0.35
    assert away(ends(before, 2)) > 2 * away(ends(after, 2))


def test_reflow_trains_the_network_alone(straightened):
    trainer = straightened.trainer
    assert set(trainer.modules) == {"network", "teacher"}
    assert not any(p.requires_grad for p in trainer.teacher.parameters())
    (optimizer,) = trainer.optimizers.values()
    held = {p for group in optimizer.param_groups for p in group["params"]}
    assert held == set(trainer.network.parameters())


def test_pairs_of_reflow_are_guided_and_keyed():
    torch.manual_seed(1)
    settings = config(network="unet", reflow={"share": 0.5, "steps": 3, "guidance": 3.0})
    encoder = Colours()
    generator = FlowMatchingGenerator(settings, encoder.shape)
    for p in generator.parameters():
        nn.init.normal_(p, std=0.1)
    trainer = ReflowTrainer(settings, Networks(generator, encoder))
    eps = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        text, null = encoder.encode(["red", "blue"]), encoder.null(2)
        made = trainer.carried(eps, text, null)
        given, none = generator.condition(text), generator.condition(null)
        x = eps
        for t in (1.0, 2 / 3, 1 / 3):
            at = torch.full((2,), t)
            without = generator(x, at, none)
            x = x - (without + 3 * (generator(x, at, given) - without)) / 3
        torch.testing.assert_close(made, x, rtol=1e-4, atol=1e-4)
        alone = trainer.carried(eps[:1], text[:1], null[:1])
        torch.testing.assert_close(alone[0], made[0], rtol=1e-4, atol=1e-4)
        unguided = ReflowTrainer(
            config(network="unet", reflow={"steps": 3, "guidance": 1}), Networks(generator, encoder)
        ).carried(eps, text, null)
    assert (unguided - made).abs().max() > 1e-3


def test_an_interrupted_reflow_resumes_to_the_same_bits(tmp_path):
    sets = [
        "space=pixels", "image_size=32", "patch=8", "unet.channels=[8,8]", "unet.groups=4",
        "unet.text_map=0", "unet.outline=0", "batch_size=4", "steps=6", "warmup=0",
        "checkpoint_every=1", "keep=9", "sample_seconds=null", "reflow.share=0.5",
        "reflow.steps=2", "reflow.uses=2", "encoder.width=16",
    ]  # fmt: skip
    run = train(resolve_config("flowmatching", sets=sets), tmp_path / "whole", reporter=Silent())
    part = stopped_at(run, 4, tmp_path / "part")
    resume(part.path, reporter=Silent())
    ours, theirs = (
        load_tensors(made.model / "generator.safetensors", "model") for made in (part, run)
    )
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
