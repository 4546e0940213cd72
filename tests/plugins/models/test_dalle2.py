"""DALL-E 2: prior, decoder, their training, and what is done with embeddings of images."""

import pytest
import torch
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.families.cascade import PREVIOUS
from t2i.core.interfaces.noise import PromptNoise, StepNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.core.interfaces.trainer import Batch, Networks
from t2i.plugins.models.dalle2.config import Dalle2Config, DecoderPart, PriorPart
from t2i.plugins.models.dalle2.decoder import DecoderGenerator
from t2i.plugins.models.dalle2.networks import Dalle2Generator, build, turned
from t2i.plugins.models.dalle2.prior import PriorGenerator, causal, closest
from t2i.plugins.models.dalle2.training import DecoderTrainer, PriorTrainer, stages
from t2i.plugins.samplers.cascade.config import CascadeConfig
from t2i.plugins.samplers.cascade.sampler import CascadeSampler

D = 8
TEXT = TextShape(D, D)
UNET = {
    "channels": (8, 8), "layers": 1, "attention": ("none", "none"), "middle": "none",
    "head_width": 4, "groups": 4, "sentence": True, "text_map": 4, "map_hops": 1,
    "map_sentence": False, "map_heads": 2,
}  # fmt: skip
PRIOR = {
    "schedule": "cosine",
    "prediction": "sample",
    "width": 16,
    "layers": 2,
    "heads": 2,
    "length": 6,
}
SMALL = {
    "clip": {
        "weights": None, "image_size": 32, "patch": 8, "width": 8, "layers": 1, "heads": 2,
        "normalise": "once",
    },
    "prior": PRIOR,
    "decoder": {"image_size": 16, "patch": 2, "schedule": "cosine", "unet": UNET},
    "upsampler": {"unet": {**UNET, "text_map": 0}, "image_size": 32, "low_size": 16},
}  # fmt: skip
SHORT = {part: {"sampler": "ddim", "steps": 2} for part in ("prior", "decoder", "upsampler")}


@torch.no_grad()
def random(network):
    for parameter in network.parameters():
        parameter.normal_(0, 0.3)
    return network


def features(n=2, words=4):
    torch.manual_seed(1)
    mask = torch.ones(n, words, dtype=torch.bool)
    mask[-1, 2:] = False
    return TextFeatures(torch.randn(n, D), torch.randn(n, words, D), mask, ("a",) * n)


def nothing(n=2):
    return TextFeatures(torch.zeros(n, D), torch.zeros(n, 1, D), torch.ones(n, 1).bool(), ("",) * n)


def prior(**more):
    return random(PriorGenerator(PriorPart(**{**PRIOR, **more}), TEXT)).eval()


def decoder(**more):
    config = DecoderPart(**{**SMALL["decoder"], **more})
    return random(DecoderGenerator(config, TEXT)).eval()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return random(build(Dalle2Config.of(SMALL, "test"), TEXT, None)).eval()


def sampled(model, settings=SHORT, **more):
    sampler = CascadeSampler(CascadeConfig.of(settings, "sampler"))
    sampler.check(model)
    wanted = {"text": features(), "noise": PromptNoise(5, ((0, 0), (1, 0))), **more}
    with torch.no_grad():
        return sampler.sample(model, Request(**wanted))


def test_tokens_attend_to_those_before_them_that_count():
    seen = causal(torch.tensor([[True, True, False, True]]))[0]
    assert seen.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]


def test_the_prior_is_the_network_of_diffusers_and_draws_are_apart():
    part, text = prior(), features()
    x, t = torch.randn(2, 3, D), torch.tensor([3, 700])
    words = F.pad(text.words, (0, 0, 0, 2))
    with torch.no_grad():
        found = part(x, t, part.condition(text))
        for draw in range(3):
            wanted = part.unet(
                x[:, draw], t, text.sentence, words, F.pad(text.mask, (0, 2))
            ).predicted_image_embedding  # fmt: skip
            torch.testing.assert_close(found[:, draw], wanted, rtol=0, atol=1e-5)


def test_padding_says_nothing_and_long_captions_are_cut():
    part, text = prior(), features()
    x, t = torch.randn(2, 1, D), torch.tensor([3, 700])
    with torch.no_grad():
        found = part(x, t, part.condition(text))
        noisy = torch.where(text.mask[..., None], text.words, torch.randn(2, 4, D))
        other = TextFeatures(text.sentence, noisy, text.mask)
        torch.testing.assert_close(part(x, t, part.condition(other.padded(6))), found)
        long = TextFeatures.cat([text, features(1, 9)])
        assert part.condition(long).words.shape[1] == 6


def test_embeddings_are_standardised_by_all_that_were_seen():
    part, batches = prior(), [torch.randn(5, D) * 3 + 1, torch.randn(7, D) - 2]
    for batch in batches:
        part.observe(batch)
    z = torch.cat(batches)
    torch.testing.assert_close(part.unet.clip_mean[0], z.mean(0))
    torch.testing.assert_close(part.unet.clip_std[0], z.std(0, correction=0))
    scaled = part.standardised(z)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(1, D), atol=1e-5, rtol=0)
    torch.testing.assert_close(part.decode(scaled)[:, 0], z)


def test_the_draw_with_the_larger_product_is_kept(model):
    drawn, z_t = torch.randn(3, 2, D), torch.randn(3, D)
    kept = closest(drawn, z_t)
    products = (drawn * z_t[:, None]).sum(-1)
    torch.testing.assert_close((kept * z_t).sum(-1), products.max(1).values)
    text, noise = features(3), PromptNoise(0, ((0, 0),) * 3)
    own = model.link("decoder", text, closest(drawn, text.sentence), noise)
    both = model.link("decoder", text, drawn, noise)
    torch.testing.assert_close(both.sentence, own.sentence)
    for name, value in own.extras.items():
        torch.testing.assert_close(both.extras[name], value)


@pytest.mark.parametrize("text", [True, False])
def test_embedding_and_caption_reach_the_decoder(text):
    part, given = decoder(text=text), features()
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3, 700])

    def output(z, sentence=1.0):
        extras = {} if z is None else {PREVIOUS: z}
        told = TextFeatures(sentence * given.sentence, given.words, given.mask, (), extras)
        return part(x, t, part.condition(told))

    z = torch.randn(2, D)
    with torch.no_grad():
        first = output(z)
        assert (first - output(-z)).abs().max() > 1e-3
        torch.testing.assert_close(output(None), output(part.image.null.expand(2, -1)))
        assert torch.equal(first, output(z, 2.0)) is not text
    gradient = torch.autograd.grad(output(z.requires_grad_()).square().sum(), z)[0]
    assert gradient.abs().sum(1).min() > 0


def test_the_papers_decoder_reads_tokens_and_words():
    adm = {
        "base": 8, "multipliers": (1, 2), "blocks": 1, "attention": (8,), "head_width": 4,
        "groups": 4, "encoder_kv": 12,
    }  # fmt: skip
    part = decoder(adm=adm, learned_range=True)
    text = part.condition(features())
    assert text.words.shape == (2, 4 + 4, 12)
    assert text.mask[1].tolist() == [True] * 6 + [False] * 2
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3, 700])
    with torch.no_grad():
        prediction, v = part.ranged(x, t, text)
        torch.testing.assert_close(part(x, t, text), prediction)
    assert v.shape == x.shape


def test_guidance_drops_the_embedding_too(model):
    noise, z = PromptNoise(0, ((0, 0),) * 2), torch.randn(2, D)
    null = model.link_null("decoder", nothing(), z, noise)
    assert PREVIOUS not in null.extras
    images = [
        sampled(model, {**SHORT, "decoder": {**SHORT["decoder"], "guidance": s}}, null=nothing())
        for s in (1.0, 3.0)
    ]
    assert images[0].shape == (2, 3, 32, 32)
    assert not torch.equal(*images)


def test_embeddings_that_are_given_take_the_place_of_the_prior(model):
    z = torch.randn(2, D)
    given = PromptNoise(5, ((0, 0), (1, 0)), given=z)
    first = sampled(model, noise=given)
    torch.testing.assert_close(sampled(model, noise=given), first)
    other = {**SHORT, "prior": {"sampler": "ddim", "steps": 1}}
    torch.testing.assert_close(sampled(model, other, noise=given), first)
    assert not torch.equal(first, sampled(model))


def test_images_are_turned_into_embeddings_to_draw_between(model):
    sampler = CascadeSampler(CascadeConfig.of(SHORT, "sampler"))
    assert sampler.inverts(model)
    images = torch.rand(2, 3, 32, 32)
    request = Request(text=features(), noise=PromptNoise(0, ((0, 0),) * 2))
    torch.testing.assert_close(sampler.invert(model, images, request), model.embed(images))
    # One noise: the same embedding makes the same image.
    one = PromptNoise(0, ((0, 0),) * 2, given=torch.randn(1, D).expand(2, -1))
    first, second = sampled(model, text=features()[[0, 0]], noise=one)
    torch.testing.assert_close(first, second, atol=1e-4, rtol=0)


def test_karlos_prior_has_its_size():
    config = Dalle2Config.of(Dalle2Config.presets()["karlo"].settings, "test")
    with torch.device("meta"):
        part = PriorGenerator(config.prior, TextShape(768, 768))
    assert sum(p.numel() for p in part.parameters()) == 1_022_028_544


def test_images_are_embedded_to_one_length(model):
    z = model.embed(torch.rand(3, 3, 32, 32))
    torch.testing.assert_close(z.norm(dim=1), torch.full((3,), D**0.5))
    without = Dalle2Generator(Dalle2Config.of({**SMALL, "clip": None}, "test"), TEXT)
    with pytest.raises(UserError, match="clip"):
        without.embed(torch.rand(1, 3, 32, 32))


def test_text_diffs_turn_embeddings(model):
    z, direction = torch.randn(4, D), torch.randn(4, D)
    torch.testing.assert_close(turned(z, direction, 0.0), z, atol=1e-4, rtol=1e-4)
    end = turned(z, direction, 1.0)
    cosines = F.cosine_similarity(end, direction)
    torch.testing.assert_close(cosines, torch.ones(4), atol=1e-4, rtol=0)
    half = turned(z, direction, 0.5)
    torch.testing.assert_close(half.norm(dim=1), z.norm(dim=1))
    torch.testing.assert_close(
        F.cosine_similarity(half, z), F.cosine_similarity(half, direction), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(turned(z, torch.zeros(4, D), 0.5), z)
    images = torch.rand(2, 3, 32, 32)
    edits = [
        sampled(model, image=images, null=nothing(), strength=strength) for strength in (0.0, 0.9)
    ]
    assert not torch.equal(*edits)
    with pytest.raises(UserError, match="guide one, such as"):
        sampled(model, image=images, strength=0.5)
    with pytest.raises(UserError, match="mask"):
        sampled(model, image=images, mask=torch.ones(2, 1, 32, 32))


class Engine:
    progress = 0.0

    def update(self, name, loss):
        self.loss = loss
        loss.backward()

    def gathered(self, x):
        return x


def batch(n=6):
    images = torch.rand(n, 3, 32, 32) * 2 - 1
    noise = StepNoise(0, 0, 0, n, n)
    return Batch(
        images, ("a",) * n, ("a",) * n, noise, lambda c: nothing(len(c)), features=features(n)
    )


class Encoder(torch.nn.Module):
    trainable, shape = False, TEXT


def test_the_prior_minimises_the_squared_error_of_embeddings(model):
    part = prior()
    trainer = PriorTrainer(part.config, Networks(part, Encoder()), model.embed)
    found = trainer.step(batch(), Engine())["diffusion"]
    torch.manual_seed(0)
    examples = batch()
    z = part.standardised(model.embed(examples.images))
    assert z.shape == (6, 1, D)
    assert torch.isfinite(found)
    assert part.seen == 6
    assert part.unet.clip_mean.grad is None
    trained = {id(p) for group in trainer.optimizers["unet"].param_groups for p in group["params"]}
    wanted = {id(p) for p in part.parameters() if p.requires_grad}
    assert trained == wanted


def test_the_decoder_trains_all_its_weights(model):
    part = decoder(image_dropout=0.3, image_noise=0.2, caption_dropout=0.5)
    trainer = DecoderTrainer(part.config, Networks(part, Encoder()), model.embed)
    losses = trainer.step(batch(), Engine())
    assert torch.isfinite(losses["diffusion"])
    trained = {id(p) for group in trainer.optimizers["unet"].param_groups for p in group["params"]}
    assert trained == {id(p) for p in part.parameters()}
    assert part.image.null.grad.abs().max() > 0
    shown = trainer.preview(batch(2))
    assert shown.shape == (4, 3, 16, 16)


def test_stages_end_with_the_prior():
    config = Dalle2Config.of(SMALL, "test")
    assert [s.name for s in stages(config, Encoder())] == ["clip", "decoder", "upsampler", "prior"]
    pretrained = Dalle2Config.of({**SMALL, "clip": {"weights": "shapes-clip"}}, "test")
    assert [s.name for s in stages(pretrained, Encoder())] == ["decoder", "upsampler", "prior"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prior": {**PRIOR, "width": 17}}, "width"),
        ({"prior": {**PRIOR, "learned_range": True}}, "variance"),
        ({"decoder": {**SMALL["decoder"], "image_size": 8}}, "low_size"),
        ({"image_size": 64}, "image_size"),
        ({"decoder": {**SMALL["decoder"], "unet": {**UNET, "sentence": False}}}, "sentence"),
    ],
)
def test_settings_that_do_not_fit_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        Dalle2Config.of({**SMALL, **given}, "test")
