"""The family `autoregressive`, proven by a small transformer over 16 tokens of a fixed palette."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from t2i.core.engine import train
from t2i.core.engine.reporting import Silent
from t2i.core.families.autoregressive import AutoregressiveGenerator
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.core.interfaces.trainer import Stage, Trainer
from t2i.core.models.building import build
from t2i.core.models.loading import load
from t2i.core.runs.configure import resolve_config
from t2i.core.settings import ModelConfig, Preset

PALETTE = torch.cartesian_prod(*[torch.tensor([-1.0, 0.6])] * 3)
"""The codebook: eight colours (8, 3)."""

GRID = 4


class Config(ModelConfig):
    width: int = 32
    layers: int = 2
    heads: int = 2
    lr: float = 3e-3

    @classmethod
    def presets(cls):
        small = {
            "steps": 120,
            "batch_size": 8,
            "image_size": 8,
            "sample_every": 1000,
            "ema_decay": 0.0,
        }
        return {"tiny": Preset(small, data=("toydata", {}), encoder=("toytext", {}))}


class Block(nn.Module):
    """Causal self-attention and an MLP; `past` holds keys and values of the positions before."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.positions = heads, []
        self.norm, self.qkv, self.out = (
            nn.LayerNorm(width),
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
        )
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )

    def forward(self, x, past=None):
        self.positions.append(x.shape[1])
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(self.norm(x)).chunk(3, -1)
        )
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=past is None)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.mlp(x), (k, v)


class Painter(AutoregressiveGenerator):
    """The text is the first position; token i is the position after it."""

    def __init__(self, config, text, assets=None):
        super().__init__()
        self.image_size, self.length, self.vocabulary = config.image_size, GRID**2, len(PALETTE)
        self.prefix = nn.Linear(text.sentence, config.width)
        self.token = nn.Embedding(self.vocabulary, config.width)
        self.place = nn.Embedding(self.length, config.width)
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.layers))
        self.head = nn.Sequential(
            nn.LayerNorm(config.width), nn.Linear(config.width, self.vocabulary)
        )
        self.register_buffer("palette", PALETTE.clone())

    def condition(self, text):
        return TextFeatures(
            text.sentence,
            text.words,
            text.mask,
            text.captions,
            {"prefix": self.prefix(text.sentence)},
        )

    def begin(self, text):
        return self._step(text.extras["prefix"], 0, [None] * len(self.blocks))

    def next(self, tokens, state):
        at, past = state
        return self._step(self.token(tokens), at, past)

    def _step(self, x, at, past):
        x, kept = (x + self.place.weight[at])[:, None], []
        for block, before in zip(self.blocks, past, strict=True):
            x, after = block(x, before)
            kept.append(after)
        return self.head(x[:, 0]), (at + 1, kept)

    def forward(self, tokens, text):
        x = (
            torch.cat([text.extras["prefix"][:, None], self.token(tokens[:, :-1])], 1)
            + self.place.weight
        )
        for block in self.blocks:
            x, _ = block(x)
        return self.head(x)

    def encode(self, images):
        patches = F.adaptive_avg_pool2d(images, GRID).flatten(2).transpose(1, 2)
        return torch.cdist(patches, self.palette).argmin(-1)

    def decode(self, tokens):
        patches = self.palette[tokens].transpose(1, 2).unflatten(2, (GRID, GRID))
        return F.interpolate(patches, size=self.image_size)


class Likelihood(Trainer):
    """Cross-entropy of each token given those before it; one caption in ten is dropped, for
    guidance."""

    def __init__(self, config, generator, text_encoder):
        self.generator = generator
        self.modules = {"generator": generator, "text_encoder": text_encoder}
        trained = [*generator.parameters(), *text_encoder.parameters()]
        self.optimizers = {"generator": torch.optim.Adam(trained, config.lr)}

    def step(self, batch, engine):
        keep = batch.noise.uniform("drop", 0, ()) >= 0.1
        text = self.generator.condition(batch.text.where(keep, batch.null()))
        tokens = self.generator.encode(batch.images)
        loss = F.cross_entropy(self.generator(tokens, text).flatten(0, 1), tokens.flatten())
        engine.update("generator", loss)
        return {"nll": loss}


def stages(config, text_encoder):
    return [Stage("transformer", 1.0, lambda n: Likelihood(config, n.generator, n.text_encoder))]


@pytest.fixture
def painter(registered):
    registered("painter", "autoregressive", Config, Painter, stages)


def fresh(**settings):
    torch.manual_seed(0)
    return Painter(Config(image_size=8, **settings), TextShape(5, 5)).eval()


def conditioned(model, rows):
    sentence = torch.randn(rows, 5, generator=torch.Generator().manual_seed(1))
    return model.condition(TextFeatures.of(sentence=sentence))


@torch.no_grad()
def test_the_cached_chain_gives_the_logits_of_the_whole_sequence():
    model = fresh()
    tokens = torch.randint(0, 8, (3, 16), generator=torch.Generator().manual_seed(2))
    whole = model(tokens, conditioned(model, 3))
    logits, state = model.begin(conditioned(model, 3))
    for position in range(16):
        torch.testing.assert_close(logits, whole[:, position], rtol=1e-4, atol=1e-5)
        if position < 15:
            logits, state = model.next(tokens[:, position], state)


@torch.no_grad()
def test_a_drawn_image_costs_one_position_a_token(painter):
    model = build(resolve_config("painter"))
    list(model.stream(["a red image"], n=2))
    for block in model.generator.blocks:
        assert block.positions == [1] * 16


@torch.no_grad()
def test_the_text_is_conditioned_once_a_request_and_branch(painter):
    model = build(resolve_config("painter"))
    rows = []
    plain = model.generator.condition
    model.generator.condition = lambda text: rows.append(len(text)) or plain(text)
    list(model.stream(["a red image", "a green image"], n=2))
    assert rows == [4]
    list(model.stream(["a red image"], n=2, sampler=model.sampler(guidance=2.0)))
    assert rows == [4, 2, 2]


def test_it_trains_and_draws_what_the_captions_say(painter, tmp_path):
    run = train(resolve_config("painter"), tmp_path / "run", reporter=Silent())
    model = load(run.path, "cpu")
    assert model.sampler().name == "autoregressive"
    settings = model.sampler(guidance=2.0, settings={"top_p": 0.95})
    captions = ["a red image", "a green image", "a blue image"]
    images = [drawn for batch in model.stream(captions, n=4, sampler=settings) for drawn in batch]
    right = [int(drawn.image.mean((0, 1)).argmax()) == drawn.prompt for drawn in images]
    assert sum(right) >= 10, right


@pytest.mark.slow
def test_it_keeps_its_promises(painter, outcomes):
    found = outcomes("painter")
    assert {name: told for name, told in found.items() if told[0] == "FAILED"} == {}
    assert (
        found["models batch-size"][0]
        == found["models resumes"][0]
        == found["models builds"][0]
        == "ok"
    )
    sampler = outcomes("autoregressive")
    assert {name: told for name, told in sampler.items() if told[0] == "FAILED"} == {}
    assert (
        sampler["samplers batch-size"][0]
        == sampler["families class"][0]
        == sampler["families samplers"][0]
        == "ok"
    )
