"""DDPM on pixels: the paper's network, and that it learns what a caption says."""

import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.interfaces.noise import PromptNoise, StepNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.core.interfaces.trainer import Batch, Networks
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from t2i.plugins.models.ddpm.config import PAPER, DDPMConfig
from t2i.plugins.models.ddpm.networks import DDPMGenerator
from t2i.plugins.models.ddpm.training import stages
from tests.plugins.models.stand_ins import Colours, Engine

SMALL = {
    "image_size": 8, "patch": 2, "lr": 5e-3, "lr_text": 5e-3, "schedule": "cosine",
    "prediction": "v", "error": "x_0",
    "caption_dropout": 0.1,
    "unet": {
        "channels": (16, 16), "layers": 1, "attention": ("none", "none"), "middle": "self",
        "head_width": 8,
        "groups": 4, "sentence": True, "text_map": 4,
    },
}  # fmt: skip


def test_the_papers_network_has_the_papers_size():
    with torch.device("meta"):
        generator = DDPMGenerator(DDPMConfig(unet=PAPER), TextShape(1, 1))
    assert (
        sum(p.numel() for p in generator.parameters()) == 35_746_307
    )  # "35.7 million", appendix B


@pytest.mark.parametrize(("model", "sampler"), [("ddpm", "ddpm"), ("ddim", "ddim")])
@pytest.mark.parametrize("preset", ["tiny", "cifar"])
def test_presets_are_whole(model, sampler, preset):
    run = resolve_config(model, preset=preset)
    assert run.sampler.name == sampler
    with torch.device("meta"):
        made = import_object(registry().models[model].generator)(
            run.settings, TextShape(128, 128), None
        )
        x = torch.zeros(2, *made.noise_shape)
        text = made.condition(TextFeatures.of(sentence=torch.zeros(2, 128)))
        assert made(x, torch.tensor([0, 999]), text).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("model", ["ddpm", "ddim"])
def test_coco64_attends_to_the_words(model):
    run = resolve_config(model, preset="coco64", data_needed=False)
    assert (run.data.name, run.encoder.name) == ("coco", "clip")
    with torch.device("meta"):
        made = DDPMGenerator(run.settings, TextShape(512, 512))
        text = made.condition(TextFeatures.of(words=torch.zeros(2, 77, 512)))
        assert made(torch.zeros(2, 3, 64, 64), torch.tensor([0, 999]), text).shape == (2, 3, 64, 64)
    assert sum(p.numel() for p in made.parameters()) == 178_441_219


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="image_size"):
        DDPMConfig.of({**SMALL, "image_size": 10}, "test")


def overfit(steps=150, **settings):
    """A network that knows two colours by their names, the encoder that was trained with it, and
    the losses."""
    torch.manual_seed(0)
    config, encoder = DDPMConfig.of({**SMALL, **settings}, "test"), Colours()
    generator = DDPMGenerator(config, encoder.shape)
    (stage,) = stages(config, encoder)
    trainer = stage.trainer(Networks(generator, encoder))
    engine = Engine(trainer)
    colours = (
        torch.tensor([[1.0, -1, -1], [-1, -1, 1.0]])
        .repeat(8, 1)[:, :, None, None]
        .expand(16, 3, 8, 8)
    )
    captions = ("red", "blue") * 8
    for i in range(steps):
        trainer.step(
            Batch(
                colours.contiguous(), captions, captions, StepNoise(0, i, 0, 16, 16), encoder.encode
            ),
            engine,
        )
    return generator.eval(), encoder, engine.losses


@pytest.fixture(scope="module")
def overfitted():
    generator, encoder, losses = overfit()
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])  # without a caption nobody can know
    return generator, encoder


def drawn_colours(generator, encoder, sampler, asked):
    made = registry().samplers.build(
        registry().samplers.choose(sampler, {"steps": 20, "guidance": 1.5})
    )
    with torch.no_grad():
        noise = PromptNoise(0, tuple((i, 0) for i in range(len(asked))))
        text, null = (
            generator.condition(encoder.encode(asked)),
            generator.condition(encoder.null(len(asked))),
        )
        drawn = made.sample(generator, Request(text=text, noise=noise, null=null)).mean((2, 3))
    return [("red", "blue")[int(image[2] > image[0])] for image in drawn]


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp-2m"])
def test_it_overfits_two_captions_and_draws_them(overfitted, sampler):
    asked = ["red", "blue", "red", "blue"]
    assert drawn_colours(*overfitted, sampler, asked) == asked


@pytest.mark.parametrize("prediction", ["v", pytest.param("velocity", marks=pytest.mark.slow)])
def test_it_learns_with_predictions_of_the_straight_path(prediction):
    generator, encoder, losses = overfit(
        steps=100, schedule="mixing", prediction=prediction, error="prediction"
    )
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])
    asked = ["red", "blue", "red", "blue"]
    assert drawn_colours(generator, encoder, "ddim", asked) == asked


@pytest.mark.parametrize("schedule", ["mixing", "linear"])
def test_it_learns_a_score(schedule):
    """More slowly: the network has to grow with 1 / sigma by itself."""
    _, _, losses = overfit(steps=60, schedule=schedule, prediction="score", error="prediction")
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
