"""The family `discrete-diffusion`, proven by a small network over 16 tokens that are bright or dark
in each channel."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from t2i.core.engine import train
from t2i.core.engine.reporting import Silent
from t2i.core.families.discrete import DiscreteDiffusionGenerator
from t2i.core.families.token_schedule import DiscreteTokenSchedule, MaskingSchedule
from t2i.core.interfaces.trainer import Stage, Trainer
from t2i.core.models.building import build
from t2i.core.models.loading import load
from t2i.core.runs.configure import resolve_config
from t2i.core.settings import ModelConfig, Preset

K, GRID = 8, 4


class Config(ModelConfig):
    width: int = 32
    lr: float = 3e-3
    chain: str = "steps"

    @classmethod
    def presets(cls):
        small = {
            "steps": 150,
            "batch_size": 8,
            "image_size": 8,
            "sample_every": 1000,
            "ema_decay": 0.0,
        }
        parts = {"data": ("toydata", {}), "encoder": ("toytext", {})}
        return {
            "tiny": Preset(small, sampler=("discrete", {"steps": 8}), **parts),
            "masks": Preset(
                {**small, "chain": "masks"}, sampler=("maskgit", {"steps": 4}), **parts
            ),
        }


class Unmasker(DiscreteDiffusionGenerator):
    """Each token sees itself, the mean of all, the text and the time. Token b2 b1 b0 is bright
    where a bit is set."""

    def __init__(self, config, text, assets=None):
        super().__init__()
        self.image_size, self.length = config.image_size, GRID**2
        self.schedule = (
            MaskingSchedule(K) if config.chain == "masks" else DiscreteTokenSchedule.linear(K, 16)
        )
        self.last = float(self.schedule.times()[0])
        self.token, self.place = (
            nn.Embedding(K + 1, config.width),
            nn.Embedding(self.length, config.width),
        )
        self.text, self.time = nn.Linear(text.sentence, config.width), nn.Linear(1, config.width)
        self.body = nn.Sequential(
            nn.LayerNorm(config.width),
            nn.Linear(config.width, 64),
            nn.GELU(),
            nn.Linear(64, config.width),
        )
        self.head = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, K))

    def forward(self, x_t, t, text):
        h = self.token(x_t) + self.place.weight
        given = self.text(text.sentence) + self.time(t.float()[:, None] / self.last)
        h = h + h.mean(1, keepdim=True) + given[:, None]
        return self.head(h + self.body(h))

    def encode(self, images):
        bits = (F.adaptive_avg_pool2d(images, GRID).flatten(2) > 0).long()
        return (bits * torch.tensor([4, 2, 1], device=images.device)[:, None]).sum(1)

    def decode(self, tokens):
        bits = torch.stack([tokens // 4, tokens // 2, tokens], 1) % 2
        return F.interpolate((1.6 * bits - 1).unflatten(2, (GRID, GRID)), size=self.image_size)


class Reconstruction(Trainer):
    """Cross-entropy of the clean tokens, at times drawn evenly."""

    def __init__(self, config, generator, text_encoder):
        self.generator = generator
        self.modules = {"generator": generator, "text_encoder": text_encoder}
        trained = [*generator.parameters(), *text_encoder.parameters()]
        self.optimizers = {"generator": torch.optim.Adam(trained, config.lr)}

    def step(self, batch, engine):
        schedule = self.generator.schedule
        x_0, t = self.generator.encode(batch.images), schedule.random_times(batch.noise)
        text = self.generator.condition(batch.text)
        logits = self.generator(schedule.add_noise(x_0, t, batch.noise), t, text)
        loss = F.cross_entropy(logits.flatten(0, 1), x_0.flatten())
        engine.update("generator", loss)
        return {"x_0": loss}


def stages(config, text_encoder):
    return [Stage("denoiser", 1.0, lambda n: Reconstruction(config, n.generator, n.text_encoder))]


@pytest.fixture
def unmasker(registered):
    registered("unmasker", "discrete-diffusion", Config, Unmasker, stages)


def test_the_vocabulary_is_the_schedules(unmasker):
    assert build(resolve_config("unmasker")).generator.vocabulary == K


@pytest.mark.parametrize("preset", ["tiny", "masks"])
def test_it_trains_and_draws_what_the_captions_say(unmasker, tmp_path, preset):
    run = train(resolve_config("unmasker", preset=preset), tmp_path / "run", reporter=Silent())
    model = load(run.path, "cpu")
    captions = ["a red image", "a green image", "a blue image"]
    for name in ("discrete", "maskgit") if preset == "masks" else ("discrete",):
        images = [
            drawn
            for batch in model.stream(captions, n=4, sampler=model.sampler(name))
            for drawn in batch
        ]
        right = [int(drawn.image.mean((0, 1)).argmax()) == drawn.prompt for drawn in images]
        assert sum(right) >= 10, (name, right)


def test_it_keeps_its_promises(unmasker, outcomes):
    found = outcomes("unmasker")
    assert {name: told for name, told in found.items() if told[0] == "FAILED"} == {}
    assert found["models batch-size"][0] == found["models samplers"][0] == "ok"
    assert outcomes("discrete-diffusion")["families samplers"][0] == "ok"
    for name in ("discrete", "maskgit"):
        sampler = outcomes(name)
        assert {check: told for check, told in sampler.items() if told[0] == "FAILED"} == {}
    assert sampler["samplers batch-size"] == ("ok", "")  # vqdiffusion's chain in `tiny` only masks
