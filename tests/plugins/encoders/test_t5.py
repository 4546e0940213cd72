"""The `t5` encoder against transformers' own output, on small random weights written in the true
format."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import T5EncoderModel, T5ForConditionalGeneration, T5Tokenizer

from t2i.core.errors import UserError
from t2i.core.models.weights import load_state, owned_tensors
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from tests.plugins.models.pipelines import random, t5, t5_tokenizer

CAPTIONS = ["a red bird", "", "Red, RED  red.", "a " * 40 + "bird"]
LENGTH = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as the hub has it for T5's encoder."""
    path = tmp_path_factory.mktemp("t5")
    torch.manual_seed(0)
    network, words = t5()
    network.save_pretrained(path)
    words.save_pretrained(path)
    return path


def encoder(folder, assets=None, **settings):
    spec = registry().encoders["t5"]
    given = {"weights": str(folder), "length": LENGTH, **settings}
    return import_object(spec.build)(import_object(spec.config).of(given, "test"), assets)


def theirs(folder, captions, masked=True):
    """transformers' own output, padded to 20 tokens."""
    tokens = T5Tokenizer.from_pretrained(folder)(
        captions, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
    )
    with torch.no_grad():
        model = T5EncoderModel.from_pretrained(folder).float().eval()
        mask = {"attention_mask": tokens.attention_mask} if masked else {}
        return tokens.attention_mask.bool(), model(input_ids=tokens.input_ids, **mask)[0]


def close(ours, expected):
    np.testing.assert_allclose(ours.numpy(), expected.numpy(), atol=1e-5)


def test_features_are_transformers_own_at_the_captions_tokens(folder):
    text = encoder(folder).encode(CAPTIONS)
    mask, words = theirs(folder, CAPTIONS)
    length = int(mask.sum(1).max())
    assert text.words.shape == (4, length, 32)
    assert torch.equal(text.mask, mask[:, :length])
    assert mask.sum(1).tolist() == [5, 1, 11, 20]  # in tokens; the empty caption has its end
    close(text.words, words[:, :length] * text.mask.unsqueeze(-1))
    own = mask.unsqueeze(-1)
    close(text.sentence, (words * own).sum(1) / own.sum(1))


@pytest.mark.parametrize(("padding", "masked"), [("encoded", True), ("attended", False)])
def test_padding_is_what_the_model_wants(folder, padding, masked):
    text = encoder(folder, padding=padding).encode(CAPTIONS[:2])
    mask, words = theirs(folder, CAPTIONS[:2], masked)
    assert text.mask.all()
    assert text.words.shape == (2, LENGTH, 32)
    close(text.words, words)
    close(text.sentence, (words * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True))


def test_a_caption_does_not_depend_on_its_batch(folder):
    ours = encoder(folder)
    alone, together = ours.encode(CAPTIONS[:1]), ours.encode(CAPTIONS)
    close(together.words[0, : alone.words.shape[1]], alone.words[0])
    close(together.sentence[0], alone.sentence[0])
    twice = ours.encode(["a", "bird", "a"])
    assert torch.equal(twice.words[0], twice.words[2])


def test_any_caption_is_legal_and_the_case_is_a_setting(folder):
    odd = ["x " * 500_000, " " * 10_000 + "red", "\ud800 \x00 \u00e9\u4f60", "</s> <pad>", "RED"]
    text = encoder(folder).encode(odd)
    assert text.words.shape[1] == LENGTH
    assert torch.isfinite(text.words).all()
    close(text.sentence[1], encoder(folder).encode(["red"]).sentence[0])
    assert (text.sentence[4] - text.sentence[1]).abs().max() > 1e-3
    lower = encoder(folder, lower=True).encode(["RED", "red"])
    close(lower.sentence[0], lower.sentence[1])


def test_what_is_read_is_told(folder):
    ours = encoder(folder)
    assert ours.reading("a red bird")[:2] == ("tokens", 5)
    assert ours.reading("a " * 40).total > ours.reading("a").limit == LENGTH


def test_it_is_frozen_and_says_its_shape(folder):
    ours = encoder(folder)
    assert not ours.trainable
    assert tuple(ours.shape) == tuple(ours.encode(["a"]).shape) == (32, 32)
    assert {p.dtype for p in ours.parameters()} == {torch.float32}


def test_a_saved_encoder_loads_without_where_it_came_from(folder, tmp_path, monkeypatch):
    ours = encoder(folder)
    ours.save_assets(tmp_path)
    for loader in ("load_text_model", "load_tokenizer"):
        monkeypatch.setattr(f"t2i.plugins.encoders.t5.encoder.{loader}", None)
    again = encoder("gone/away", tmp_path)
    load_state(again, owned_tensors(ours), "test")
    for a, b in zip(again.encode(CAPTIONS).words, ours.encode(CAPTIONS).words, strict=True):
        assert torch.equal(a, b)


def test_a_whole_t5_in_half_precision_and_shards_loads_too(folder, tmp_path):
    torch.manual_seed(1)
    config = T5EncoderModel.from_pretrained(folder).config
    whole = random(T5ForConditionalGeneration(config)).bfloat16()
    whole.save_pretrained(tmp_path, max_shard_size="20KB")
    t5_tokenizer().save_pretrained(tmp_path)
    assert len([*tmp_path.glob("model-*.safetensors")]) > 1
    text = encoder(tmp_path).encode(CAPTIONS)
    mask, words = theirs(tmp_path, CAPTIONS)
    close(text.words, (words * mask.unsqueeze(-1))[:, : text.words.shape[1]])


def test_a_vocabulary_of_sentencepiece_is_read(folder, tmp_path, monkeypatch):
    trainer = pytest.importorskip("sentencepiece").SentencePieceTrainer
    text = tmp_path / "text.txt"
    text.write_text("a red bird\na blue bird, and a red one\nred and blue birds\n" * 20)
    shutil.copytree(folder, tmp_path / "copy")
    trainer.train(
        input=str(text), model_prefix=str(tmp_path / "copy" / "spiece"), vocab_size=40,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=9, hard_vocab_limit=False,
    )  # fmt: skip
    (tmp_path / "copy" / "tokenizer.json").unlink()
    changed = json.loads((tmp_path / "copy" / "tokenizer_config.json").read_text())
    changed |= {"extra_ids": 0}
    (tmp_path / "copy" / "tokenizer_config.json").write_text(json.dumps(changed))
    ours = encoder(tmp_path / "copy")
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(str(tmp_path / "copy" / "spiece.model"))
    tokens = ours.tokens(["a red  bird"])[0][0].tolist()
    assert tokens == [*pieces.encode("a red  bird"), 1]
    monkeypatch.setattr("t2i.plugins.encoders.t5.weights.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"spiece\.model .* pip install sentencepiece protobuf"):
        encoder(tmp_path / "copy")


def copied(folder, place, **config):
    shutil.copytree(folder, place)
    document = json.loads((place / "config.json").read_text()) | config
    (place / "config.json").write_text(json.dumps(document))
    return place


def test_what_cannot_be_had_is_said_in_one_line(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    bare, cut, pickled = (tmp_path / name for name in ("bare", "cut", "pickled"))
    for place in (cut, pickled):
        shutil.copytree(folder, place)
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, bare / name)
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    cases = [
        ("no-one/nothing", r"neither a folder.*nor available from the hub.*--set encoder\.weights"),
        ("../nowhere", r"no such folder"),
        (cut, r"model\.safetensors is no sound safetensors file"),
        (pickled, r"is a pickle.*only safetensors"),
        (bare, r"bare cannot be loaded.*no tokenizer\.json there, nor spiece\.model"),
        (copied(folder, tmp_path / "a", num_layers=900), r"num_layers = 900, but its weights have"),
        (copied(folder, tmp_path / "b", d_ff=10**6), r"d_ff = 1000000, but its weights have only"),
        (copied(folder, tmp_path / "c", num_heads="x"), r"num_heads = 'x'"),
        (copied(folder, tmp_path / "d", vocab_size=20), r"do not belong together|cannot be loaded"),
        (copied(folder, tmp_path / "e", num_layers=3), r"holds no whole T5 encoder: .* is missing"),
        (
            copied(folder, tmp_path / "f", _attn_implementation="me/mine"),
            r"names the kernel 'me/mine'",
        ),
    ]
    for place, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            encoder(place)
        assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("toy")
def test_settings_are_reached_from_the_command_line():
    overrides = {"encoder": {"name": "t5"}}
    config = resolve_config("toy", overrides=overrides, sets=["encoder.padding=encoded"])
    assert config.encoder.config.weights == "google/flan-t5-base"
    assert config.encoder.config.padding == "encoded"
    with pytest.raises(UserError, match=r"text encoder 't5': .*padding"):
        resolve_config("toy", overrides=overrides, sets=["encoder.padding=much"])
