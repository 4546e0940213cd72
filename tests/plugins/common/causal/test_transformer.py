"""Causal transformers: masks by brute force, and a cache that gives the same logits."""

import pytest
import torch

from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.causal.prior import Prior
from t2i.plugins.common.causal.prior_config import PriorConfig
from t2i.plugins.common.causal.transformer import visible
from t2i.plugins.models.dalle.config import DalleConfig
from t2i.plugins.models.dalle.networks import DalleTransformer

K, SIDE, N = 11, 4, 16
SIZES = {"width": 16, "layers": 5, "heads": 2}
SPARSE = {
    **SIZES, "attention": ("row", "column", "row", "row"), "last_attention": "conv", "kernel": 3,
}  # fmt: skip
MAPPED = {"text_map": 8, "map_hops": 1, "map_queries": "sinusoids", "map_heads": 2, "outline": 0.5}
TEXT = TextShape(4, 8)


def drawn(network):
    generator = torch.Generator().manual_seed(3)
    network.double()
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.4)
    return network.requires_grad_(False)


def captions(n=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    mask = torch.arange(6) < torch.tensor([6, 2, 4])[:n, None]
    words = torch.randn(n, 6, TEXT.words, generator=g).double()
    sentence = torch.randn(n, TEXT.sentence, generator=g).double()
    tokens = torch.randint(9, (n, 6), generator=g)
    return TextFeatures(sentence, words, mask, extras={"tokens": tokens})


def prior(**more):
    config = PriorConfig.of({"transformer": SIZES, **more}, "test")
    return drawn(Prior(config, K, SIDE, TEXT))


def dalle(**more):
    settings = {"transformer": SPARSE, "text_length": 6, "text_vocabulary": 9, **more}
    return drawn(DalleTransformer(DalleConfig.of(settings, "test"), K, SIDE, TEXT))


MAKERS = {
    "prior": prior,
    "prior with a map": lambda: prior(text=MAPPED),
    "no words": lambda: prior(words=False, block=30),
    "sparse prior": lambda: prior(transformer=SPARSE),
    "dalle": dalle,
    "dalle with a map": lambda: dalle(text=MAPPED),
    "minDALL-E": lambda: dalle(padding="token", positions="learned", transformer=SIZES),
    "dalle on features": lambda: dalle(reads="features", text=MAPPED),
}


@pytest.fixture(params=MAKERS)
def network(request):
    return MAKERS[request.param]()


@pytest.fixture
def tokens():
    return torch.randint(K, (3, N), generator=torch.Generator().manual_seed(1))


def cached(network, tokens, text):
    logits, cache = network.begin(text)
    found = [logits]
    for i in range(N - 1):
        logits, cache = network.next(tokens[:, i], cache)
        found.append(logits)
    return torch.stack(found, 1)


def test_the_cache_gives_the_logits_of_the_whole_pass_whatever_the_rows(network, tokens):
    text = network.condition(captions())
    whole = network(tokens, text)
    torch.testing.assert_close(cached(network, tokens, text), whole, rtol=0, atol=1e-12)
    order = [2, 0, 1]
    shuffled = cached(network, tokens[order], text[order])
    torch.testing.assert_close(shuffled, whole[order], rtol=0, atol=1e-12)


def test_the_likelihood_is_the_sum_of_its_conditionals(network, tokens):
    text = network.condition(captions())
    log_p = network(tokens, text).log_softmax(-1).gather(-1, tokens[..., None]).sum((1, 2))
    total = torch.zeros(3).double()
    for i in range(N):  # p(x_i | x_<i), with nothing known of what follows
        known = tokens.clone()
        known[:, i:] = (known[:, i:] + 3) % K
        conditional = network(known, text)[:, i].log_softmax(-1)
        total += conditional.gather(-1, tokens[:, i : i + 1])[:, 0]
    torch.testing.assert_close(total, log_p, rtol=0, atol=1e-11)


def test_the_caption_matters_but_not_its_padding(network, tokens):
    text, other = captions(), captions(seed=7)
    one = network(tokens, network.condition(text))
    differ = bool((one != network(tokens, network.condition(other))).any())
    reads = getattr(network, "words", 0) is not None or hasattr(network, "tok_emb_txt")
    assert differ == reads
    if getattr(network, "words", None) is None:
        return
    text.words[~text.mask] = 5.0
    torch.testing.assert_close(network(tokens, network.condition(text)), one, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["full", "row", "column", "conv"])
@pytest.mark.parametrize("side", [4, 5])
def test_masks_against_brute_force(kind, side):
    prefix, kernel = 3, 3
    mask = visible(kind, side, kernel, prefix, False)
    for i in range(prefix + side**2):
        for j in range(prefix + side**2):
            seen = j <= i
            a, b = i - prefix, j - prefix
            if seen and a >= 0 and b >= 0:
                if kind == "row":  # back to the place above
                    seen = b >= a - side
                elif kind == "column":
                    seen = a % side == b % side
                elif kind == "conv":  # a square around, whose rows wrap around
                    row, around = (a - b + 1) // side, (a - b + 1) % side
                    seen = a - b <= 1 or (row <= 1 and around in (0, 1, 2))
            assert bool(mask[i, j]) == seen, (i, j)


def test_a_prefix_of_words_sees_all_of_itself():
    mask = visible("full", 2, 3, 3, True)
    assert bool(mask[:3, :3].all())
    assert not bool(mask[:3, 3:].any())


def test_the_papers_layers_have_the_papers_attention():
    config = DalleConfig.of(dict(DalleConfig.presets()["coco"].settings), "test").transformer
    for i, kind in enumerate(config.kinds, 1):
        wanted = "conv" if i == 64 else "column" if (i - 2) % 4 == 0 else "row"
        assert kind == wanted


def _attention(layer, x, mask):
    """One layer written out from minGPT's equations."""
    norm = torch.nn.functional.layer_norm
    h = norm(x, x.shape[-1:], layer.ln1.weight, layer.ln1.bias)
    a = layer.attn
    q, k, v = (h @ m.weight.T + m.bias for m in (a.query, a.key, a.value))
    heads = []
    for n in range(a.heads):
        part = slice(8 * n, 8 * n + 8)
        scores = q[..., part] @ k[..., part].mT / 8**0.5
        heads.append(scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v[..., part])
    x = x + torch.cat(heads, -1) @ a.proj.weight.T + a.proj.bias
    h = norm(x, x.shape[-1:], layer.ln2.weight, layer.ln2.bias)
    first, _, second = layer.mlp
    h = h @ first.weight.T + first.bias
    h = 0.5 * h * (1 + torch.erf(h / 2**0.5))
    return x + h @ second.weight.T + second.bias


def test_dalle_is_the_papers_written_out(tokens):
    network, text = dalle(), captions()
    ids = torch.where(text.mask, text.extras["tokens"], 9 + torch.arange(6))
    places = torch.arange(N - 1)
    image = network.tok_emb_img.weight[tokens[:, :-1]]
    image = image + network.pos_emb_row.weight[places // SIDE]
    image = image + network.pos_emb_column.weight[places % SIDE]
    x = torch.cat([network.tok_emb_txt.weight[ids] + network.pos_emb_txt.weight, image], 1)
    for kind, layer in zip(network.kinds, network.blocks, strict=True):
        x = _attention(layer, x, visible(kind, SIDE, 3, 6, False)[:-1, :-1])
    h = torch.nn.functional.layer_norm(x, (16,), network.ln_f.weight, network.ln_f.bias)
    found, text_logits = network.both(tokens, text)
    torch.testing.assert_close(found, h[:, 5:] @ network.head_img.weight.T)
    torch.testing.assert_close(text_logits, h[:, :5] @ network.head_txt.weight.T)
