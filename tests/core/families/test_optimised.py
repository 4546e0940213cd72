"""The family `optimised`, proven by a model whose score is a known quadratic, and which has nothing
to train."""

import pytest
import torch
from torch import nn

from t2i.core.engine import train
from t2i.core.engine.reporting import Silent
from t2i.core.families.optimised import OptimisedGenerator
from t2i.core.interfaces.text import TextFeatures
from t2i.core.models.building import build
from t2i.core.models.loading import load
from t2i.core.runs.configure import resolve_config
from t2i.core.settings import ModelConfig, Preset


class Config(ModelConfig):
    @classmethod
    def presets(cls):
        sampler = ("optimise", {"steps": 20, "lr": 0.05})
        return {
            "tiny": Preset(
                {"image_size": 8}, data=("toydata", {}), encoder=("toytext", {}), sampler=sampler
            )
        }


class Climber(OptimisedGenerator):
    """The score is minus the squared distance to a colour that the text says, at pixels drawn anew
    each step."""

    def __init__(self, config, text, assets=None):
        super().__init__()
        self.image_size, self.colour = config.image_size, nn.Linear(text.sentence, 3)

    def condition(self, text):
        aim = torch.tanh(self.colour(text.sentence))
        return TextFeatures(text.sentence, text.words, text.mask, text.captions, {"aim": aim})

    def start(self, noise):
        return noise.normal("start", 0, (3, self.image_size, self.image_size))

    def score(self, latents, text, noise, step):
        seen = noise.uniform("seen", step, (1, self.image_size, self.image_size)) < 0.7
        return -((latents - text.extras["aim"][..., None, None]).square() * seen).flatten(1).sum(1)

    def constrain(self, latents):
        return latents.clamp(-1, 1)

    def decode(self, latents):
        return latents


@pytest.fixture
def climber(registered):
    registered("climber", "optimised", Config, Climber, lambda config, encoder: [])


def test_a_model_with_nothing_to_train_becomes_a_run_and_is_drawn(climber, tmp_path):
    run = train(resolve_config("climber"), tmp_path / "run", reporter=Silent())
    model = load(run.path, "cpu")
    (batch,) = model.stream(
        ["a red image"], n=3, sampler=model.sampler(steps=400, settings={"lr": 0.02})
    )
    with torch.no_grad():
        aim = model.generator.condition(model.text_encoder.encode(["a red image"])).extras["aim"][0]
    for drawn in batch:  # whatever the start
        assert abs(drawn.image / 127.5 - 1 - aim.numpy()).max() < 0.02


def test_drawing_gives_the_parameters_no_gradients(climber):
    model = build(resolve_config("climber"))
    list(model.stream(["a red image"]))
    assert all(parameter.grad is None for parameter in model.generator.parameters())


def test_it_keeps_its_promises(climber, outcomes):
    found = outcomes("climber")
    assert {name: told for name, told in found.items() if told[0] == "FAILED"} == {}
    for check in ("gradients", "learns", "resumes"):
        assert found[f"models {check}"] == ("skipped", "it has nothing to train")
    assert found["models trains"][0] == "ok"
    assert found["models batch-size"][0] == "ok"
    sampler = outcomes("optimise")
    assert {name: told for name, told in sampler.items() if told[0] == "FAILED"} == {}
    assert sampler["samplers batch-size"][0] == "ok"
