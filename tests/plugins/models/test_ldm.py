"""Latent diffusion: its losses against the equations, its two stages, and that text gets in by
every way."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.interfaces.noise import PromptNoise, StepNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape
from t2i.core.interfaces.trainer import Batch, Networks
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from t2i.plugins.common.diffusion.training import DenoisingTrainer
from t2i.plugins.common.gan.conditioning.augmentation import kl_loss
from t2i.plugins.common.latent.autoencoder import AutoencoderTrainer
from t2i.plugins.models.ldm.config import LDMConfig
from t2i.plugins.models.ldm.networks import LDMGenerator
from t2i.plugins.models.ldm.training import stages

TEXT = TextShape(12, 16)
SMALL = {
    "image_size": 32,
    "batch_size": 4,
    "schedule": "cosine",
    "prediction": "v",
    "caption_dropout": 0.5,
    "lr": 1e-3,
    "autoencoder": {"patch": 2, "channels": (8, 16), "layers": 1, "groups": 4, "attention": False, "lr": 1e-2},  # noqa: E501
    "unet": {
        "channels": (8, 16), "layers": 1, "attention": ("none", "cross"), "head_width": 8,
        "groups": 4,
        "text_map": 4, "sentence": True,
    },
}  # fmt: skip


def config(**settings):
    return LDMConfig.of({**SMALL, **settings}, "test")


def unet(**settings):
    return {"unet": {**SMALL["unet"], **settings}}


class Letters(TextEncoder):
    """One learnt vector a letter. Trainable unless frozen."""

    def __init__(self, frozen=False):
        super().__init__()
        self.shape = TEXT
        self.table = torch.nn.Embedding(128, TEXT.words).requires_grad_(not frozen)
        self.asked = []

    def encode(self, captions):
        self.asked.append(tuple(captions))
        codes = [[ord(c) for c in f"^{caption}"] for caption in captions]
        length = max(map(len, codes))
        words = self.table(torch.tensor([row + [0] * (length - len(row)) for row in codes]))
        mask = torch.tensor([[i < len(row) for i in range(length)] for row in codes])
        return TextFeatures.of(
            words=words, mask=mask, sentence=words.mean(1)[:, : TEXT.sentence], captions=captions
        )


class Engine:
    """Takes plain steps and remembers the losses."""

    progress = 0.0

    def __init__(self, trainer):
        self.trainer, self.losses = trainer, []

    def update(self, name, loss):
        optimizer = self.trainer.optimizers[name]
        self.losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def text(n=3, seed=0):
    random = torch.Generator().manual_seed(seed)
    sentence, words = torch.randn(n, 12, generator=random), torch.randn(n, 5, 16, generator=random)
    return TextFeatures(sentence, words, torch.ones(n, 5, dtype=torch.bool))


def batch(encoder, step=0, captions=("red", "green", "blue", "pink")):
    n = len(captions)
    images = (
        torch.rand(n, 3, 1, 1, generator=torch.Generator().manual_seed(7)).expand(n, 3, 32, 32) * 2
        - 1
    )
    return Batch(
        images.contiguous(), captions, captions, StepNoise(0, step, 0, n, n), encoder.encode
    )


def woken(module):
    """diffusers begins some last layers at zero; a test of what reaches the output wants none
    there."""
    with torch.no_grad():
        for p in module.parameters():
            if not p.any():
                p.normal_(std=0.1)
    return module


@pytest.fixture
def generator():
    torch.manual_seed(0)
    return LDMGenerator(config(), TEXT)


def test_a_tiny_run_is_configured_whole():
    run = resolve_config("ldm")
    assert (run.data.name, run.encoder.name, run.sampler.name) == ("shapes", "words", "ddim")
    made = import_object(registry().models["ldm"].generator)(
        run.settings, TextShape(128, 128), None
    )
    latents = made.encode(torch.zeros(2, 3, 32, 32))
    assert latents.shape[1:] == made.noise_shape
    assert made.decode(latents).shape == (2, 3, 32, 32)
    assert made(latents, torch.tensor([0, 999]), made.condition(_wide(2))).shape == latents.shape


@pytest.mark.parametrize(
    ("preset", "text", "latents", "parameters"),
    [
        ("thesis", TextShape(512, 512), (4, 16, 16), 24_537_796),
        ("coco", TextShape(768, 768), (4, 32, 32), 859_520_964),
    ],
)
def test_the_big_presets_are_whole(preset, text, latents, parameters):
    """The thesis says "about 24M trained parameters"; coco's U-Net is Stable Diffusion 1.x's, of
    860M."""
    run = resolve_config("ldm", preset=preset, data_needed=False)
    assert (run.data.name, run.encoder.name) == ("coco", "clip")
    with torch.device("meta"):
        made = LDMGenerator(run.settings, text)
        assert made.noise_shape == latents
        assert sum(p.numel() for p in made.unet.parameters()) == parameters
        t = torch.rand(2) if run.settings.schedule == "mixing" else torch.tensor([0, 999])
        words = TextFeatures(
            torch.zeros(2, *text[:1]), torch.zeros(2, 77, text.words), torch.ones(2, 77).bool()
        )
        assert made(torch.zeros(2, *latents), t, words).shape == (2, *latents)
    assert [stage.name for stage in stages(run.settings, None)] == ["diffusion"]
    assert run.settings.image_size == 8 * latents[1]


def test_the_sentence_may_be_the_only_word():
    torch.manual_seed(0)
    generator = LDMGenerator(config(**unet(text_map=0, sentence=False, context="sentence")), TEXT)
    woken(generator.unet)
    x, t, one = torch.randn(3, 4, 8, 8), torch.tensor([10, 500, 990]), text()
    assert torch.equal(
        generator(x, t, one), generator(x, t, TextFeatures(one.sentence, one.words + 1, ~one.mask))
    )
    moved = TextFeatures(one.sentence + 1, one.words, one.mask)
    assert (generator(x, t, one) - generator(x, t, moved)).abs().max() > 1e-5


def test_a_head_is_as_wide_as_the_settings_say():
    """diffusers' `attention_head_dim` is the number of heads where words are attended to."""
    settings = unet(
        channels=(16, 32), attention=("self", "cross"), head_width=8, text_map=0, sentence=False
    )
    net = LDMGenerator(config(**settings), TEXT).unet.unet
    assert net.down_blocks[0].attentions[0].heads == 2  # of 16 channels, 8 wide
    for block in (net.down_blocks[1].attentions[0], net.mid_block.attentions[0]):
        assert [
            layer.heads
            for layer in (block.transformer_blocks[0].attn1, block.transformer_blocks[0].attn2)
        ] == [
            4,
            4,
        ]
    net = LDMGenerator(
        config(**unet(attention=("cross", "cross"), heads=2, head_width=None)), TEXT
    ).unet.unet
    assert [block.attentions[0].transformer_blocks[0].attn2.heads for block in net.down_blocks] == [
        2,
        2,
    ]
    with pytest.raises(UserError, match="the root of its channels"):
        config(**unet(attention=("cross", "self"), head_width=8))
    with pytest.raises(UserError, match="nothing attends to words"):
        config(**unet(attention=("none", "self"), middle="self", heads=2))


def _wide(n):
    return TextFeatures.of(words=torch.randn(n, 6, 128))


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="image_size"):
        config(image_size=36)
    with pytest.raises(UserError, match="attention has 1 levels"):
        config(**unet(attention=("cross",)))


def test_kl_is_that_of_two_gaussians():
    mean, logvar = torch.randn(2, 3), torch.randn(2, 3)
    ours = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    theirs = torch.distributions.kl_divergence(ours, torch.distributions.Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(kl_loss(mean, logvar), theirs)


def test_every_way_in_for_the_text_reaches_the_output(generator):
    woken(generator.unet)
    x, t, one, other = (
        torch.randn(3, 4, 8, 8),
        torch.tensor([10, 500, 990]),
        text(seed=0),
        text(seed=1),
    )

    def output(sentence, words, mask):
        return generator(x, t, generator.condition(TextFeatures(sentence, words, mask)))

    plain = output(one.sentence, one.words, one.mask)
    assert (output(other.sentence, one.words, one.mask) - plain).abs().max() > 1e-4
    assert (
        output(one.sentence, other.words, one.mask) - plain
    ).abs().max() > 1e-5  # cross-attention
    masked = one.mask.clone()
    masked[:, 3:] = False
    changed = one.words.clone()
    changed[:, 3:] = 100.0
    torch.testing.assert_close(
        output(one.sentence, changed, masked),
        output(one.sentence, one.words, masked),
        rtol=1e-4,
        atol=1e-5,
    )


def test_without_sentence_and_map_the_words_alone_condition():
    torch.manual_seed(0)
    generator = LDMGenerator(config(**unet(text_map=0, sentence=False)), TEXT)
    woken(generator.unet)
    x, t, one = torch.randn(3, 4, 8, 8), torch.tensor([10, 500, 990]), text()
    moved = TextFeatures(one.sentence + 1, one.words, one.mask)
    assert torch.equal(generator(x, t, one), generator(x, t, moved))
    moved = TextFeatures(one.sentence, one.words + 1, one.mask)
    assert (generator(x, t, one) - generator(x, t, moved)).abs().max() > 1e-5


def test_stage_1_learns_and_leaves_latents_of_unit_variance(generator):
    trainer = AutoencoderTrainer(config().autoencoder, generator.autoencoder)
    engine, encoder = Engine(trainer), Letters()
    before = generator.unet.state_dict()["unet.conv_in.weight"].clone()
    losses = [
        float(trainer.step(batch(encoder, i), engine)["reconstruction"].detach()) for i in range(30)
    ]
    assert losses[-1] < 0.5 * losses[0]
    assert torch.equal(generator.unet.state_dict()["unet.conv_in.weight"], before)
    assert encoder.asked == []  # text costs nothing here
    trainer.finish(lambda: batch(encoder))
    z = generator.encode(batch(encoder).images).detach()
    assert float(z.mean()) == pytest.approx(0, abs=1e-3)
    variances = torch.linalg.eigvalsh(torch.cov(z.movedim(1, 0).flatten(1)))
    assert float(variances[-1]) == pytest.approx(
        1, abs=1e-2
    )  # the others: images of one grey use one direction
    raw = generator.autoencoder.reconstruct(
        generator.autoencoder.posterior(batch(encoder).images).mode()
    )
    torch.testing.assert_close(
        generator.decode(z), raw, rtol=1e-3, atol=1e-3
    )  # scaling there and back


def test_latents_are_whitened_but_an_unused_direction_is_not_blown_up(generator, monkeypatch):
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))[0]
    plain = torch.randn(64, 8, 8, 4) * torch.tensor([3.0, 1.0, 0.5, 1e-7])
    raw = (plain @ turn.T + 2).movedim(-1, 1)
    autoencoder = generator.autoencoder
    autoencoder.measure(raw)
    monkeypatch.setattr(
        autoencoder, "posterior", lambda images: SimpleNamespace(mode=lambda: images)
    )
    z = autoencoder.encode(raw)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-4)
    expected = (
        turn @ torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0])) @ turn.T
    )  # the unused direction stays at nothing
    torch.testing.assert_close(torch.cov(z.movedim(1, 0).flatten(1)), expected, rtol=0, atol=1e-3)
    monkeypatch.setattr(autoencoder, "reconstruct", lambda latents: latents)
    torch.testing.assert_close(autoencoder.decode(z), raw, rtol=1e-4, atol=1e-4)  # there and back


def test_stage_1_shows_originals_beside_reconstructions(generator):
    images = batch(Letters()).images
    shown = AutoencoderTrainer(config().autoencoder, generator.autoencoder).preview(
        batch(Letters())
    )
    assert shown.shape == (8, 3, 32, 32)
    assert torch.equal(shown[0::2], images)
    torch.testing.assert_close(shown[1::2], generator.decode(generator.encode(images)))


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v"])
def test_stage_2_is_the_papers_loss(generator, prediction):
    """E ||target - net(z_t, t, tau(y))||^2, with the target written out here."""
    generator.prediction = prediction
    trainer = DenoisingTrainer(
        config(prediction=prediction, caption_dropout=0.0), Networks(generator, Letters())
    )
    seen = []
    generator.unet.register_forward_hook(
        lambda module, given, output: seen.append((*given, output))
    )
    examples = batch(Letters())
    loss = trainer.step(examples, Engine(trainer))["diffusion"]
    z_0, eps = generator.encode(examples.images), examples.noise.normal("eps", 0, (4, 8, 8))
    z_t, t, _, output = seen[0]
    alpha, sigma = (
        f(t).view(-1, 1, 1, 1) for f in (generator.schedule.alpha, generator.schedule.sigma)
    )
    torch.testing.assert_close(z_t, alpha * z_0 + sigma * eps)
    target = {"epsilon": eps, "sample": z_0, "v": alpha * eps - sigma * z_0}[prediction]
    torch.testing.assert_close(loss, F.mse_loss(output, target))


def test_stage_2_trains_the_unet_and_a_trainable_encoder_only(generator):
    encoder = Letters()
    trainer = DenoisingTrainer(config(), Networks(generator, encoder))
    before = {
        n: p.detach().clone()
        for n, p in [*generator.named_parameters(), *encoder.named_parameters()]
    }
    for i in range(3):
        trainer.step(batch(encoder, i), Engine(trainer))
    moved = {
        n
        for n, p in [*generator.named_parameters(), *encoder.named_parameters()]
        if not p.equal(before[n])
    }
    assert not any(name.startswith("autoencoder") for name in moved)
    assert "table.weight" in moved
    assert {n for n, _ in generator.named_parameters() if n.startswith("unet")} <= moved
    frozen = DenoisingTrainer(config(), Networks(generator, Letters(frozen=True)))
    assert set(frozen.modules) == {"unet"}


def test_captions_are_dropped_at_the_rate_asked_for(generator):
    seen = []
    generator.unet.register_forward_hook(lambda module, given, output: seen.append(given[2]))
    encoder = Letters(frozen=True)
    trainer, dropped = (
        DenoisingTrainer(config(caption_dropout=0.25), Networks(generator, encoder)),
        0,
    )
    for i in range(60):
        trainer.step(batch(encoder, i), Engine(trainer))
        dropped += sum(caption == "" for caption in seen[-1].captions)
        empty = encoder.null(1).sentence[0]
        for row, caption in enumerate(seen[-1].captions):
            same = torch.allclose(seen[-1].sentence[row], empty)
            assert same == (caption == "")
    assert 35 <= dropped <= 85  # 60 expected of 240, standard deviation 6.7


def test_a_step_depends_on_its_keyed_noise_alone(generator):
    losses = []
    for _ in range(2):
        torch.manual_seed(len(losses))  # must not matter
        fresh = LDMGenerator(config(), TEXT)
        fresh.load_state_dict(generator.state_dict())
        encoder = Letters()
        encoder.table.weight.data.fill_(0.1)
        trainer = DenoisingTrainer(config(), Networks(fresh, encoder))
        losses.append(trainer.step(batch(encoder), Engine(trainer)))
    assert torch.equal(losses[0]["diffusion"], losses[1]["diffusion"])


def test_both_stages_are_shared_out_in_order():
    first, second = stages(config(), Letters())
    assert (first.name, second.name) == ("autoencoder", "diffusion")
    assert first.share + second.share == pytest.approx(1)
    assert first.share == config().autoencoder.share


@pytest.mark.slow
def test_it_overfits_two_captions_and_ddim_draws_them():
    """The whole path: an autoencoder of plain colours, a U-Net told by text which, sampled with
    guidance."""
    torch.manual_seed(0)
    settings = config(caption_dropout=0.1, lr=3e-3)
    generator, encoder = LDMGenerator(settings, TEXT), Letters()
    captions = ("red", "blue") * 8

    def examples(i):
        made = batch(encoder, i, captions)
        colours = torch.tensor([[1.0, -1, -1], [-1, -1, 1.0]]).repeat(8, 1)
        made.images = colours[:, :, None, None].expand(16, 3, 32, 32).contiguous()
        return made

    first = AutoencoderTrainer(settings.autoencoder, generator.autoencoder)
    for i in range(40):
        first.step(examples(i), Engine(first))
    first.finish(lambda: examples(0))
    second = DenoisingTrainer(settings, Networks(generator, encoder))
    engine = Engine(second)
    for i in range(120):
        second.step(examples(i), engine)
    assert sum(engine.losses[-20:]) < 0.5 * sum(engine.losses[:20])
    spec = registry().samplers["ddim"]
    sampler = import_object(spec.build)(
        import_object(spec.config).of({"steps": 10, "guidance": 1.5}, "ddim")
    )
    asked = ["red", "blue", "red", "blue"]
    generator.eval()
    with torch.no_grad():
        noise = PromptNoise(0, tuple((i, 0) for i in range(4)))
        text, null = (
            generator.condition(encoder.encode(asked)),
            generator.condition(encoder.null(4)),
        )
        drawn = sampler.sample(generator, Request(text=text, noise=noise, null=null)).mean((2, 3))
    assert [("red", "blue")[int(image[2] > image[0])] for image in drawn] == asked
