"""The `bert` encoder against transformers' own output, on small random weights written in the true
format."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertModel, BertTokenizer

from t2i.core.errors import UserError
from t2i.core.models.weights import load_state, owned_tensors
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from tests.plugins.models.pipelines import random

CAPTIONS = ["a red bird", "", "Red, RED  red.", "a " * 40 + "bird"]
LENGTH = 12
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "bird", ",", ".", "x", "##x"]
SIZES = {
    "vocab_size": 16, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 20,
}  # fmt: skip


def saved(path, kind=BertModel, **sizes):
    network = random(kind(BertConfig(**{**SIZES, **sizes})), 0.3)
    network.save_pretrained(path)
    BertTokenizer(
        vocab={piece: i for i, piece in enumerate(PIECES)}, do_lower_case=True
    ).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as the hub has it for BERT."""
    torch.manual_seed(0)
    return saved(tmp_path_factory.mktemp("bert"))


def encoder(folder, assets=None, **settings):
    spec = registry().encoders["bert"]
    given = {"weights": str(folder), "length": LENGTH, **settings}
    return import_object(spec.build)(import_object(spec.config).of(given, "test"), assets)


def theirs(folder, captions):
    """transformers' own output, padded to `LENGTH` tokens."""
    tokens = BertTokenizer.from_pretrained(folder)(
        captions, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
    )
    with torch.no_grad():
        model = BertModel.from_pretrained(folder).float().eval()
        return tokens.attention_mask.bool(), model(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
        ).last_hidden_state


def close(ours, expected):
    np.testing.assert_allclose(ours.numpy(), expected.numpy(), atol=1e-5)


def test_words_are_transformers_own_and_0_at_padding(folder):
    text = encoder(folder).encode(CAPTIONS)
    mask, words = theirs(folder, CAPTIONS)
    assert text.words.shape == (4, LENGTH, 32)
    assert torch.equal(text.mask, mask)
    assert mask.sum(1).tolist() == [5, 2, 7, LENGTH]  # with [CLS] and [SEP]
    close(text.words, words * mask.unsqueeze(-1))


def test_the_sentence_is_the_authors_sum_or_the_mean_of_the_captions_own_tokens(folder):
    mask, words = theirs(folder, CAPTIONS)
    real = mask.sum(1, keepdim=True)
    close(encoder(folder).encode(CAPTIONS).sentence, words.sum(1) / real)
    mean = encoder(folder, sentence="mean").encode(CAPTIONS).sentence
    close(mean, torch.stack([w[: len(w[m])].mean(0) for w, m in zip(words, mask, strict=True)]))
    assert (mean[0] - words[0].sum(0) / 5).abs().max() > 0.1  # padding counts in the sum


def test_a_caption_does_not_depend_on_its_batch(folder):
    ours = encoder(folder)
    alone, together = ours.encode(CAPTIONS[:1]), ours.encode(CAPTIONS)
    close(together.words[0], alone.words[0])
    close(together.sentence[0], alone.sentence[0])
    twice = ours.encode(["a", "bird", "a"])
    assert torch.equal(twice.words[0], twice.words[2])


def test_any_caption_is_legal_and_read_in_lower_case(folder):
    odd = ["x " * 500_000, " " * 10_000 + "red", "\ud800 \x00 \u00e9\u4f60", "[SEP] [PAD]", "RED"]
    text = encoder(folder).encode(odd)
    assert torch.isfinite(text.words).all()
    close(text.sentence[1], encoder(folder).encode(["red"]).sentence[0])
    close(text.sentence[4], text.sentence[1])


def test_what_is_read_is_told(folder):
    ours = encoder(folder)
    assert ours.reading("a red bird")[:2] == ("tokens", 5)
    assert ours.reading("a " * 40).total > ours.reading("a").limit == LENGTH


def test_it_is_frozen_and_says_its_shape(folder):
    ours = encoder(folder)
    assert not ours.trainable
    assert tuple(ours.shape) == tuple(ours.encode(["a"]).shape) == (32, 32)
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    assert not any("pooler" in name for name, _ in ours.named_parameters())


def test_a_saved_encoder_loads_without_where_it_came_from(folder, tmp_path, monkeypatch):
    ours = encoder(folder)
    ours.save_assets(tmp_path)
    for loader in ("load_text_model", "load_tokenizer"):
        monkeypatch.setattr(f"t2i.plugins.encoders.bert.encoder.{loader}", None)
    again = encoder("gone/away", tmp_path)
    load_state(again, owned_tensors(ours), "test")
    for a, b in zip(again.encode(CAPTIONS).words, ours.encode(CAPTIONS).words, strict=True):
        assert torch.equal(a, b)


def test_a_bert_with_a_head_and_without_a_pooler_loads_too(tmp_path):
    torch.manual_seed(1)
    saved(tmp_path, BertForMaskedLM)
    text = encoder(tmp_path).encode(CAPTIONS)
    mask, words = theirs(tmp_path, CAPTIONS)
    close(text.words, words * mask.unsqueeze(-1))


def copied(folder, place, **config):
    shutil.copytree(folder, place)
    document = json.loads((place / "config.json").read_text()) | config
    (place / "config.json").write_text(json.dumps(document))
    return place


def test_what_cannot_be_had_is_said_in_one_line(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    bare, pickled = tmp_path / "bare", tmp_path / "pickled"
    shutil.copytree(folder, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, bare / name)
    cases = [
        ("no-one/nothing", r"neither a folder.*nor available from the hub.*--set encoder\.weights"),
        ("google-bert/bert-base-uncased", r"neither a folder.*t2i fetch bert"),
        ("../nowhere", r"no such folder"),
        (pickled, r"is a pickle.*only safetensors"),
        (bare, r"bare cannot be loaded.*no tokenizer\.json there, nor vocab\.txt"),
        (copied(folder, tmp_path / "a", num_hidden_layers=900), r"num_hidden_layers = 900, but"),
        (copied(folder, tmp_path / "b", intermediate_size=10**6), r"intermediate_size = 1000000"),
        (copied(folder, tmp_path / "c", num_attention_heads="x"), r"num_attention_heads = 'x'"),
        (copied(folder, tmp_path / "d", num_attention_heads=5), r"is no multiple of"),
        (copied(folder, tmp_path / "e", num_hidden_layers=3), r"holds no whole BERT: .* is miss"),
        (copied(folder, tmp_path / "f", _attn_implementation="me/mine"), r"names the kernel"),
    ]  # fmt: skip
    for place, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            encoder(place)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"encoder\.length = 21, but .* reads 20 tokens"):
        encoder(folder, length=21)


@pytest.mark.usefixtures("toy")
def test_settings_are_reached_from_the_command_line():
    overrides = {"encoder": {"name": "bert"}}
    config = resolve_config("toy", overrides=overrides, sets=["encoder.sentence=mean"])
    assert config.encoder.config.weights == "google-bert/bert-base-uncased"
    assert config.encoder.config.length == 17
    with pytest.raises(UserError, match=r"text encoder 'bert': .*sentence"):
        resolve_config("toy", overrides=overrides, sets=["encoder.sentence=all"])
