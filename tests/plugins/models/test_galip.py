"""GALIP: CLIP run block by block, the authors' geometry, one step's mathematics and economy, and
the whole path."""

import shutil
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from t2i import load
from t2i.core.engine import resume, train
from t2i.core.errors import UserError
from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape
from t2i.core.interfaces.trainer import Batch, Networks
from t2i.core.io.tensors import load_tensors
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from t2i.plugins.common.clip.config import MEAN, STD, ClipVisionConfig
from t2i.plugins.common.clip.contrast import ClipMatcher
from t2i.plugins.common.clip.vision import ClipVision, build_clip
from t2i.plugins.common.text.contrastive import MatchingTrainer
from t2i.plugins.models.galip.config import GALIPConfig
from t2i.plugins.models.galip.networks import (
    Discriminator,
    DiscriminatorBlock,
    GALIPGenerator,
    QualityAssessor,
    build,
    sizes,
)
from t2i.plugins.models.galip.training import GANTrainer, pretraining, stages
from tests.plugins.models.stand_ins import Recorder
from tests.stopped import stopped_at

TEXT = TextShape(8, 8)
SMALL = GALIPConfig.of(
    {
        "image_size": 16, "last_size": None, "nf": 2, "z_dim": 6, "bridge_width": 4,
        "bridge_middle": 3,
        "bridge_blocks": 2, "judge_width": 6, "assessor_width": 5, "feature_blocks": (1, 3),
        "prompt_blocks": (2, 3),
        "clip": {"weights": None, "image_size": 20, "patch": 5, "width": 8, "layers": 4, "heads": 2},  # noqa: E501
        "lr_g": 1e-3, "lr_d": 1e-3, "residual_gain": 0.5, "fusion_gain": 1.0,
    },
    "test",
)  # fmt: skip


def count(module, trained=False):
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


def text(n, width=8):
    return TextFeatures.of(sentence=torch.randn(n, width), captions=[""] * n)


def changed(config, **settings):
    return type(config).of({**config.model_dump(), **settings}, "test")


@pytest.fixture
def clip():
    """A CLIP whose biases and norms are not at their starts, so that none can be forgotten
    unnoticed."""
    torch.manual_seed(0)
    clip = build_clip(SMALL.clip, 8, None, "galip")
    for p in clip.parameters():
        p.add_(torch.randn_like(p) * 0.3)
    return clip


def looked_at(images, size=20, scale=0.25, shift=0.75):
    """The authors' way into CLIP: nearest, from [-1, 1] to [0.5, 1], then CLIP's own
    normalisation."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return (F.interpolate(images, (size, size)) * scale + shift - mean) / std


# --- CLIP, block by block -------------------------------------------------------------------------


def test_blocks_give_what_the_plain_model_gives(clip):
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    plain = clip.network(pixel_values=looked_at(images), output_hidden_states=True)
    maps, embedding = clip.maps_and_embedding(images, (1, 3, 4))
    for number, found in zip((1, 3, 4), maps, strict=True):
        expected = plain.hidden_states[number][:, 1:].transpose(1, 2).reshape(2, 8, 4, 4)
        assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(embedding, plain.image_embeds, atol=1e-5)
    assert torch.allclose(clip.embedding(images), plain.image_embeds, atol=1e-5)
    assert torch.allclose(clip.maps(images, (3,))[0], maps[1], atol=1e-6)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_every_geometry_is_read_from_its_configuration(activation):
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 12,
        "intermediate_size": 20,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
    }
    config = CLIPVisionConfig(
        **sizes, image_size=24, patch_size=4, projection_dim=8, hidden_act=activation
    )
    clip = ClipVision(ClipVisionConfig(normalise="once"), CLIPVisionModelWithProjection(config))
    images = torch.rand(1, 3, 24, 24) * 2 - 1
    plain = clip.network(pixel_values=looked_at(images, 24, 0.5, 0.5))
    assert (clip.grid, clip.width, len(clip.layers)) == (6, 12, 2)
    assert torch.allclose(clip.embedding(images), plain.image_embeds, atol=1e-5)


def test_prompts_are_appended_to_their_blocks_and_dropped_after(clip):
    features, prompts = torch.randn(2, 8, 4, 4), torch.randn(2, 2, 8)
    vision = clip.network.vision_model
    first = vision.embeddings.class_embedding.expand(2, 1, -1)
    x = (
        torch.cat([first, features.flatten(2).transpose(1, 2)], 1)
        + vision.embeddings.position_embedding.weight
    )
    x = vision.pre_layrnorm(x)
    for number, layer in enumerate(vision.encoder.layers, 1):
        appended = number in (2, 3)
        if appended:
            x = torch.cat([x, prompts[:, number - 2, None]], 1)
        x = layer(x, attention_mask=None)
        x = x[0] if isinstance(x, tuple) else x
        x = x[:, :-1] if appended else x
    expected = x[:, 1:].transpose(1, 2).reshape(2, 8, 4, 4)
    assert torch.allclose(clip.completed(features, prompts, (2, 3)), expected, atol=1e-5)
    other = prompts.clone()
    other[:, 1] = torch.randn(2, 8)
    assert not torch.allclose(clip.completed(features, other, (2, 3)), expected, atol=1e-3)


def test_no_block_after_the_last_one_watched_is_run(clip):
    ran = Counter()
    for number, layer in enumerate(clip.layers, 1):
        layer.mlp.fc1.register_forward_hook(lambda *_, number=number: ran.update([number]))
    clip.maps(torch.zeros(1, 3, 20, 20), (1, 2))
    assert ran == {1: 1, 2: 1}


def test_images_can_enter_clip_as_it_was_trained(clip):
    images = torch.rand(1, 3, 40, 40) * 2 - 1
    clip.config = changed(SMALL.clip, resize="bicubic", normalise="once")
    small = F.interpolate(images, (20, 20), mode="bicubic", antialias=True, align_corners=False)
    expected = clip.network(pixel_values=looked_at(small, scale=0.5, shift=0.5)).image_embeds
    assert torch.allclose(clip.embedding(images), expected, atol=1e-5)


# --- networks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "whole", "with_gradients"), [(128, 160_758_984, 73_304_520), (256, 170_090_696, None)]
)
def test_parameters_are_the_authors(size, whole, with_gradients):
    """160.8M at 128 pixels, 73M of them with gradients, in the authors' G, D and C. Their G lacks
    the head of CLIP, which ours holds for the similarity; their D holds 1x1 shortcuts in the two
    blocks that change no channels, never used."""
    with torch.device("meta"):
        config = GALIPConfig.of({"image_size": size, "clip": {"weights": None}}, "test")
        generator = build(config, TextShape(512, 512), None)
        judges = [Discriminator(config, generator.clip), QualityAssessor(config, 512, 7)]
    head, unused = 2 * 768 + 768 * 512, 2 * (768 * 768 + 768)
    parts = [generator, *judges]
    assert sum(map(count, parts)) - head + unused == whole
    if with_gradients:
        assert sum(count(part, trained=True) for part in parts) + unused == with_gradients
    assert count(generator.clip) == 87_849_216  # ViT-B/32 as OpenAI released it


@pytest.mark.parametrize(
    ("settings", "grid", "expected"),
    [
        ({"image_size": 256}, 7, [8, 16, 32, 64, 128, 224]),
        ({"image_size": 128}, 7, [8, 16, 32, 64, 224]),
        ({"image_size": 128, "blocks": 6, "last_size": 128}, 7, [8, 16, 32, 64, 128, 128]),
        ({"image_size": 32, "last_size": None}, 8, [8, 16, 32]),
        ({"image_size": 224, "blocks": 6, "last_size": None}, 14, [16, 32, 64, 128, 256, 224]),
    ],
)
def test_blocks_grow_from_clips_grid_to_the_image(settings, grid, expected):
    assert sizes(GALIPConfig.of(settings, "test"), grid) == expected


def test_generator_hears_text_and_noise_and_is_bounded_only_when_it_draws(clip):
    for start_from_text in (False, True):
        generator = GALIPGenerator(
            changed(SMALL, start_from_text=start_from_text), TEXT, clip
        ).eval()
        generator.to_rgb.weight.data.mul_(30)
        z, words = torch.randn(2, 6), text(2)
        images = generator(z, words)
        assert images.shape == (2, 3, 16, 16)
        assert images.abs().max() == 1
        assert torch.equal(images, generator(z, words))
        assert not torch.allclose(images, generator(z.flip(0), words), atol=1e-3)
        assert not torch.allclose(images, generator(z, words[[1, 0]]), atol=1e-3)
        assert torch.allclose(images[:1], generator(z[:1], words[:1]), atol=1e-5)
        free = generator.train()(z, words)
        assert free.abs().max() > 1
        assert torch.equal(free.clamp(-1, 1), images)


def test_images_are_bounded_in_training_too_if_the_settings_say_so(clip):
    free, bounded = (GALIPGenerator(changed(SMALL, bounded=b), TEXT, clip) for b in (False, True))
    bounded.load_state_dict(free.state_dict())
    z, words = torch.randn(2, 6), text(2)
    assert torch.equal(bounded.train()(z, words), free.train()(z, words).tanh())
    assert torch.equal(bounded.eval()(z, words), bounded.train()(z, words))


def test_judge_block_by_hand():
    torch.manual_seed(0)
    block, x, f = (
        DiscriminatorBlock(3, 3, 0.0, joined=True),
        torch.randn(2, 3, 4, 4),
        torch.randn(2, 3, 4, 4),
    )
    assert torch.equal(block(x, f), x)  # both gains start at 0
    block.gamma.data.fill_(0.5)
    block.beta.data.fill_(2.0)
    residual = F.leaky_relu(block.conv2(F.leaky_relu(block.conv1(x), 0.2)), 0.2)
    assert torch.allclose(block(x, f), x + 0.5 * residual + 2 * f, atol=1e-6)
    last = DiscriminatorBlock(3, 5, 1.0, joined=False)
    assert last.beta is None
    assert torch.allclose(
        last(x), last.shortcut(x) + F.leaky_relu(last.conv2(F.leaky_relu(last.conv1(x), 0.2)), 0.2)
    )


def test_assessor_is_the_papers_convolution_over_tiled_sentences():
    torch.manual_seed(0)
    assessor, features = QualityAssessor(SMALL, 8, 7), torch.randn(2, 6, 7, 7)
    e, other = torch.randn(2, 8), torch.randn(2, 8)
    found = assessor(features, e, other)
    assert assessor.joint.kernel_size == assessor.score.kernel_size == (4, 4)
    for score, sentence in zip(found, (e, other), strict=True):
        tiled = torch.cat([features, sentence[:, :, None, None].repeat(1, 1, 7, 7)], 1)
        expected = assessor.score(F.leaky_relu(assessor.joint(tiled), 0.2)).flatten()
        assert torch.allclose(score, expected, atol=1e-5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match=r"feature_blocks = \[1, 5\], but this CLIP has 4 blocks"):
        build(changed(SMALL, feature_blocks=(1, 5)), TEXT, None)
    with pytest.raises(UserError, match="ascending numbers of CLIP's blocks"):
        changed(SMALL, prompt_blocks=(3, 2))
    with pytest.raises(UserError, match="at least one block"):
        changed(SMALL, feature_blocks=())
    with pytest.raises(UserError, match="power of two"):
        changed(SMALL, image_size=48)


def test_clip_comes_from_a_folder_and_must_speak_the_encoders_language(clip, tmp_path):
    clip.network.save_pretrained(tmp_path)
    given = changed(SMALL, clip={**SMALL.clip.model_dump(), "weights": str(tmp_path), "width": 96})
    generator = build(given, TEXT, None)
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(generator.clip.embedding(images), clip.embedding(images))
    with pytest.raises(
        UserError, match="sentences of 9 numbers cannot be compared with the 8 of CLIP's images"
    ):
        build(given, TextShape(9, 9), None)
    with pytest.raises(UserError, match=r"galip: clip\.weights = .*nowhere: no such folder"):
        build(changed(SMALL, clip={"weights": str(tmp_path / "nowhere")}), TEXT, None)


# --- training -------------------------------------------------------------------------------------


class Sentences(TextEncoder):
    def __init__(self, frozen):
        super().__init__()
        self.shape = TEXT
        self.table = nn.Embedding(4, 8).requires_grad_(not frozen)

    def encode(self, captions):
        return TextFeatures.of(
            sentence=self.table(torch.tensor([len(c) for c in captions])), captions=captions
        )


def batch(encoder, n=4):
    torch.manual_seed(3)
    images = torch.rand(n, 3, 16, 16) * 2 - 1
    captions = tuple("x" * i for i in range(n))
    return Batch(images, captions, captions, StepNoise(0, 5, 0, n, n), encoder.encode)


@pytest.fixture
def trainer(clip, request):
    """Of SMALL, with the settings that a test names."""
    config = changed(SMALL, **getattr(request, "param", {}))
    encoder = Sentences(frozen=True)
    trainer = GANTrainer(config, Networks(GALIPGenerator(config, TEXT, clip), encoder))
    trainer.encoder = encoder
    return trainer


def agree(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("trainer", [{}, {"judge_pixels": True}], indirect=True, ids=str)
def test_losses_of_a_step_are_the_papers(trainer):
    """Worked out anew, with transformers' own forward: hinge with the sentences shifted by one,
    MA-GP at CLIP's features and e; then -E[D] - lambda E[cos]. With `judge_pixels` each patch's
    pixels are one more map for D."""
    made, engine = batch(trainer.encoder), Recorder(trainer)
    trainer.step(made, engine)
    D, G, net = trainer.discriminator, trainer.generator, trainer.clip.network
    assessor = trainer.assessor

    def seen(images):
        out = net(pixel_values=looked_at(images), output_hidden_states=True)
        maps = [out.hidden_states[n][:, 1:].transpose(1, 2).reshape(-1, 8, 4, 4) for n in (1, 3)]
        if trainer.config.judge_pixels:
            small = F.interpolate(images, (20, 20), mode="nearest")
            patches = rearrange(small, "b c (y v) (x u) -> b (c v u) y x", v=5, u=5)
            maps.insert(0, patches)
        return maps, out.image_embeds

    def score(maps, sentence):
        tiled = sentence[:, :, None, None].repeat(1, 1, 4, 4)
        return assessor.score(
            F.leaky_relu(assessor.joint(torch.cat([D(maps), tiled], 1)), 0.2)
        ).flatten()

    e = made.text.sentence.detach().requires_grad_()
    fake = G(made.noise.normal("z", 0, (6,)), made.text)
    fake_maps, embedding = seen(fake)
    real = [f.detach().requires_grad_() for f in seen(made.images)[0]]
    matched = score(real, e)
    hinge = (
        F.relu(1 - matched).mean()
        + F.relu(1 + score([f.detach() for f in fake_maps], e)).mean() / 2
    )
    hinge += F.relu(1 + score(real, e[[3, 0, 1, 2]])).mean() / 2
    gradients = torch.autograd.grad(matched.sum(), [*real, e], create_graph=True)
    norm = torch.cat([g.flatten(1) for g in gradients], 1).norm(dim=1)
    loss = hinge + 2 * (norm**6).mean()
    assert engine.losses["discriminator"].item() == pytest.approx(loss.item(), rel=1e-3)
    judges = [*D.parameters(), *assessor.parameters()]
    agree(engine.gradients["discriminator"], torch.autograd.grad(loss, judges))

    cosine = (embedding * e).sum(1) / (embedding.norm(dim=1) * e.norm(dim=1))
    loss = -score(fake_maps, e).mean() - 4 * cosine.mean()
    assert engine.losses["generator"].item() == pytest.approx(loss.item(), rel=1e-3)
    drawing = [p for p in G.parameters() if p.requires_grad]
    agree(engine.gradients["generator"], torch.autograd.grad(loss, drawing))
    assert all(g is not None and g.abs().sum() > 0 for g in engine.gradients["generator"])


def count_passes(calls, back, number, module, given):
    """A pre-hook of block `number`'s first MLP layer that counts its forward and backward passes.

    The backward passes are counted at the layer's input: `quick_gelu` overwrites the output, which
    is a view on some processors, and an in-place operation on a view drops the hooks of its tensor.
    """
    calls.update([number])
    if given[0].requires_grad:
        given[0].register_hook(lambda grad: back.update([number]))


def test_a_step_wastes_nothing(trainer):
    """One run of G; CLIP once inside it, once on its images (of the last block the class token
    alone), and on real ones as far as D looks, without a graph; no gradient into anything that is
    not being updated."""
    calls, back, last = Counter(), Counter(), []
    for name, module in trainer.modules.items():
        module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    for number, layer in enumerate(trainer.clip.layers, 1):
        layer.mlp.fc1.register_forward_pre_hook(partial(count_passes, calls, back, number))
    trainer.clip.layers[-1].mlp.fc1.register_forward_hook(
        lambda module, given, out: last.append(given[0].shape[1])
    )
    made = batch(trainer.encoder)
    trainer.step(made, Recorder(trainer))
    assert calls == {"generator": 1, "discriminator": 3, "assessor": 3, 1: 3, 2: 3, 3: 3, 4: 2}
    assert back == {1: 2, 2: 2, 3: 2, 4: 2}
    assert last == [17, 1]
    assert all(p.grad is None for module in trainer.modules.values() for p in module.parameters())
    assert not any(p.requires_grad for p in trainer.clip.parameters())
    assert not made.images.requires_grad
    assert trainer.encoder.table.weight.grad is None


def test_clip_and_text_stay_as_they_are_and_both_players_move(trainer):
    modules = {**trainer.modules, "text": trainer.encoder, "clip": trainer.clip}
    before = {name: [p.clone() for p in module.parameters()] for name, module in modules.items()}
    trainer.step(batch(trainer.encoder), Recorder(trainer, move=True))
    moved = {
        name: any(
            not torch.equal(p, q) for p, q in zip(module.parameters(), before[name], strict=True)
        )
        for name, module in modules.items()
    }
    assert moved == {
        "generator": True,
        "discriminator": True,
        "assessor": True,
        "text": False,
        "clip": False,
    }


def test_unit_text_divides_sentences_by_their_length(trainer):
    made = batch(trainer.encoder)
    trainer.config = trainer.generator.config = changed(SMALL, unit_text=True)
    one, two = Recorder(trainer), Recorder(trainer)
    trainer.step(made, one)
    trainer.encoder.table.weight.mul_(3)
    trainer.step(batch(trainer.encoder), two)
    assert one.losses["generator"].item() == pytest.approx(two.losses["generator"].item(), rel=1e-4)


def test_optimizers_are_the_authors_by_default(clip):
    config = GALIPConfig.of({"prompt_blocks": (2, 3), "feature_blocks": (1, 2)}, "test")
    trainer = GANTrainer(config, Networks(GALIPGenerator(config, TEXT, clip), Sentences(True)))
    settings = {
        name: (o.defaults["lr"], o.defaults["betas"]) for name, o in trainer.optimizers.items()
    }
    assert settings == {"generator": (1e-4, (0.0, 0.9)), "discriminator": (4e-4, (0.0, 0.9))}


def test_what_is_trainable_is_pretrained_and_then_frozen():
    generator, encoder = build(SMALL, TEXT, None), Sentences(frozen=False)
    pretrained = changed(SMALL, clip={"weights": "some/clip"})
    assert [stage.name for stage in stages(pretrained, Sentences(frozen=True))] == ["gan"]
    assert [stage.name for stage in stages(pretrained, encoder)] == ["clip", "gan"]
    both = stages(SMALL, encoder)
    assert both[0].share / (both[0].share + both[1].share) == pytest.approx(SMALL.text_share)
    first = both[0].trainer(Networks(generator, encoder))
    assert isinstance(first, MatchingTrainer)
    trained = {p for o in first.optimizers.values() for g in o.param_groups for p in g["params"]}
    assert trained >= {*generator.clip.parameters(), *encoder.parameters()}
    second = both[1].trainer(Networks(generator, encoder))
    drawing = {p for o in second.optimizers.values() for g in o.param_groups for p in g["params"]}
    assert not drawing & trained
    assert not any(p.requires_grad for p in generator.clip.parameters())
    alone = pretraining(
        pretrained, Networks(generator, encoder)
    )  # the CLIP is given: the text comes to it
    trained = {p for o in alone.optimizers.values() for g in o.param_groups for p in g["params"]}
    assert trained & {*generator.clip.parameters()} == set()
    assert encoder.table.weight in trained


def test_clip_learns_whose_caption_a_image_has():
    torch.manual_seed(0)
    generator, encoder = build(SMALL, TEXT, None), Sentences(frozen=False)
    trainer = pretraining(SMALL, Networks(generator, encoder))
    made, engine = batch(encoder), Recorder(trainer, move=True)
    losses = []
    for _ in range(30):
        trainer.step(batch(encoder), engine)
        losses.append(engine.losses["contrastive"].item())
    assert losses[-1] < 0.5 * losses[0]
    matcher = ClipMatcher(generator.clip)
    logits = matcher.logits(matcher(made.images), made.text.sentence)
    image, e = (
        F.normalize(x, dim=1) for x in (generator.clip.embedding(made.images), made.text.sentence)
    )
    assert torch.allclose(logits, 10 * image @ e.T, atol=1e-5)


# --- registration and the whole path --------------------------------------------------------------


def test_is_registered_with_its_presets():
    spec = registry().models["galip"]
    config = resolve_config("galip")
    assert (config.model, config.preset, config.data.name, config.encoder.name) == (
        "galip",
        "tiny",
        "shapes",
        "words",
    )
    assert (
        set(import_object(spec.config).presets())
        == set(spec.presets)
        == {"tiny", "cub", "coco", "thesis", "shapes"}
    )


@pytest.mark.parametrize("preset", ["cub", "coco", "thesis"])
def test_paper_presets_are_the_papers(preset):
    run = resolve_config("galip", preset=preset, data_needed=False)
    settings = run.settings
    assert (run.encoder.name, run.encoder.config.weights) == ("clip", settings.clip.weights)
    assert (settings.nf, settings.z_dim, settings.similarity) == (64, 100, 4)
    assert (settings.penalty_k, settings.penalty_p, settings.ema_decay) == (2, 6, 0)
    assert not settings.start_from_text
    assert not settings.bounded
    assert (settings.fusion_gain, settings.residual_gain) == (0, 0)
    thesis = preset == "thesis"
    assert (settings.image_size, sizes(settings, 7)[-1]) == ((128, 128) if thesis else (256, 224))
    assert (settings.batch_size, settings.accumulate) == ((256, 16) if thesis else (16, 1))


QUICK = [
    "batch_size=4", "nf=2", "encoder.width=16", "encoder.heads=2", "clip.width=16", "clip.heads=2",
    "clip.layers=2",
    "feature_blocks=[1,2]", "prompt_blocks=[2]", "text_share=0.34", "bridge_width=4",
    "bridge_middle=4",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    config = resolve_config("galip", sets=["steps=6", "checkpoint_every=1", "keep=9", *QUICK])
    return train(config, tmp_path_factory.mktemp("galip") / "run")


def test_trains_saves_and_draws(whole_run):
    assert [stage["name"] for stage in whole_run.summary()["stages"]] == ["clip", "gan"]
    model = load(whole_run.path, "cpu")
    captions = ["a large red star on the left", "a small blue circle in the center"]
    plain = model.sample(captions, n=2, seed=1)
    assert [image.size for image in plain] == [(32, 32)] * 4
    assert [p.tobytes() for p in plain] == [
        p.tobytes() for p in model.sample(captions, n=2, seed=1, batch_size=4)
    ]
    alone = [np.asarray(image, int) for image in model.sample(captions, n=2, seed=1, batch_size=1)]
    assert max(np.abs(np.asarray(p, int) - q).max() for p, q in zip(plain, alone, strict=True)) <= 1


@pytest.mark.parametrize("cut", [1, 3, 5])  # within stage 1, within stage 2
def test_a_run_that_was_stopped_ends_as_one_that_was_not(whole_run, tmp_path, cut):
    part = stopped_at(whole_run, cut, tmp_path / "part")
    shutil.rmtree(part.model)
    torch.manual_seed(12345)  # the state of this process must not matter
    resume(part.path)
    for file in (
        "step-5/modules.discriminator",
        "step-5/modules.assessor",
        "step-5/optimizers",
        "step-6/modules.generator",
    ):
        one, two = (
            load_tensors(run.checkpoints / f"{file}.safetensors", "x") for run in (whole_run, part)
        )
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
