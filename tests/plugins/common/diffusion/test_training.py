"""What diffusion models share: the losses and noise levels against their equations, and the two U-Nets."""

import pytest
import torch
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.families.schedule import DiscreteSchedule, MixingSchedule, add_noise, named_schedule, target
from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.config import DenoisingConfig, UNetConfig
from t2i.plugins.common.diffusion.training import denoising_loss, draw_times, outline_loss
from t2i.plugins.common.diffusion.unet import WordMap, conditional_unet

TEXT = TextShape(12, 16)
SMALL = {"channels": (8, 16), "layers": 1, "head_width": 8, "groups": 4}


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v"])
@pytest.mark.parametrize("schedule", ["linear", "mixing"])
@pytest.mark.parametrize("loss", ["l2", "l1"])
def test_the_loss_is_the_error_of_what_is_predicted(prediction, schedule, loss):
    if (prediction, schedule) == ("v", "mixing"):
        with pytest.raises(UserError, match="v needs a schedule that preserves variance"):
            DenoisingConfig.of({"prediction": prediction, "schedule": schedule}, "test")
        return
    config = DenoisingConfig(prediction=prediction, schedule=schedule, loss=loss)
    noises = named_schedule(schedule)
    z_0, eps, output = torch.randn(3, 4, 2, 8, 8)
    t = torch.tensor([0.1, 0.4, 0.6, 0.9]) if schedule == "mixing" else torch.tensor([3, 400, 800, 999])
    alpha, sigma = (value.view(-1, 1, 1, 1) for value in (noises.alpha(t), noises.sigma(t)))
    z_t = alpha * z_0 + sigma * eps
    torch.testing.assert_close(add_noise(noises, z_0, t, eps), z_t)
    error = output - {"epsilon": eps, "sample": z_0, "v": alpha * eps - sigma * z_0}[prediction]
    expected = error.pow(2).mean() if loss == "l2" else error.abs().mean()
    torch.testing.assert_close(denoising_loss(config, noises, output, z_0, z_t, t, eps), expected)
    # The error of x_0: nothing if the network is right, whatever it predicts.
    of_x_0 = config.model_copy(update={"error": "x_0"})
    truth = target(noises, prediction, z_0, t, eps)
    assert denoising_loss(of_x_0, noises, truth, z_0, z_t, t, eps) < 1e-2
    if prediction == "v":  # x_0 = alpha z_t - sigma v
        weighted = (sigma * error).pow(2).mean() if loss == "l2" else (sigma * error).abs().mean()
        torch.testing.assert_close(denoising_loss(of_x_0, noises, output, z_0, z_t, t, eps), weighted)
    for cap in (5.0, 1e9):  # between the error of x_0 and, if it predicts x_0, that of v = (alpha z_t - x_0) / sigma
        capped = of_x_0.model_copy(update={"weight_cap": cap})
        of_truth = denoising_loss(of_x_0, noises, output, z_0, z_t, t, eps)
        x_0 = {"epsilon": (z_t - sigma * output) / alpha, "sample": output, "v": alpha * z_t - sigma * output}[
            prediction
        ]
        weighted = (x_0 - z_0) * torch.minimum(1 / sigma.square(), torch.tensor(cap)).sqrt()
        expected = weighted.pow(2).mean() if loss == "l2" else weighted.abs().mean()
        torch.testing.assert_close(denoising_loss(capped, noises, output, z_0, z_t, t, eps), expected)
        assert expected > of_truth


def test_mixing_is_linear_in_the_noise_level():
    t = torch.tensor([0.0, 0.25, 1.0])
    assert MixingSchedule().alpha(t).tolist() == [1.0, 0.75, 0.0]
    assert MixingSchedule().sigma(t).tolist() == [0.0, 0.25, 1.0]


def test_noise_levels_follow_their_distribution():
    noise = StepNoise(0, 5, 0, 4000, 4000)
    u = noise.uniform("t", 0, ())
    assert torch.equal(draw_times(MixingSchedule(), None, noise), u)
    # Beta(1, b) has the distribution function 1 - (1 - t)^b.
    torch.testing.assert_close(draw_times(MixingSchedule(), (1.0, 2.5), noise), 1 - (1 - u) ** (1 / 2.5))
    schedule = DiscreteSchedule.named("linear", 50)
    t = draw_times(schedule, (2.0, 1.0), noise)  # its distribution function is t^2
    assert torch.equal(t, (u.double().sqrt() * 50).long().clamp(max=49))
    assert torch.equal(draw_times(schedule, None, noise), noise.integers("t", 0, 50))
    with pytest.raises(UserError, match="levels"):
        DenoisingConfig.of({"levels": (1.0, 0.0)}, "test")


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
        ({"attention": ("none", "none"), "middle": "cross", "sentence": True, "text_map": 3}, True, True),
        ({"attention": ("none", "self"), "middle": "none", "text_map": 3, "map_hops": 2}, True, True),
        ({"attention": ("none", "none"), "middle": "none", "map_hops": 2, "outline": 1.0}, False, False),
    ],
)
def test_text_reaches_the_output_by_the_ways_that_are_open(settings, sentence, words):
    torch.manual_seed(0)
    network = conditional_unet(UNetConfig(**SMALL, **settings), 3, 16, TEXT).eval()
    with torch.no_grad():
        for p in network.parameters():  # diffusers begins some last layers at zero
            if not p.any():
                p.normal_(std=0.1)
        x, t, one, other = torch.randn(2, 3, 16, 16), torch.tensor([10, 900]), features(0), features(1)
        plain = network(x, t, one)
        assert plain.shape == x.shape
        assert torch.equal(network(x, t, TextFeatures(other.sentence, one.words, one.mask)), plain) == (not sentence)
        assert torch.equal(network(x, t, TextFeatures(one.sentence, other.words, one.mask)), plain) == (not words)
        assert not torch.equal(network(x, torch.tensor([10, 901]), one), plain)
        # A continuous noise level is embedded as an index of a thousand is.
        torch.testing.assert_close(network(x, torch.tensor([0.01, 0.9]), one), plain, rtol=1e-3, atol=1e-4)


def test_each_place_of_the_word_map_asks_the_words_that_are_there():
    torch.manual_seed(0)
    network, text = WordMap(16, 3, 16, heads=2, hops=1), features(0)
    text.mask[1, 3:] = False  # at the second picture's words that are none, nobody looks
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


def test_the_outline_is_x_0_as_the_map_tells_it():
    torch.manual_seed(0)
    settings = {"attention": ("none", "none"), "middle": "none", "text_map": 3, "map_hops": 1, "outline": 0.5}
    network, text = conditional_unet(UNetConfig(**SMALL, **settings), 12, 8, TEXT).eval(), features(0)
    x, t, mapped = torch.randn(2, 12, 8, 8), torch.tensor([10, 900]), network.mapped(text)
    assert torch.equal(network(x, t, mapped), network(x, t, text))  # the map is made once, and is the same
    z_0 = torch.randn(2, 3, 16, 16)  # which the network would see as 2x2 patches
    grid = network.map(text.sentence) + network.word_map(text)
    outline = torch.einsum("oi,bihw->bohw", network.to_outline.weight[..., 0, 0], grid)
    outline = F.pixel_shuffle(outline + network.to_outline.bias[:, None, None], 2)
    loss = outline_loss(network, z_0, mapped)
    torch.testing.assert_close(loss, (outline - z_0).square().mean())
    loss.backward()
    reached = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert not any(name.startswith("unet.") for name in reached)
    assert {"map.linear.weight", "word_map.queries", "to_outline.weight"} <= reached


def test_u_nets_that_do_not_add_up_are_refused():
    with pytest.raises(UserError, match="attention has 1 levels, channels 2"):
        UNetConfig.of({**SMALL, "attention": ("none",)}, "test")
    with pytest.raises(UserError, match="set middle=cross"):
        UNetConfig.of({**SMALL, "attention": ("none", "cross"), "middle": "self"}, "test")
