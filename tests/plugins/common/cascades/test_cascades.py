"""Parts of cascades and the upsampler: sizes, added noise, scopes, stages, and enlarged samples."""

from types import SimpleNamespace

import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.families.cascade import LEVEL, PREVIOUS, low_res
from t2i.core.families.continuous import named_schedule
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.core.runs.configure import resolve_config
from t2i.plugins.common.cascades.augmentation import augmented
from t2i.plugins.common.cascades.config import (
    SMALL_UPSAMPLER,
    PixelPart,
    UpsamplerPart,
    with_sizes,
)
from t2i.plugins.common.cascades.networks import CascadeOf, PixelPartGenerator, UpsamplerGenerator
from t2i.plugins.models.upsampler.config import UpsamplerConfig
from t2i.plugins.models.upsampler.training import AloneTrainer
from t2i.plugins.samplers.cascade.config import CascadeConfig
from t2i.plugins.samplers.cascade.sampler import CascadeSampler

UNET = {
    "channels": (8, 8), "layers": 1, "attention": ("none", "none"), "middle": "none",
    "head_width": 4, "groups": 4, "sentence": True,
}  # fmt: skip
TEXT = TextShape(5, 5)


def features(n=2):
    return TextFeatures.of(sentence=torch.randn(n, 5), captions=["a"] * n)


def upsampler(**more):
    config = UpsamplerPart(**{**SMALL_UPSAMPLER, "unet": UNET, **more})
    return UpsamplerGenerator(config, TEXT).eval()


def test_a_small_image_holds_the_means_of_blocks_in_8_bits():
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    means = images.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
    low = low_res(images, 16)
    assert (low - means).abs().max() <= 0.5 / 127.5 + 1e-6
    levels = (low + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    assert low_res(images, 32) is images


def test_a_level_of_augmentation_is_the_schedules_signal_and_noise():
    schedule = named_schedule("cosine")
    low, noise = torch.full((3, 3, 64, 64), 0.5), torch.randn(3, 3, 64, 64)
    level = torch.tensor([0.0, 0.3, 0.8])
    noisy = augmented(low, level, noise, schedule)
    assert torch.equal(noisy[0], low[0])
    times = schedule.time_at(level)
    for row in (1, 2):
        alpha, sigma = schedule.alpha(times)[row], schedule.sigma(times)[row]
        assert abs(noisy[row].mean() - 0.5 * alpha) < 0.05
        assert abs(noisy[row].std() - sigma) < 0.05


def test_the_smaller_image_and_its_level_reach_the_network():
    generator = upsampler()
    for parameter in generator.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x, t, text = torch.randn(2, 3, 32, 32), torch.tensor([500, 500]), features()

    def output(low, level):
        extras = {PREVIOUS: low, LEVEL: torch.full((2,), level)}
        told = TextFeatures(text.sentence, text.words, text.mask, text.captions, extras)
        return generator(x, t, generator.condition(told))

    low = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        first = output(low, 0.1)
        assert torch.equal(first, output(low, 0.1))
        assert (first - output(low, 0.4)).abs().max() > 1e-4
        assert (first - output(-low, 0.1)).abs().max() > 1e-4


def cascade():
    base = PixelPart(image_size=16, unet=UNET, patch=2, schedule="cosine")
    parts = {"base": PixelPartGenerator(base, TEXT), "upsampler": upsampler()}
    return CascadeOf(parts).eval()


def request(n=2):
    from t2i.core.interfaces.request import Request

    return Request(text=features(n), noise=PromptNoise(5, tuple((i, 0) for i in range(n))))


def test_short_settings_reach_the_parts():
    config = CascadeConfig.of({"base": {"steps": 2}, "upsampler": {"sampler": "ddim"}}, "sampler")
    assert config.samplers == {"base": {"steps": 2}, "upsampler": {"name": "ddim"}}
    kept = CascadeConfig.of(
        {"base": {"sampler": "ddim"}}, "sampler",
        {"samplers": {"base": {"name": "ddpm", "guidance": 3.0}}},
    )  # fmt: skip
    assert kept.samplers["base"] == {"name": "ddim", "guidance": 3.0}
    for given in ({"bsae": {"steps": 2}}, {"base": {"stepz": 2}}, {"base": {"augmentation": 0.1}}):
        with pytest.raises(UserError, match=r"base|steps|augmentation"):
            CascadeSampler(CascadeConfig.of(given, "sampler")).check(cascade())


def test_a_cascade_is_sampled_and_its_augmentation_is_a_setting():
    generator, images = cascade(), []
    for parameter in generator.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    asked = request()
    for level in (0.0, 0.5):
        settings = {
            "base": {"sampler": "ddim", "steps": 1},
            "upsampler": {"sampler": "ddim", "steps": 1, "augmentation": level},
        }
        sampler = CascadeSampler(CascadeConfig.of(settings, "sampler"))
        with torch.no_grad():
            images.append(sampler.sample(generator, asked))
    assert images[0].shape == (2, 3, 32, 32)
    assert not torch.equal(*images)


def test_parts_draw_from_scopes_of_their_own():
    noise = request().noise
    base, larger = (noise.scope(name).normal("eps", 0, (3, 8, 8)) for name in ("base", "upsampler"))
    assert not torch.isclose(base, larger).any()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"low_size": 15}, "must divide"),
        ({"crop": 5}, "multiple of 2"),
        ({"prediction": "v"}, "residual"),
        ({"low_sise": 16}, "low_size"),
        ({"learned_range": True}, "adm"),
    ],
)
def test_settings_that_do_not_fit_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        UpsamplerConfig.of({**SMALL_UPSAMPLER, **given}, "test")


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        ({}, (16, 16, 32)),
        ({"image_size": 64}, (32, 32, 64)),
        ({"image_size": 256}, (64, 64, 256)),
        ({"image_size": 64, "base": {"image_size": 16}}, (16, 16, 64)),
        ({"image_size": 64, "upsampler": {"low_size": 8}}, (8, 8, 64)),
        ({"upsampler": {"image_size": 64}}, (16, 16, 64)),
        ({"image_size": 64, "upsampler2": {}}, (None, None, None)),
    ],
)
def test_sizes_that_are_left_out_follow_from_the_models(given, sizes):
    whole = with_sizes({"base": {"share": 2}, "upsampler": {"patch": 2}, **given}, "base")
    base, large = whole["base"], whole["upsampler"]
    assert (base.get("image_size"), large.get("low_size"), large.get("image_size")) == sizes
    assert with_sizes(whole, "base") == whole


@pytest.mark.parametrize("model", ["imagen", "glide", "dalle2"])
def test_a_preset_of_a_cascade_takes_another_size(model):
    config = resolve_config(model, overrides={"image_size": 64}, data_needed=False).settings
    usual = resolve_config(model, data_needed=False).settings
    for settings, size in ((config, 64), (usual, 32)):
        assert settings.image_size == settings.upsampler.image_size == size
        assert settings.upsampler.low_size == size // 2


def test_a_part_refuses_settings_that_no_stage_has():
    with pytest.raises(UserError, match="batch_size"):
        PixelPart.of({"training": {"batch_sise": 3}}, "test")


def test_a_grid_of_an_upsampler_has_the_small_image_two_enlargements_and_the_true_one():
    config = UpsamplerConfig.of({**SMALL_UPSAMPLER, "unet": UNET}, "test")
    generator = UpsamplerGenerator(config, TEXT).eval()
    networks = SimpleNamespace(generator=generator, text_encoder=SimpleNamespace(trainable=False))
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    batch = SimpleNamespace(images=images, encoded=None, text=features())
    with torch.no_grad():
        trainer = AloneTrainer(config, networks)
        shown, again = trainer.preview(batch), trainer.preview(batch)
    assert torch.equal(shown, again)
    small, first, second, true = shown.unflatten(0, (2, 4)).unbind(1)
    assert torch.equal(true, images)
    assert torch.equal(small[..., ::2, ::2], low_res(images, 16))
    assert not torch.equal(first, second)
