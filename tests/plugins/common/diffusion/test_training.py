"""What diffusion models share: the losses and noise levels against their equations, and the two
U-Nets."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.families.continuous import FlowSchedule, VESchedule, VPSchedule, named_schedule
from t2i.core.families.prediction import target
from t2i.core.families.schedule import DiscreteSchedule, add_noise
from t2i.core.interfaces.noise import PromptNoise, StepNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.core.registry.tables import registry
from t2i.plugins.common.diffusion.config import DenoisingConfig, UNetConfig
from t2i.plugins.common.diffusion.text_map import SentenceMap, WordMap
from t2i.plugins.common.diffusion.training import denoising_loss, draw_times, outline_loss
from t2i.plugins.common.diffusion.unet import Prepared, conditional_unet
from t2i.plugins.models.ddpm.config import DDPMConfig
from t2i.plugins.models.ddpm.networks import DDPMGenerator

TEXT = TextShape(12, 16)
SMALL = {"channels": (8, 16), "layers": 1, "head_width": 8, "groups": 4}


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v", "velocity", "score"])
@pytest.mark.parametrize("schedule", ["linear", "mixing"])
@pytest.mark.parametrize("loss", ["l2", "l1"])
def test_the_loss_is_the_error_of_what_is_predicted(prediction, schedule, loss):
    if (prediction, schedule) == ("velocity", "linear"):
        with pytest.raises(
            UserError, match="schedule=linear counts steps: set schedule=mixing, or prediction=v"
        ):
            DenoisingConfig.of({"prediction": prediction, "schedule": schedule}, "test")
        return
    config = DenoisingConfig(prediction=prediction, schedule=schedule, loss=loss)
    noises = named_schedule(schedule)
    z_0, eps, output = torch.randn(3, 4, 2, 8, 8)
    t = (
        torch.tensor([0.1, 0.4, 0.6, 0.9])
        if schedule == "mixing"
        else torch.tensor([3, 400, 800, 999])
    )
    alpha, sigma = (value.view(-1, 1, 1, 1) for value in (noises.alpha(t), noises.sigma(t)))
    z_t = alpha * z_0 + sigma * eps
    torch.testing.assert_close(add_noise(noises, z_0, t, eps), z_t)
    error = {
        "epsilon": output - eps,
        "sample": output - z_0,
        "v": output - (alpha * eps - sigma * z_0),
        "velocity": output - (eps - z_0),
        "score": sigma * (output + eps / sigma),  # weighted, as score matching does
    }[prediction]

    def mean(x):
        return x.pow(2).mean() if loss == "l2" else x.abs().mean()

    torch.testing.assert_close(
        denoising_loss(config, noises, output, z_0, z_t, t, eps), mean(error)
    )
    # The error of x_0: nothing if the network is right, whatever it predicts.
    of_x_0 = config.model_copy(update={"error": "x_0"})
    truth = target(noises, prediction, z_0, t, eps)
    assert denoising_loss(of_x_0, noises, truth, z_0, z_t, t, eps) < 1e-2
    x_0 = {
        "epsilon": (z_t - sigma * output) / alpha,
        "sample": output,
        "v": (alpha * z_t - sigma * output) / (alpha**2 + sigma**2),
        "velocity": z_t - sigma * output,
        "score": (z_t + sigma**2 * output) / alpha,
    }[prediction]
    of_truth = denoising_loss(of_x_0, noises, output, z_0, z_t, t, eps)
    torch.testing.assert_close(of_truth, mean(x_0 - z_0))
    for gamma in (
        5.0,
        1e9,
    ):  # between the error of x_0 and, if it predicts x_0, that of v = (alpha z_t - x_0) / sigma
        capped = of_x_0.model_copy(update={"min_snr_gamma": gamma})
        expected = mean((x_0 - z_0) * torch.minimum(1 / sigma.square(), torch.tensor(gamma)).sqrt())
        torch.testing.assert_close(
            denoising_loss(capped, noises, output, z_0, z_t, t, eps), expected
        )
        assert expected > of_truth


def test_noise_levels_follow_their_distribution():
    noise = StepNoise(0, 5, 0, 4000, 4000)
    u = noise.uniform("t", 0, ())
    assert torch.equal(draw_times(FlowSchedule(), None, noise), u)
    # Beta(1, b) has the distribution function 1 - (1 - t)^b.
    torch.testing.assert_close(
        draw_times(FlowSchedule(), (1.0, 2.5), noise), 1 - (1 - u) ** (1 / 2.5)
    )
    schedule = DiscreteSchedule.named("linear", 50)
    t = draw_times(schedule, (2.0, 1.0), noise)  # its distribution function is t^2
    assert torch.equal(t, (u.double().sqrt() * 50).long().clamp(max=49))
    assert torch.equal(draw_times(schedule, None, noise), noise.integers("t", 0, 50))
    for path in (VPSchedule(), VESchedule()):
        level = path.level(draw_times(path, None, noise))
        inside = (u > 0.01) & (u < 0.98)
        torch.testing.assert_close(level[inside], u[inside], rtol=1e-3, atol=1e-4)
    with pytest.raises(UserError, match="noise_level_beta"):
        DenoisingConfig.of({"noise_level_beta": (1.0, 0.0)}, "test")


@pytest.mark.parametrize(
    ("former", "name", "value"),
    [("weight_cap", "min_snr_gamma", 5.0), ("levels", "noise_level_beta", (1.0, 2.0))],
)
def test_settings_of_old_runs_are_read(former, name, value):
    assert DenoisingConfig.of({former: value}, "test").model_dump()[name] == value
    assert former not in DenoisingConfig.of({former: value}, "test").model_dump()


def features(seed, n=2):
    random = torch.Generator().manual_seed(seed)
    sentence, words = torch.randn(n, 12, generator=random), torch.randn(n, 5, 16, generator=random)
    return TextFeatures(sentence, words, torch.ones(n, 5, dtype=torch.bool))


@pytest.mark.parametrize(
    ("settings", "sentence", "words"),
    [
        ({"attention": ("none", "none"), "middle": "self"}, False, False),
        ({"attention": ("none", "self"), "middle": "none", "text_map": 3}, True, False),
        ({"attention": ("self", "none"), "middle": "self", "sentence": True}, True, False),
        ({"attention": ("self", "cross"), "middle": "cross"}, False, True),
        (
            {"attention": ("none", "none"), "middle": "cross", "sentence": True, "text_map": 3},
            True,
            True,
        ),
        (
            {"attention": ("none", "self"), "middle": "none", "text_map": 3, "map_hops": 2},
            True,
            True,
        ),
        (
            {"attention": ("none", "none"), "middle": "none", "map_hops": 2, "outline": 1.0},
            False,
            False,
        ),
    ],
)
def test_text_reaches_the_output_by_the_ways_that_are_open(settings, sentence, words):
    torch.manual_seed(0)
    network = conditional_unet(UNetConfig(**SMALL, **settings), 3, 16, TEXT).eval()
    with torch.no_grad():
        for p in network.parameters():  # diffusers begins some last layers at zero
            if not p.any():
                p.normal_(std=0.1)
        x, t, one, other = (
            torch.randn(2, 3, 16, 16),
            torch.tensor([10, 900]),
            features(0),
            features(1),
        )

        def output(sentence, words, t=t):
            return network(x, t, network.condition(TextFeatures(sentence, words, one.mask)))

        plain = output(one.sentence, one.words)
        assert plain.shape == x.shape
        assert torch.equal(output(other.sentence, one.words), plain) == (not sentence)
        assert torch.equal(output(one.sentence, other.words), plain) == (not words)
        assert not torch.equal(output(one.sentence, one.words, torch.tensor([10, 901])), plain)
        # A time of the straight path is embedded as an index of a thousand is.
        real = FlowSchedule().embedded(torch.tensor([0.01, 0.9]))
        torch.testing.assert_close(
            output(one.sentence, one.words, real), plain, rtol=1e-3, atol=1e-4
        )


def test_each_place_of_the_word_map_asks_the_words_that_are_there():
    torch.manual_seed(0)
    network, text = WordMap(16, 3, 16, heads=2, hops=1), features(0)
    text.mask[1, 3:] = False  # at the second image's words that are none, nobody looks
    (hop,) = network.hops
    b, y, x, length = 1, 5, 2, 3
    query = network.queries[8 * y + x]
    asked, (k, v) = hop.q(hop.norm(query)), hop.kv(text.words[b, :length]).chunk(2, 1)
    heard = []
    for part in (slice(0, 8), slice(8, 16)):
        weights = (k[:, part] @ asked[part] / 8**0.5).softmax(0)
        heard.append(weights @ v[:, part])
    query = query + hop.out(torch.cat(heard))
    query = query + hop.think(query)
    coarse = WordMap(16, 3, 8, heads=2, hops=1)
    coarse.load_state_dict(network.state_dict())
    torch.testing.assert_close(coarse(text)[b, :, y, x], network.out(query))
    torch.testing.assert_close(F.interpolate(coarse(text), size=16, mode="bilinear"), network(text))
    two = WordMap(16, 3, 8, heads=2, hops=2)
    assert two(text).shape == (2, 3, 8, 8)


def test_sinusoidal_queries_are_alike_at_near_places():
    queries = WordMap(64, 3, 8, heads=2, hops=1, queries="sinusoids").queries.detach()
    assert queries.std() == pytest.approx(0.5, rel=1e-5)
    grid = F.normalize(queries, dim=1).view(8, 8, 64)
    alike = torch.einsum("d,yxd->yx", grid[2, 3], grid)
    near = torch.stack([alike[2, 2], alike[2, 4], alike[1, 3], alike[3, 3]])
    assert alike.argmax() == 2 * 8 + 3
    assert near.min() > alike[4:].max()
    assert near.min() > alike[:, 5:].max()
    rows, columns = queries.view(8, 8, 64).split(32, 2)  # half of the width for each axis
    torch.testing.assert_close(rows[5, 1], rows[5, 6])
    torch.testing.assert_close(columns[5, 1], columns[0, 1])
    odd = WordMap(18, 3, 8, heads=2, hops=1, queries="sinusoids").queries
    assert not odd[:, 16:].any()


def test_the_map_of_words_needs_no_sentence():
    settings = {**SMALL, "attention": ("none", "none"), "middle": "none", "text_map": 3}
    alone = UNetConfig(**settings, map_hops=1, map_sentence=False, outline=1.0)
    network, text = conditional_unet(alone, 12, 8, TEXT).eval(), features(0)
    mapped = network.mapped(text)
    assert not any(name.startswith("map.") for name, _ in network.named_parameters())
    expected = network.to_outline(network.word_map(text))
    torch.testing.assert_close(network.outline(mapped), expected)
    with pytest.raises(UserError, match="text_map is made of nothing"):
        UNetConfig.of({**settings, "map_sentence": False}, "test")


def test_the_outline_is_x_0_as_the_map_tells_it():
    torch.manual_seed(0)
    settings = {
        "attention": ("none", "none"),
        "middle": "none",
        "text_map": 3,
        "map_hops": 1,
        "outline": 0.5,
    }
    network, text = (
        conditional_unet(UNetConfig(**SMALL, **settings), 12, 8, TEXT).eval(),
        features(0),
    )
    x, t, mapped = torch.randn(2, 12, 8, 8), torch.tensor([10, 900]), network.mapped(text)
    with pytest.raises(ValueError, match="call the generator's `condition`"):
        network(x, t, text)
    assert network(x, t, mapped).shape == x.shape
    z_0 = torch.randn(2, 3, 16, 16)  # which the network would see as 2x2 patches
    grid = network.map(text.sentence) + network.word_map(text)
    outline = torch.einsum("oi,bihw->bohw", network.to_outline.weight[..., 0, 0], grid)
    outline = F.pixel_shuffle(outline + network.to_outline.bias[:, None, None], 2)
    loss = outline_loss(network, z_0, mapped)
    torch.testing.assert_close(loss, (outline - z_0).square().mean())
    loss.backward()
    reached = {
        name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert not any(name.startswith("unet.") for name in reached)
    assert {"map.linear.weight", "word_map.queries", "to_outline.weight"} <= reached


def test_u_nets_that_do_not_add_up_are_refused():
    with pytest.raises(UserError, match="attention has 1 levels, channels 2"):
        UNetConfig.of({**SMALL, "attention": ("none",)}, "test")
    with pytest.raises(UserError, match="set middle=cross"):
        UNetConfig.of({**SMALL, "attention": ("none", "cross"), "middle": "self"}, "test")


def calls_of(network):
    """How often each part that is of the text alone is called: the list grows."""
    seen, parts = [], [m for m in network.modules() if isinstance(m, (SentenceMap, WordMap))]
    if isinstance(getattr(network, "sentence", None), torch.nn.Module):
        parts.append(network.sentence)
    for part in parts:
        part.register_forward_hook(
            lambda module, given, output: seen.append((type(module).__name__, len(output)))
        )
    for part in (m for m in network.modules() if isinstance(m, Prepared)):
        of = part.of
        part.of = lambda x, of=of: (seen.append(("Prepared", len(x))), of(x))[1]
    return seen


@pytest.mark.parametrize("name", ["ddim", "heun", "ddpm"])
@pytest.mark.parametrize("kind", ["words", "plain"])
def test_of_the_text_everything_is_computed_once_a_request(name, kind):
    """Maps and projections: once for the texts and once for no text, however long the chain is."""
    middle = {"words": "cross", "plain": "self"}[kind]
    settings = {
        **SMALL,
        "attention": ("none", "none"),
        "middle": middle,
        "sentence": True,
        "text_map": 3,
        "map_hops": 2,
    }
    generator = DDPMGenerator(DDPMConfig(image_size=16, unet=UNetConfig(**settings)), TEXT).eval()
    seen = calls_of(generator.unet)
    noise = PromptNoise(0, ((0, 0), (1, 0)))
    with torch.no_grad():
        request = Request(
            text=generator.condition(features(0)),
            null=generator.condition(features(1)),
            noise=noise,
        )
        third = "Prepared" if kind == "words" else "Linear"
        assert sorted(seen) == sorted([(part, 2) for part in ("SentenceMap", "WordMap", third)] * 2)
        seen.clear()
        choice = registry().samplers.choose(name, {"steps": 4, "guidance": 2.0})
        images = registry().samplers.build(choice).sample(generator, request)
    assert seen == []
    assert images.isfinite().all()


def test_the_sentences_projection_keeps_its_names_and_its_numbers():
    """diffusers' UNet2DConditionModel applies it in every call; a state dict of before still
    fits."""
    torch.manual_seed(0)
    settings = {**SMALL, "attention": ("none", "none"), "middle": "cross", "sentence": True}
    network, text = conditional_unet(UNetConfig(**settings), 3, 16, TEXT).eval(), features(0)
    theirs = UNet2DConditionModel.from_config(network.unet.config).eval()
    theirs.load_state_dict(network.unet.state_dict())
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([10, 900])
    with torch.no_grad():
        expected = theirs(
            x, t, text.words, class_labels=text.sentence, encoder_attention_mask=text.mask
        ).sample
        assert torch.equal(network(x, t, network.condition(text)), expected)
