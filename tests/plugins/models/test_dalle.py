"""DALL-E: its losses, guidance, its text tokens, and the import of minDALL-E."""

import json

import pytest
import torch
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.core.runs.configure import resolve_config
from t2i.plugins.common.tokens.dvae_weights import dvae_of
from t2i.plugins.common.tokens.sampling import Branches
from t2i.plugins.common.tokens.tokenizer import ImageTokenizer, tokenizer_of
from t2i.plugins.common.tokens.tokenizer_config import TokenizerConfig
from t2i.plugins.encoders.bpe.config import PAD, BPEConfig
from t2i.plugins.encoders.bpe.encoder import BPEEncoder, fit
from t2i.plugins.models.dalle.config import DalleConfig
from t2i.plugins.models.dalle.networks import build
from t2i.plugins.models.dalle.training import text_error
from t2i.plugins.models.dalle.weights import load

SMALL = {
    "image_size": 16, "text_length": 5, "text_vocabulary": 12,
    "transformer": {"width": 16, "layers": 2, "heads": 2},
    "tokenizer": {
        "kind": "dvae", "vocabulary": 9, "code_width": 8,
        "dvae": {"channels": 8, "groups": 3, "blocks": 1}, "quantizer": {"kind": "gumbel"},
        "losses": {"reconstruction": "logit_laplace"},
    },
}  # fmt: skip


def text(n=2):
    tokens = torch.randint(12, (n, 5), generator=torch.Generator().manual_seed(2))
    mask = torch.arange(5) < torch.tensor([[5], [2]])[:n]
    return TextFeatures(torch.zeros(n, 1), torch.zeros(n, 5, 1), mask, extras={"tokens": tokens})


def test_dropped_captions_are_no_text_to_learn():
    logits, tokens = torch.randn(3, 4, 6), torch.randint(6, (3, 4))
    each = torch.stack([F.cross_entropy(logits[i], tokens[i]) for i in range(3)])
    kept = torch.tensor([True, False, True])
    torch.testing.assert_close(text_error(logits, tokens, kept), (each[0] + each[2]) / 2)
    torch.testing.assert_close(text_error(logits, tokens, None), each.mean())
    assert float(text_error(logits, tokens, torch.zeros(3).bool())) == 0


def test_guidance_1_is_no_guidance():
    generator = build(DalleConfig.of(SMALL, "test"), TextShape(1, 1))
    given, null = generator.condition(text()), generator.condition(text()[[1, 0]])
    alone, _ = generator.begin(given)
    both, _ = generator.begin(TextFeatures.cat([null, given]))
    torch.testing.assert_close(Branches(given, 1.0).guided(alone), alone, rtol=0, atol=0)
    torch.testing.assert_close(both.chunk(2)[1], alone, rtol=0, atol=1e-5)


def test_learned_padding_and_wrong_encoders():
    network = build(DalleConfig.of(SMALL, "test"), TextShape(1, 1)).network
    read = network.text_tokens(text())
    assert read[1].tolist() == [*text().extras["tokens"][1, :2].tolist(), 14, 15, 16]
    with pytest.raises(UserError, match=r"no tokens.*--encoder bpe"):
        network.condition(TextFeatures.of(words=torch.zeros(1, 5, 1)))
    longer = TextFeatures.of(words=torch.zeros(1, 4, 1))
    longer = TextFeatures(longer.sentence, longer.words, longer.mask, (), {"tokens": longer.mask})
    with pytest.raises(UserError, match=r"encoder\.length=5"):
        network.condition(longer)
    larger = text()
    larger.extras["tokens"][0, 0] = 12  # as large as the first token of padding
    with pytest.raises(UserError, match=r"more than the 12 tokens.*encoder\.vocabulary_size"):
        network.condition(larger)


def test_bpe_makes_a_vocabulary_and_pads():
    captions = ["A red circle.", "a red square", "a blue circle"]
    config = fit(BPEConfig(length=8, vocabulary_size=60), captions * 3)
    assert config == fit(BPEConfig(length=8, vocabulary_size=60), captions * 3)
    encoder = BPEEncoder(config)
    features = encoder.encode(["a RED circle", "", "a red circle " * 9])
    tokens, mask = features.extras["tokens"], features.mask
    assert tokens.shape == (3, 8)
    assert mask.sum(1).tolist() == [3, 1, 8]  # of no caption a token of padding counts
    assert [config.vocabulary[i] for i in tokens[0, :4]] == ["a</w>", "red</w>", "circle</w>", PAD]
    assert encoder.reading("a red ж").unknown


def _openai(channels=8, width=8, K=9, groups=4, blocks=2):
    """Random weights by openai's names, and what its networks compute with them."""
    g = torch.Generator().manual_seed(4)
    state = {}

    def conv(name, before, after, kernel):
        state[f"{name}.w"] = torch.randn(after, before, kernel, kernel, generator=g) * 0.4
        state[f"{name}.b"] = torch.randn(after, generator=g) * 0.4

    for part, kernels in (("encoder", (3, 3, 3, 1)), ("decoder", (1, 3, 3, 3))):
        up = part == "decoder"
        conv(f"{part}.blocks.input", K if up else 3, width if up else channels, 1 if up else 7)
        last = width if up else channels
        for group in range(groups):
            after = channels << (groups - 1 - group if up else group)
            for i in range(blocks):
                name = f"{part}.blocks.group_{group + 1}.block_{i + 1}"
                if last != after:
                    conv(f"{name}.id_path", last, after, 1)
                widths = (last, after // 4, after // 4, after // 4, after)
                for n, kernel in enumerate(kernels):
                    conv(f"{name}.res_path.conv_{n + 1}", widths[n], widths[n + 1], kernel)
                last = after
        conv(f"{part}.blocks.output.conv", last, 6 if up else K, 1)
    return state


def _run(state, part, x, groups=4, blocks=2):
    def conv(name, x):
        return F.conv2d(x, w := state[f"{name}.w"], state[f"{name}.b"], padding=w.shape[2] // 2)

    x = conv(f"{part}.blocks.input", x)
    for group in range(groups):
        for i in range(blocks):
            name, h = f"{part}.blocks.group_{group + 1}.block_{i + 1}", x
            for n in range(4):
                h = conv(f"{name}.res_path.conv_{n + 1}", h.relu())
            wider = f"{name}.id_path.w" in state
            x = (conv(f"{name}.id_path", x) if wider else x) + h / (groups * blocks) ** 2
        if group < groups - 1:
            x = F.max_pool2d(x, 2) if part == "encoder" else x.repeat_interleave(2, 2)
            x = x if part == "encoder" else x.repeat_interleave(2, 3)
    return conv(f"{part}.blocks.output.conv", x.relu())


def test_openais_dvae_weight_for_weight(tmp_path):
    state = {name: tensor.double() for name, tensor in _openai().items()}
    config, ours = dvae_of(state, "test")
    tokenizer = ImageTokenizer(config, 16).double()
    tokenizer.load_state_dict(ours)
    images = torch.rand(2, 3, 16, 16).double() * 2 - 1
    logits = _run(state, "encoder", 0.8 * (images + 1) / 2 + 0.1)
    tokens = tokenizer.encode(images)
    assert torch.equal(tokens, logits.argmax(1).flatten(1))
    one_hot = F.one_hot(tokens, 9).view(2, 2, 2, 9).movedim(-1, 1).double()
    raw = _run(state, "decoder", one_hot)
    torch.testing.assert_close(tokenizer.decoded(tokenizer.vectors(tokens)), raw)
    shown = ((raw[:, :3].sigmoid() - 0.1) / 0.8).clamp(0, 1) * 2 - 1
    torch.testing.assert_close(tokenizer.decode(tokens), shown)
    torch.save({k: t.float() for k, t in state.items()}, tmp_path / "dvae.pth")
    found = tokenizer_of(TokenizerConfig(weights=str(tmp_path / "dvae.pth")), 16)
    torch.testing.assert_close(found.decode(tokens), shown.float())


def test_openais_pickles_are_refused_with_the_command_that_converts_them(tmp_path):
    (tmp_path / "encoder.pkl").write_bytes(b"\x80\x02.")
    config = resolve_config("dalle", preset="mindalle", data_needed=False)
    for run in (
        lambda: load(config, [tmp_path / "encoder.pkl"]),
        lambda: tokenizer_of(TokenizerConfig(weights=str(tmp_path / "encoder.pkl")), 16),
    ):
        with pytest.raises(UserError, match=r"dall_e.*torch\.load.*dvae\.pth"):
            run()


def test_mindalle_needs_its_four_files(tmp_path):
    (tmp_path / "v.json").write_text(json.dumps({"a": 0}))
    with pytest.raises(UserError, match="four files"):
        load(resolve_config("dalle", preset="mindalle", data_needed=False), [tmp_path / "v.json"])
