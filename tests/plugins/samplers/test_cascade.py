"""The sampler `cascade`: whose noise, whose text, whose settings, and in which order."""

import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.families.cascade import PREVIOUS, CascadeGenerator
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.one_shot import OneShotGenerator
from t2i.core.families.schedule import DiscreteSchedule
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures
from t2i.plugins.samplers.cascade.config import CascadeConfig
from t2i.plugins.samplers.cascade.sampler import CascadeSampler


class Echo(OneShotGenerator):
    """Its image is its noise."""

    def __init__(self, log, name, size):
        super().__init__()
        self.log, self.name, self.image_size, self.noise_shape = log, name, size, (3, size, size)

    def condition(self, text):
        self.log.append(("condition", self.name, text.captions[0], PREVIOUS in text.extras))
        return text

    def forward(self, noise, text):
        self.log.append(("draw", self.name, text.captions[0], PREVIOUS in text.extras))
        return noise


class Denoiser(DiffusionGenerator):
    """Predicts the image before it, made larger: the chain ends there. Of no caption, nothing."""

    schedule, prediction = DiscreteSchedule(torch.linspace(0.01, 0.5, 8)), "sample"

    def __init__(self, log, name, size):
        super().__init__()
        self.log, self.name, self.image_size, self.noise_shape = log, name, size, (3, size, size)

    def condition(self, text):
        self.log.append(("condition", self.name, text.captions[0], PREVIOUS in text.extras))
        return text

    def forward(self, x_t, t, text):
        self.log.append(("draw", self.name, len(x_t)))
        larger = torch.nn.functional.interpolate(text.extras[PREVIOUS], size=self.image_size)
        named = torch.tensor([bool(caption) for caption in text.captions])
        return larger * named[:, None, None, None]


class Cascade(CascadeGenerator):
    def __init__(self, **parts):
        super().__init__()
        self.log = []
        made = {name: kind(self.log, name, size) for name, (kind, size) in parts.items()}
        self.parts = torch.nn.ModuleDict(made)
        self.image_size = list(made.values())[-1].image_size


def request(n=2, **more):
    text = TextFeatures.of(sentence=torch.ones(n, 1), captions=["a"] * n)
    return Request(text=text, noise=PromptNoise(5, tuple((i, 0) for i in range(n))), **more)


def null(n=2):
    return TextFeatures.of(sentence=torch.zeros(n, 1), captions=[""] * n)


def echoes():
    return Cascade(base=(Echo, 8), upsampler=(Echo, 32))


def mixed():
    return Cascade(base=(Echo, 8), upsampler=(Denoiser, 16))


def sampler(**samplers):
    return CascadeSampler(CascadeConfig(samplers=samplers))


def test_no_two_parts_share_a_draw():
    """Both would draw "z", 0 of one source: the small draw would be the beginning of the large
    one."""
    drawn = []

    class Kept(Cascade):
        def link(self, name, text, previous, noise):
            drawn.append(previous)
            return super().link(name, text, previous, noise)

    large = sampler().sample(Kept(base=(Echo, 8), upsampler=(Echo, 32)), request())
    small = drawn[1]
    source = request().noise
    assert torch.equal(small, source.scope("base").normal("z", 0, (3, 8, 8)))
    assert torch.equal(large, source.scope("upsampler").normal("z", 0, (3, 32, 32)))
    beginning = large.flatten(1)[:, : small[0].numel()]
    assert not torch.isclose(beginning, small.flatten(1)).any()
    for a, b in zip(beginning, small.flatten(1), strict=True):
        assert torch.corrcoef(torch.stack([a, b]))[0, 1].abs() < 0.3  # 4 standard deviations


def test_each_part_is_conditioned_once_in_order_and_given_what_was_drawn_before():
    generator = mixed()
    sampler(upsampler={"name": "ddim", "steps": 3}).sample(generator, request())
    assert generator.log == [
        ("condition", "base", "a", False),
        ("draw", "base", "a", False),
        ("condition", "upsampler", "a", True),
        *[("draw", "upsampler", 2)] * 3,
    ]


def test_the_last_part_sees_what_the_first_drew():
    images = sampler(upsampler={"steps": 8}).sample(mixed(), request())
    base = request().noise.scope("base").normal("z", 0, (3, 8, 8))
    torch.testing.assert_close(
        images, torch.nn.functional.interpolate(base, size=16), atol=1e-4, rtol=1e-4
    )


def test_only_a_guided_part_is_given_the_features_of_no_caption():
    """Under guidance s the network's s times the image is drawn: what it says of no caption is
    0."""
    generator = mixed()
    drawing = sampler(upsampler={"steps": 2, "guidance": 3.0})
    assert drawing.needs_null
    images = drawing.sample(generator, request(null=null()))
    assert [entry[1:3] for entry in generator.log if entry[0] == "condition"] == [
        ("base", "a"), ("upsampler", "a"), ("upsampler", ""),
    ]  # fmt: skip
    assert ("draw", "upsampler", 4) in generator.log
    base = request().noise.scope("base").normal("z", 0, (3, 8, 8))
    torch.testing.assert_close(
        images, 3 * torch.nn.functional.interpolate(base, size=16), atol=1e-3, rtol=1e-3
    )
    assert not sampler(upsampler={"steps": 2}).needs_null
    assert sampler(inner={"samplers": {"upsampler": {"guidance": 2.0}}}).needs_null


def test_noise_that_is_added_on_the_way_is_the_links_own_and_the_same_for_both_branches():
    seen = []

    class Noisy(Cascade):
        def link(self, name, text, previous, noise):
            seen.append(noise.normal("z", 0, (3,)))
            return super().link(name, text, previous, noise)

    sampler(upsampler={"steps": 1, "guidance": 2.0}).sample(
        Noisy(base=(Echo, 8), upsampler=(Denoiser, 16)), request(null=null())
    )
    base, text, empty = seen
    assert torch.equal(text, empty)
    assert not torch.equal(base, text)
    assert not torch.equal(base, request().noise.scope("base").normal("z", 0, (3,)))


def test_progress_runs_over_all_parts():
    done = []
    sampler(upsampler={"steps": 4}).sample(mixed(), request(progress=lambda *at: done.append(at)))
    assert done == [(1000, 2000), (1250, 2000), (1500, 2000), (1750, 2000), (2000, 2000)]


def test_a_cascade_in_a_cascade():
    outer = Cascade(first=(Echo, 8))
    outer.parts["second"] = mixed()
    images = sampler(second={"samplers": {"upsampler": {"steps": 8}}}).sample(outer, request())
    base = request().noise.scope("second").scope("base").normal("z", 0, (3, 8, 8))
    torch.testing.assert_close(
        images, torch.nn.functional.interpolate(base, size=16), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("samplers", "message"),
    [
        ({"upsamper": {}}, "the model has no part 'upsamper'; did you mean 'upsampler'"),
        (
            {"base": {"name": "ddim"}},
            "sampler 'ddim' draws from diffusion models, but 'base' is one-shot: use "
            "base.sampler=direct",
        ),
        ({"upsampler": {"steps": 9}}, "9 sampling steps: the model was trained with 8"),
        (
            {"upsampler": {"stepz": 4}},
            "upsampler: sampler 'ddim': no setting is named 'stepz'",
        ),
        ({"base": {"guidance": 2.0}}, "base: sampler 'direct': setting 'guidance' = 2.0"),
    ],
)
def test_what_does_not_fit_a_part_is_refused_before_anything_is_drawn(samplers, message):
    generator = mixed()
    with pytest.raises(UserError) as caught:
        sampler(**samplers).check(generator)
    assert message in str(caught.value)
    assert generator.log == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 4}, "each part of a cascade has steps of its own: set PART.steps"),
        (
            {"guidance": 2.0},
            "each part of a cascade has guidance of its own: set PART.guidance",
        ),
        (
            {"samplers": {"base": {"name": "ddimm"}}},
            "no sampler is named 'ddimm'; did you mean 'ddim'",
        ),
        (
            {"samplers": {"base": {"name": "ddim", "eta": 2}}},
            "base: sampler 'ddim': setting 'eta' = 2",
        ),
        ({"samplers": {"base": 4}}, "setting 'samplers.base' = 4"),
    ],
)
def test_settings_are_checked_where_they_are_read(settings, message):
    with pytest.raises(UserError) as caught:
        CascadeConfig.of(settings, "sampler 'cascade'")
    assert message in str(caught.value)


def test_a_guide_is_refused_and_an_image_goes_to_the_parts():
    with pytest.raises(UserError, match="sampler 'cascade'"):
        sampler().sample(echoes(), request(guide=lambda *_: None))
    with pytest.raises(UserError, match="sampler 'direct' starts from noise"):
        sampler().sample(echoes(), request(image=torch.zeros(2, 3, 32, 32)))


def test_the_tolerance_is_the_loosest_of_the_parts():
    class Loose(Echo):
        tolerance = "statistical"

    assert echoes().tolerance == "level"
    assert Cascade(base=(Loose, 8), upsampler=(Echo, 16)).tolerance == "statistical"
