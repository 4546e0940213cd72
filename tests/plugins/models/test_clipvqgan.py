"""CLIP-guided VQGAN: losses and gradients against plain formulas, augmentations, and the model."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from t2i.core.engine import train
from t2i.core.engine.reporting import Silent
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.text import TextFeatures
from t2i.core.models.building import build, stages_of
from t2i.core.models.loading import load
from t2i.core.runs.configure import resolve_config
from t2i.plugins.models.clipvqgan import augment, cutouts, losses
from t2i.plugins.models.clipvqgan.config import (
    AugmentConfig,
    CutoutsConfig,
    RegulariserConfig,
)

SMALL = (
    "steps=4", "batch_size=4", "tokenizer.weights=null", "tokenizer.vocabulary=16",
    "tokenizer.code_width=4", "tokenizer.batch_size=4", "tokenizer.vqgan.channels=8",
    "tokenizer.vqgan.groups=4", "tokenizer.vqgan.multiples=[1,1]", "tokenizer.vqgan.attention=[]",
    "tokenizer.vqgan.patch=4", "tokenizer.vqgan.blocks=1", "tokenizer.vqgan.latent_channels=4",
    "cutouts.count=3", "sampler.steps=3", "start=codes", "smooth=0", "snaps=0",
)  # fmt: skip
NONE = {"affine": 0, "perspective": 0, "jitter": 0, "erasing": 0, "noise": 0}


def settings(*more):
    return resolve_config("clipvqgan", sets=[*SMALL, *more])


def noise_of(rows, seed=0):
    return PromptNoise(seed, tuple((0, row) for row in rows))


def randomised(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
    return module


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = build(settings())
    with torch.no_grad():
        randomised(made.generator.tokenizer)
    return made.frozen()


# --- losses ---------------------------------------------------------------------------------------


def test_the_spherical_distance_is_half_the_square_of_the_angle():
    angles = torch.tensor([0.1, 0.7, math.pi / 2, 2.5, 3.1], dtype=torch.float64)
    u = 3 * torch.stack([angles.cos(), angles.sin()], 1)
    found = losses.spherical_distance(u, torch.tensor([[0.2, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(found, angles.square() / 2)


def test_its_gradient_is_the_angle_over_the_length():
    """d(a^2 / 2) / du is a / |u| along the tangent that leads away from t."""
    angle, length = 0.8, 2.5
    u = length * torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    u.requires_grad_()
    t = torch.tensor([1.0, 0.0], dtype=torch.float64)
    (found,) = torch.autograd.grad(losses.spherical_distance(u, t), u)
    tangent = torch.tensor([-math.sin(angle), math.cos(angle)], dtype=torch.float64)
    torch.testing.assert_close(found, angle / length * tangent)


def test_weight_and_stop_of_a_caption():
    d = torch.tensor([[0.5, 0.1, 0.9, 0.3]], dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(losses.prompt_loss(d, 2.0, None), 2 * d.mean(1))
    torch.testing.assert_close(losses.prompt_loss(d, -2.0, None), -2 * d.mean(1))
    # The value is not floored, but what is below the floor has no gradient.
    found = losses.prompt_loss(d, 2.0, 0.4)
    torch.testing.assert_close(found, 2 * d.mean(1))
    (gradient,) = torch.autograd.grad(found.sum(), d)
    torch.testing.assert_close(gradient, torch.tensor([[0.5, 0, 0.5, 0]], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(losses.prompt_loss(d, -1.0, -0.4).sum(), d)
    torch.testing.assert_close(gradient, torch.tensor([[0, -0.25, 0, -0.25]], dtype=torch.float64))


def test_the_clamp_keeps_gradients_that_lead_back():
    x = torch.tensor([-0.5, -0.5, 0.5, 1.5, 1.5], requires_grad=True)
    bounded = losses.Bounded.apply(x)
    assert bounded.tolist() == [0, 0, 0.5, 1, 1]
    sign = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0])  # ascent: up, down, up, up, down
    (gradient,) = torch.autograd.grad((bounded * sign).sum(), x)
    assert gradient.tolist() == [1, 0, 1, 0, -1]


def test_an_image_beyond_the_range_comes_back_as_the_score_is_climbed(model, monkeypatch):
    """Grey is what the caption wants: an image of 3 must darken, and one of -3 brighten."""
    generator, far = model.generator, torch.tensor([3.0, -3.0]).view(2, 1, 1, 1)

    def of_grey(self, seen):  # an angle to (1, 0) that grows with the distance from grey
        mean = seen.mean((1, 2, 3))
        return torch.stack([torch.ones_like(mean), mean], 1)

    monkeypatch.setattr(type(generator.clip), "embedding", of_grey)
    monkeypatch.setattr(type(generator), "image", lambda self, latents: latents)
    text = generator.condition(TextFeatures.of(sentence=torch.tensor([[1.0, 0.0]]).expand(2, 2)))
    x = far.expand(2, 3, 32, 32).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(generator.score(x, text, noise_of([0, 1]), 0).sum(), x)
    assert float(gradient[0].sum()) < 0 < float(gradient[1].sum())


def test_latents_become_the_nearest_vectors_and_keep_their_gradient():
    torch.manual_seed(1)
    codes, z = torch.randn(7, 3), torch.randn(2, 3, 4, 4, requires_grad=True)
    found = losses.nearest(z, codes)
    for b in range(2):
        for i in range(4):
            for j in range(4):
                place = z[b, :, i, j].detach()
                best = min(codes, key=lambda code: float((code - place).square().sum()))
                assert torch.equal(found[b, :, i, j].detach(), best)
    weights = torch.randn_like(found)
    (gradient,) = torch.autograd.grad((found * weights).sum(), z)
    assert torch.equal(gradient, weights)


def test_the_total_variation_is_the_mean_length_of_differences():
    """A step of 0.6 in all channels along a column: 0.6 at 4 of 16 pixels."""
    images = torch.zeros(2, 3, 4, 4)
    images[0, :, :, 2:] = 0.6
    images[1, 0, 0, 0] = 1.0  # one channel, one pixel: both differences, a root of 2 / 3
    found = losses.total_variation(images)
    expected = torch.tensor([0.6 * 4 / 16, math.sqrt(2 / 3) / 16])
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_the_weight_of_the_regulariser():
    falling = RegulariserConfig(weight=3)
    assert [losses.regulariser_weight(falling, i) for i in (0, 1, 4)] == [3, 1, 1 / 3]
    stages = RegulariserConfig(weight=1.5, schedule="stages")
    steps = (0, 50, 51, 100, 101, 150, 151, 200, 201, 250, 251, 9999)
    found = [losses.regulariser_weight(stages, i) for i in steps]
    np.testing.assert_allclose(found, [1.5, 1.5, 1.2, 1.2, 0.9, 0.9, 0.6, 0.6, 0.3, 0.3, 0, 0])


def test_the_score_is_the_public_codes_loss(model):
    """Everything by plain formulas, for one image; the gradient by finite differences of the part
    behind the quantizer."""
    generator, rows = model.generator, [0]
    generator = build(
        settings(
            "weight=-0.7", "regulariser.weight=2", "cutouts.augment.affine=0",
            "cutouts.augment.noise=0",
        )
    ).frozen().generator  # fmt: skip
    with torch.no_grad():
        randomised(generator.tokenizer, 3)
    generator.double()
    text = TextFeatures.of(sentence=torch.randn(1, 128, dtype=torch.float64))
    z = generator.start(noise_of(rows)).double() + 0.05
    codes = generator.codes
    tokens = (z.movedim(1, -1)[..., None, :] - codes).square().sum(-1).argmin(-1)
    decoder = generator.tokenizer.reconstruct

    def loss_of(vectors):
        x = ((decoder(vectors) + 1) / 2).clamp(0, 1)
        seen = generator.clip.embedding(2 * x - 1)
        cosine = F.cosine_similarity(seen, text.sentence)
        angle = torch.arccos(cosine)
        return -0.7 * angle.square() / 2

    vectors = codes[tokens].movedim(-1, 1)
    expected = -(loss_of(vectors) + 2 / (2 * 4 + 1) / 2 * z.square().mean())
    z.requires_grad_()
    found = generator.score(z, generator.condition(text), noise_of(rows), 4)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad(found.sum(), z)
    vectors.requires_grad_()
    inside = losses.Bounded.apply((decoder(vectors) + 1) / 2)
    seen = generator.clip.embedding(2 * inside - 1)
    own = 0.7 * losses.spherical_distance(seen, text.sentence).sum()
    (through,) = torch.autograd.grad(own, vectors)
    plain = through - 2 / 9 * z.detach() / z.numel()
    torch.testing.assert_close(gradient, plain, rtol=1e-5, atol=1e-8)
    assert gradient.abs().max() > 1e-6


# --- augmentations --------------------------------------------------------------------------------


def picture(side=16, count=1):
    torch.manual_seed(5)
    return F.interpolate(torch.rand(count, 3, 4, 4), (side, side), mode="bicubic").clamp(0, 1)


def test_without_changes_nothing_changes():
    config = AugmentConfig(**NONE)
    images = picture(count=4)
    assert torch.equal(augment.augmented(images, config, noise_of([0, 1]), 0), images)
    on = AugmentConfig(**NONE | {"affine": 1, "perspective": 1, "jitter": 1},
                       degrees=0, translate=0, shear=0, distortion=0, brightness=0, contrast=0,
                       saturation=0, hue=0)  # fmt: skip
    torch.testing.assert_close(
        augment.augmented(images, on, noise_of([0, 1]), 0), images, atol=1e-5, rtol=0
    )


def test_maps_move_pixels_where_they_should():
    images, config = picture(), AugmentConfig(degrees=90, translate=0.25, shear=0, affine=1)
    quarter = augment.affine_maps(torch.tensor([[0, 1, 0.5, 0.5, 0.5, 0.5]]), config)
    turned = augment.warped(images, quarter, "zeros")
    torch.testing.assert_close(turned, torch.rot90(images, 1, (2, 3)), atol=1e-5, rtol=0)
    shifted = augment.warped(
        images, augment.affine_maps(torch.tensor([[0, 0.5, 1, 0.5, 0.5, 0.5]]), config), "zeros"
    )
    torch.testing.assert_close(shifted[..., :12], images[..., 4:], atol=1e-5, rtol=0)
    assert shifted[..., 12:].abs().max() == 0


def test_a_homography_takes_four_points_to_four_points():
    torch.manual_seed(2)
    source = torch.tensor(augment.CORNERS) * 0.8 + 0.2 * torch.rand(5, 4, 2)
    target = torch.tensor(augment.CORNERS) + 0.3 * torch.rand(5, 4, 2)
    maps = augment.homography(source, target)
    moved = torch.cat([source, torch.ones(5, 4, 1)], 2) @ maps.mT
    torch.testing.assert_close(moved[..., :2] / moved[..., 2:], target, atol=1e-4, rtol=0)


def test_perspective_moves_corners_inwards_and_leaves_black_beyond():
    draws = torch.tensor([[0.0, *[0.5] * 8]])
    config = AugmentConfig(perspective=1, distortion=1)
    found = augment.warped(torch.ones(1, 3, 16, 16), augment.perspective_maps(draws, config),
                           "zeros")  # fmt: skip
    assert found[0, 0, 5:11, 5:11].min() > 0.99  # all corners half-way: a picture of half the side
    assert found[0, 0, :3].abs().max() == 0


def test_colours():
    red = torch.tensor([0.8, 0.2, 0.2]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    turned = torch.einsum("nij,njhw->nihw", augment.hue_maps(torch.tensor([1 / 3])), red)
    assert turned[0, :, 0, 0].argmax() == 1 or turned[0, :, 0, 0].argmax() == 2
    torch.testing.assert_close(augment.grey(turned), augment.grey(red), atol=1e-3, rtol=0)
    whole = torch.einsum("nij,njhw->nihw", augment.hue_maps(torch.tensor([1.0])), red)
    torch.testing.assert_close(whole, red)
    config = AugmentConfig(jitter=1, brightness=0.5, contrast=0, saturation=0, hue=0)
    darker = augment.jittered(red, torch.tensor([[0, 0, 0.5, 0.5, 0.5]]), config)
    torch.testing.assert_close(darker, red / 2)
    config = AugmentConfig(jitter=1, brightness=0, contrast=0, saturation=1, hue=0)
    grey = augment.jittered(red, torch.tensor([[0, 0.5, 0.5, 0, 0.5]]), config)
    torch.testing.assert_close(grey, augment.grey(red).expand_as(grey))


def test_a_rectangle_is_erased_in_all_cutouts_of_an_image():
    config = AugmentConfig(**NONE | {"erasing": 1})
    images = torch.ones(6, 3, 32, 32)
    found = augment.augmented(images, config, noise_of([0, 1]), 0)
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[3])
    kept = augment.kept_pixels(torch.rand(2000, 5), 32, config)
    erased = 1 - kept.mean((1, 2, 3))
    assert erased.min() > 0.08
    assert erased.max() < 0.43
    assert abs(float(erased.mean()) - 0.25) < 0.02
    half = AugmentConfig(erasing=0.5)
    share = (augment.kept_pixels(torch.rand(2000, 5), 32, half).amin((1, 2, 3)) == 0).float().mean()
    assert abs(float(share) - 0.5) < 0.05


@pytest.mark.parametrize("kind", ["latest", "original"])
def test_cutouts_of_an_image_depend_on_its_own_noise(kind):
    config = CutoutsConfig(kind=kind, count=3)
    images = picture(48, 4)
    whole = cutouts.cutouts_of(images, 16, config, noise_of(range(4)), 7)
    assert whole.shape == (12, 3, 16, 16)
    for row in range(4):
        own = cutouts.cutouts_of(images[row : row + 1], 16, config, noise_of([row]), 7)
        torch.testing.assert_close(own, whole[3 * row : 3 * row + 3], atol=1e-5, rtol=0)
    assert not torch.equal(whole, cutouts.cutouts_of(images, 16, config, noise_of(range(4)), 8))


def test_pooling_and_squares():
    plain = CutoutsConfig(count=2, augment=NONE)
    images = torch.rand(1, 3, 8, 8)
    blocks = images.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    expected = (blocks.mean(-1) + blocks.amax(-1)) / 2
    found = cutouts.cutouts_of(images, 4, plain, noise_of([0]), 0)
    torch.testing.assert_close(found, expected.expand(2, -1, -1, -1))
    # A ramp: the mean of a square tells where it is, its spread how large.
    ramp = torch.arange(64.0).expand(1, 3, 64, 64) / 63
    squares = cutouts.squares(ramp, 16, CutoutsConfig(kind="original", count=400), noise_of([0]), 0)
    spread = squares.amax((1, 2, 3)) - squares.amin((1, 2, 3))
    assert 0.15 < spread.min() < 0.35
    assert spread.max() > 0.9
    small = CutoutsConfig(kind="original", count=400, power=3.0)
    smaller = cutouts.squares(ramp, 16, small, noise_of([0]), 0)
    assert (smaller.amax((1, 2, 3)) - smaller.amin((1, 2, 3))).mean() < spread.mean()


# --- the model ------------------------------------------------------------------------------------


def test_starts(model):
    generator = model.generator
    z = generator.start(noise_of([0, 1]))
    assert z.shape == (2, 4, 4, 4)
    assert torch.equal(losses.nearest(z, generator.codes), z)
    assert torch.equal(generator.constrain(z), z)
    assert not torch.equal(z[0], z[1])
    low, high = generator.codes.amin(0), generator.codes.amax(0)
    far = generator.constrain(100 * z)
    assert torch.equal(far.amin((0, 2, 3)), low)
    assert torch.equal(far.amax((0, 2, 3)), high)


def test_a_flat_start_and_snaps():
    torch.manual_seed(0)
    generator = build(settings("start=flat", "snaps=2", "smooth=1")).frozen().generator
    with torch.no_grad():
        randomised(generator.tokenizer)
        z = generator.start(noise_of(range(3)))
        assert torch.equal(z, z[:, :, :1, :1].expand_as(z))
        x, tokenizer = generator.image(z).clamp(-1, 1), generator.tokenizer
        for _ in range(2):
            x = tokenizer.decode(tokenizer.encode(x)).clamp(-1, 1)
        assert torch.equal(generator.decode(z), x)


def test_an_image_depends_on_its_own_key_and_text_alone(model):
    captions = ["a red circle", "a blue square", "a green star", "a red circle"]
    choice = model.sampler(settings={"steps": 6})
    (whole,) = model.stream(captions, sampler=choice, batch_size=4)
    single = [one for batch in model.stream(captions, sampler=choice, batch_size=1)
              for one in batch]  # fmt: skip
    near = [
        np.abs(a.image.astype(int) - b.image).mean() < 1 for a, b in zip(whole, single, strict=True)
    ]
    assert sum(near) >= 3  # rounding may choose another vector
    assert not np.array_equal(whole[0].image, whole[3].image)


def test_a_few_steps_raise_the_score(model):
    generator = model.generator
    text = generator.condition(model.text_encoder.encode(["a red circle"] * 4))
    noise = noise_of(range(4))
    seen = []

    def score(z):
        with torch.no_grad():
            return torch.stack([generator.score(z, text, noise, i) for i in range(5)]).mean(0)

    from t2i.core.interfaces.request import Request
    from t2i.core.registry.tables import registry

    sampler = registry().samplers.build(model.sampler(settings={"steps": 40, "lr": 0.1}))
    start, decode = generator.start(noise), type(generator).decode

    class Kept(type(generator)):
        def decode(self, latents):
            seen.append(latents)
            return decode(self, latents)

    generator.__class__ = Kept
    try:
        with torch.no_grad():
            sampler.sample(generator, Request(text=text, noise=noise))
    finally:
        generator.__class__ = Kept.__base__
    assert score(seen[0]).mean() > score(start).mean()


def test_own_parts_are_trained_and_a_saved_run_samples_the_same(tmp_path):
    config = settings("clip.weights=null", "clip.image_size=32", "clip.patch=8", "clip.width=16",
                      "clip.layers=1", "clip.heads=2")  # fmt: skip
    encoder = build(config).text_encoder
    assert [stage.name for stage in stages_of(config, encoder)] == ["tokenizer", "clip"]
    assert [stage.name for stage in stages_of(settings(), encoder)] == ["tokenizer"]
    run = train(config, tmp_path / "run", reporter=Silent())
    images = [load(run.path, "cpu").sample(["a red circle"], seed=1)[0] for _ in range(2)]
    assert images[0].size == (32, 32)
    np.testing.assert_array_equal(*images)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("weight=0", "another weight"),
        ("cutouts.augment.erased=[0.5,0.1]", "smallest area"),
        ("cutouts.kind=all", "latest"),
    ],
)
def test_wrong_settings_are_named(change, line):
    from t2i.core.errors import UserError

    with pytest.raises(UserError, match=line):
        settings(change)
