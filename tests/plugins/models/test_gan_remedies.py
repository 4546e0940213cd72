"""The remedies for mode collapse in every GAN: each trains with each, or refuses it by name."""

from __future__ import annotations

import pytest
import torch

from t2i.core.engine.local import LocalEngine
from t2i.core.errors import UserError
from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.trainer import Batch
from t2i.core.models.building import build, stages_of
from t2i.core.runs.configure import resolve_config

GANS = (
    "attngan",
    "biggan",
    "cgan",
    "dfgan",
    "dmgan",
    "galip",
    "gan",
    "gancls",
    "stackgan",
    "stackganv2",
    "stylegan",
    "xmcgan",
)
REFUSED = {("xmcgan", "packed"): "pack=2: .*use pack=1", ("xmcgan", "together"): "pack=2"}
NORM = "critic_norm=layer"
CHOICES = {
    "wasserstein": ("loss=wasserstein", NORM),
    "clipped": ("loss=wasserstein", "lipschitz=clip", "critic_steps=2"),
    "relativistic": ("loss=relativistic", NORM),
    "packed": ("pack=2",),
    "unrolled": ("unroll=2", NORM),
    "diffaugment": ("augment_images=diffaugment",),
    "ada": ("augment_images=ada", "ada_images=64"),
    "together": ("loss=relativistic", NORM, "pack=2", "unroll=1", "augment_images=ada"),
}


def batch_of(config, model, at):
    captions = ("a red square", "a blue circle", "a green star", "a white ring")
    side = config.settings.image_size
    images = torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(at)) * 2 - 1
    noise = StepNoise(0, at, 0, 4, 4, torch.device("cpu"))
    return Batch(images, captions, captions, noise, model.text_encoder.encode)


def stages(model, small, *settings):
    torch.manual_seed(0)
    config = resolve_config(model, sets=small(model, "batch_size=4", *settings))
    made = build(config)
    for stage in stages_of(config, made.text_encoder):
        if stage.name not in ("text", "damsm", "clip"):
            yield config, made, stage


def copied(trainer):
    return {
        name: [p.clone() for group in optimizer.param_groups for p in group["params"]]
        for name, optimizer in trainer.optimizers.items()
    }


@pytest.mark.parametrize("model", GANS)
@pytest.mark.parametrize("choice", CHOICES)
def test_trains_two_steps_with_each_remedy(small, model, choice):
    """Every player moves, all is finite, and the log shows the same names in each step."""
    for config, made, stage in stages(model, small, *CHOICES[choice]):
        if (model, choice) in REFUSED:
            with pytest.raises(UserError, match=REFUSED[model, choice]):
                stage.trainer(made.networks)
            continue
        trainer = stage.trainer(made.networks)
        for module in trainer.modules.values():
            module.train()
        engine, before = LocalEngine(trainer, config.settings), copied(trainer)
        reported = []
        for at in range(2):
            engine.begin_step(9)
            losses = trainer.step(batch_of(config, made, at), engine)
            assert all(loss.isfinite().all() for loss in losses.values()), losses
            reported.append(set(losses))
        assert reported[0] == reported[1]
        for name, parameters in copied(trainer).items():
            moved = [not torch.equal(p, q) for p, q in zip(parameters, before[name], strict=True)]
            assert any(moved), name


@pytest.mark.parametrize("model", ["dfgan", "stackgan"])
def test_the_generator_waits_for_the_critic(small, model):
    config, made, stage = next(iter(stages(model, small, "critic_steps=2")))
    trainer = stage.trainer(made.networks)
    engine = LocalEngine(trainer, config.settings)
    for at, moves in enumerate((False, True, False, True)):
        engine.begin_step(9)
        before = copied(trainer)
        trainer.step(batch_of(config, made, at), engine)
        now = copied(trainer)
        for name, expected in (("generator", moves), ("discriminator", True)):
            same = all(torch.equal(p, q) for p, q in zip(now[name], before[name], strict=True))
            assert same is not expected, (at, name)


def test_adas_probability_is_among_what_checkpoints_hold(small):
    for model, names in (("dfgan", {"ada_discriminator"}), ("attngan", {"ada_discriminator0"})):
        _, made, stage = next(iter(stages(model, small, *CHOICES["ada"])))
        assert names <= set(stage.trainer(made.networks).modules)


def test_clipped_weights_stay_within_their_bounds(small):
    config, made, stage = next(iter(stages("dfgan", small, *CHOICES["clipped"])))
    trainer = stage.trainer(made.networks)
    trainer.step(batch_of(config, made, 0), LocalEngine(trainer, config.settings))
    assert max(float(p.detach().abs().max()) for p in trainer.critic.parameters()) <= 0.01


def test_the_similarity_of_galip_is_that_of_the_image_itself(small):
    """CLIP sees augmented images for the discriminator, the image for the similarity."""
    found = []
    for settings in ((), ("augment_images=diffaugment",)):
        config, made, stage = next(iter(stages("galip", small, *settings)))
        trainer = stage.trainer(made.networks)
        engine = LocalEngine(trainer, config.settings, updates=False)
        found.append(trainer.step(batch_of(config, made, 0), engine)["similarity"].item())
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize("model", ["attngan", "stackgan", "stackganv2"])
@pytest.mark.parametrize("settings", [("loss=wasserstein",), ("loss=relativistic",), ("unroll=1",)])
def test_batch_norm_in_a_critic_is_refused_where_gradients_are_differentiated(
    small, model, settings
):
    _, made, stage = next(iter(stages(model, small, *settings)))
    with pytest.raises(UserError, match=r"has batch norm.*use critic_norm=layer"):
        stage.trainer(made.networks)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("loss=wasserstein", "compile=true"), "loss=wasserstein.*compiled.*use compile=false"),
        (("loss=relativistic", "compile=true"), "loss=relativistic.*use compile=false"),
        (("unroll=3", "compile=true"), "unroll=3 differentiates twice.*use compile=false"),
        (("unroll=3", "precision=fp16"), "unroll=3.*use precision=bf16"),
        (("unroll=3", "loss=wasserstein"), "unroll.*use critic_steps instead"),
        (("augment_images=ada", "loss=wasserstein"), "ada.*use augment_images=diffaugment"),
        (("augment_images=diffaugment", "diffaugment=[]"), "no part"),
        (("pack=3", "batch_size=4"), "pack=3.*4 images.*another batch_size"),
        (("pack=4", "batch_size=4"), "pack=4.*two packs at least"),
    ],
)
def test_wrong_pairs_of_settings_are_refused_in_one_line(small, settings, message):
    with pytest.raises(UserError, match=message) as refused:
        resolve_config("dfgan", sets=small("dfgan", *settings))
    assert "\n" not in str(refused.value)
