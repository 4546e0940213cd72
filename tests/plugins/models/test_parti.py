"""Parti: cached steps are the whole pass; the conv-shaped mask; the loss; optimizers."""

import json
import math

import pytest
import torch
from torch.nn import functional as F

from t2i.core.engine.checkpoint import _joined, _split
from t2i.core.errors import UserError
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures
from t2i.plugins.common.causal.generator import cross_entropy, decayed
from t2i.plugins.common.tokens.config import TokenSamplerConfig
from t2i.plugins.models.parti.config import PartiConfig
from t2i.plugins.models.parti.networks import PartiGenerator, conv_mask, first_visible
from t2i.plugins.models.parti.training import falling, optimizer_of
from t2i.plugins.samplers.autoregressive.sampler import AutoregressiveSampler
from tests.plugins.models.flow_checks import TEXT, captions

VIT = {"layers": 1, "width": 8, "heads": 2, "head_width": 4, "hidden": 8}
SMALL = {
    "image_size": 16, "encoder_layers": 2, "decoder_layers": 2, "width": 8, "hidden": 12,
    "heads": 2, "dropout": 0.0,
    "tokenizer": {
        "kind": "vit", "vocabulary": 7, "code_width": 4,
        "vit": {"patch": 4, "encoder": VIT, "decoder": VIT}, "quantizer": {"normalised": True},
    },
}  # fmt: skip
MAPPED = {"text_map": 4, "map_hops": 1, "map_heads": 1, "outline": 0.5}
KINDS = {
    "paper": {},
    "conv": {"kernel": 3},
    "ours": {"qk_norm": True, "text": MAPPED},
    "no encoder": {"encoder_layers": 0, "max_words": 3},
}


def made(kind="paper", **more):
    """Build a generator with all weights drawn at random, in float64."""
    torch.manual_seed(0)
    generator = PartiGenerator(PartiConfig.of({**SMALL, **KINDS[kind], **more}, "test"), TEXT)
    generator = generator.double().eval()
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return generator


def drawn_tokens(n=3, seed=5):
    return torch.randint(0, 7, (n, 16), generator=torch.Generator().manual_seed(seed))


def steps(generator, tokens, text):
    """Return the logits of all tokens, one cached step after the other."""
    logits, state = generator.begin(text)
    found = [logits]
    for i in range(generator.length - 1):
        logits, state = generator.next(tokens[:, i], state)
        found.append(logits)
    return torch.stack(found, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_cached_steps_equal_the_whole_pass(kind):
    generator, tokens = made(kind), drawn_tokens()
    with torch.no_grad():
        text = generator.condition(captions(3))
        whole, cached = generator(tokens, text), steps(generator, tokens, text)
        torch.testing.assert_close(cached, whole, rtol=1e-9, atol=1e-9)
        alone = steps(generator, tokens[1:2], generator.condition(captions(3)[1:2]))
    torch.testing.assert_close(alone, whole[1:2], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_log_likelihood_is_the_sum_of_the_conditionals(kind):
    """Over all ways to continue, probabilities add up to 1; the loss is their mean."""
    generator, tokens = made(kind), drawn_tokens()
    with torch.no_grad():
        text = generator.condition(captions(3))
        cached = steps(generator, tokens, text).log_softmax(-1)
        conditionals = cached.gather(2, tokens[..., None])[..., 0]
        loss = cross_entropy(generator(tokens, text), tokens)
        torch.testing.assert_close(loss.double(), -conditionals.mean(), rtol=1e-6, atol=1e-6)
        # p(last two tokens | the rest), summed over all 49 pairs.
        pairs = torch.cartesian_prod(torch.arange(7), torch.arange(7))
        every = tokens[:1].repeat(49, 1)
        every[:, -2:] = pairs
        logits = generator(every, text[[0] * 49]).log_softmax(-1)
        last = logits.gather(2, every[..., None])[:, -2:, 0].sum(1)
    torch.testing.assert_close(last.exp().sum(), torch.tensor(1.0).double())


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_does_not_depend_on_itself_or_later_ones(kind):
    generator, tokens = made(kind), drawn_tokens(1)
    text = generator.condition(captions(1))
    with torch.no_grad():
        before = generator(tokens, text)
        for i in range(16):
            changed = tokens.clone()
            changed[:, i] = (tokens[:, i] + 1) % 7
            moved = (generator(changed, text) - before).abs().amax(-1)[0] > 1e-9
            assert not bool(moved[: i + 1].any())
            if i < 15:
                assert bool(moved[i + 1])


@pytest.mark.parametrize("side", [3, 4, 6])
@pytest.mark.parametrize("reach", [1, 2])
def test_the_conv_shaped_mask_by_brute_force(side, reach):
    mask = conv_mask(side, reach)
    for i in range(side**2):
        row, column = divmod(i, side)
        seen = {i}  # itself: the token right before, or the start
        for r in range(row - reach, row + 1):
            for c in range(column - reach, column + reach + 1):
                token = r * side + c
                if r >= 0 and 0 <= c < side and token < i:
                    seen.add(token + 1)  # the input that holds it
        assert set(mask[i].nonzero()[:, 0].tolist()) == seen
        assert first_visible(i, side, reach) == min(seen)


def test_one_sparse_layer_reads_the_square_around_a_token_only():
    generator, tokens = made("conv", decoder_layers=1), drawn_tokens(1)
    text = generator.condition(captions(1))
    with torch.no_grad():
        before = generator(tokens, text)
        reads = torch.zeros(16, 16, dtype=torch.bool)
        for j in range(16):
            changed = tokens.clone()
            changed[:, j] = (tokens[:, j] + 3) % 7
            reads[:, j] = (generator(changed, text) - before).abs().amax(-1)[0] > 1e-12
    for i in range(16):
        row, column = divmod(i, 4)
        near = {
            r * 4 + c
            for r in (row - 1, row)
            for c in (column - 1, column, column + 1)
            if r >= 0 and 0 <= c < 4 and r * 4 + c < i
        }
        assert set(reads[i].nonzero()[:, 0].tolist()) == near | ({i - 1} if i else set())


@pytest.mark.parametrize("kind", KINDS)
def test_every_word_that_counts_reaches_the_tokens_and_padding_does_not(kind):
    generator, tokens = made(kind), drawn_tokens(2)
    text = captions(2)
    with torch.no_grad():
        before = generator(tokens, generator.condition(text))
        for word in range(text.words.shape[1]):
            words = text.words.clone()
            words[:, word] += 1
            other = TextFeatures(text.sentence, words, text.mask)
            after = generator(tokens, generator.condition(other))
            counts = text.mask[:, word].clone()
            if kind == "no encoder":  # its captions end after three words
                counts &= word < 3
            moved = (after - before).abs().amax((1, 2)) > 1e-9
            assert moved.tolist() == counts.tolist()


def test_a_longer_caption_beside_it_changes_nothing():
    generator, tokens = made(), drawn_tokens(2)
    short = captions(2)
    with torch.no_grad():
        before = generator(tokens, generator.condition(short))
        after = generator(tokens, generator.condition(short.padded(9)))
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)


def test_a_decoder_block_is_the_papers_written_out():
    generator = made(decoder_layers=1, encoder_layers=0)
    network = generator.network
    tokens, text = drawn_tokens(2), captions(2)
    d = 4

    def norm(x, layer):
        return F.layer_norm(x, (8,), layer.weight, layer.bias)

    def attend(attention, x, y, allowed):
        q = x @ attention.q.weight.T
        k, v = (y @ attention.kv.weight.T).chunk(2, -1)
        heads = []
        for n in range(2):
            own = slice(n * d, n * d + d)
            scores = q[..., own] @ k[..., own].transpose(1, 2) / math.sqrt(d)
            heads.append(scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ v[..., own])
        return torch.cat(heads, -1) @ attention.out.weight.T

    words = norm(
        text.words @ network.words_in.weight.T + network.word_positions[:4], network.encoder_norm
    )
    x = torch.zeros(2, 16, 8).double()
    for i in range(16):
        x[:, i] = network.start if i == 0 else network.tokens.weight[tokens[:, i - 1]]
        x[:, i] += network.rows[i // 4] + network.columns[i % 4]
    block = network.decoder[0]
    h = norm(x, block.norm_1)
    x = x + attend(block.attention, h, h, torch.ones(16, 16).tril().bool())
    x = x + attend(block.cross, norm(x, block.norm_cross), words, text.mask[:, None])
    h = F.gelu(norm(x, block.norm_2) @ block.mlp[0].weight.T)
    x = x + h @ block.mlp[2].weight.T
    expected = norm(x, network.decoder_norm) @ network.head.weight.T
    found = generator(tokens, generator.condition(text))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def drawn_images(generator, guidance, null, length=None):
    text = generator.condition(captions(2))
    sampler = AutoregressiveSampler(TokenSamplerConfig(guidance=guidance))
    noise = PromptNoise(0, ((0, 0), (1, 0)))
    with torch.no_grad():
        return sampler.sample(generator, Request(text=text, null=null, noise=noise))


def test_guidance_of_1_is_no_guidance():
    generator = made()
    null = generator.condition(captions(2, seed=8).padded(6))
    plain = drawn_images(generator, 1.0, None)
    assert torch.equal(drawn_images(generator, 1.0, null), plain)
    assert not torch.equal(drawn_images(generator, 6.0, null), plain)


def test_weights_of_linear_layers_decay_and_nothing_else_does():
    network = made("ours").network
    decaying, rest = decayed(network, 0.1)
    assert decaying["weight_decay"] == 0.1
    assert rest["weight_decay"] == 0
    names = {id(p): n for n, p in network.named_parameters()}
    assert len(decaying["params"]) + len(rest["params"]) == len(names)
    kept = {names[id(p)] for p in rest["params"]}
    assert {"tokens.weight", "rows", "columns", "start", "decoder_norm.weight"} <= kept
    assert {"head.weight", "words_in.weight"} <= {names[id(p)] for p in decaying["params"]}


def test_adafactor_moves_as_its_paper_says():
    """Factored second moments, updates of root mean square 1 at most, mean of gradients."""
    weight = torch.nn.Parameter(torch.randn(3, 4))
    start, lr, decay = weight.detach().clone().double(), 0.1, 0.05
    config = PartiConfig(lr=lr)
    optimizer = optimizer_of(config, [{"params": [weight], "weight_decay": decay}])
    x, rows, columns, mean = start, 0, 0, 0
    for t in (1, 2, 3):
        gradient = torch.randn(3, 4)
        weight.grad = gradient.clone()
        optimizer.step()
        g, beta_2 = gradient.double(), 1 - t**-0.8
        rows = beta_2 * rows + (1 - beta_2) * (g.square() + 1e-30).mean(1)
        columns = beta_2 * columns + (1 - beta_2) * (g.square() + 1e-30).mean(0)
        update = g / (rows[:, None] * columns / rows.mean()).sqrt()
        update = update / max(1.0, float(update.square().mean().sqrt())) * lr
        mean = 0.9 * mean + 0.1 * update
        x = x - decay * lr * x - mean
        torch.testing.assert_close(weight.detach().double(), x, rtol=1e-5, atol=1e-6)


def test_the_learning_rate_falls_exponentially_from_85_of_450_thousand_steps_on():
    start = PartiConfig.presets()["20b"].settings
    config = PartiConfig.of(start, "test")
    at = [falling(k / 450, config.lr_decay_start, config.lr_decay_ratio) for k in (0, 85, 450)]
    assert at == pytest.approx([1, 1, 0.025])
    halfway = falling((85 + 365 / 2) / 450, config.lr_decay_start, config.lr_decay_ratio)
    assert halfway == pytest.approx(0.025**0.5)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kernel": 4}, "odd number"),
        ({"width": 10, "heads": 4}, "multiple of heads"),
        ({"image_size": 30}, "multiple of"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(settings, says):
    with pytest.raises(UserError, match=says):
        PartiConfig.of({**SMALL, **settings}, "parti")


@pytest.mark.parametrize(
    ("preset", "millions"), [("350m", 352), ("750m", 755), ("3b", 3020), ("20b", 20400)]
)
def test_the_papers_sizes_have_the_papers_numbers_of_parameters(preset, millions):
    """Blocks alone, without embeddings: 12 layers of 1024 are 350 million and so on."""
    config = PartiConfig.of(PartiConfig.presets()[preset].settings, "test")
    width, hidden = config.width, config.hidden
    encoder = config.encoder_layers * (4 * width**2 + 2 * width * hidden)
    decoder = config.decoder_layers * (8 * width**2 + 2 * width * hidden)
    assert (encoder + decoder) / 1e6 == pytest.approx(millions, rel=0.01)


def test_adafactor_goes_on_from_a_checkpoint_to_the_bit():
    gradients = torch.randn(4, 3, 4)

    def moved(optimizer, weight, part):
        for gradient in part:
            weight.grad = gradient.clone()
            optimizer.step()
        return weight.detach().clone()

    def begun(start):
        weight = torch.nn.Parameter(start.clone())
        return optimizer_of(
            PartiConfig(lr=0.1), [{"params": [weight], "weight_decay": 0.1}]
        ), weight

    optimizer, weight = begun(torch.ones(3, 4))
    halfway = moved(optimizer, weight, gradients[:2])
    tensors = {}
    numbers = _split(optimizer.state_dict(), tensors, "network")
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    again, other = begun(halfway)
    again.load_state_dict(_joined(json.loads(json.dumps(numbers)), tensors, "network"))
    assert torch.equal(moved(again, other, gradients[2:]), moved(optimizer, weight, gradients[2:]))
