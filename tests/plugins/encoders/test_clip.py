"""The `clip` encoder against transformers' own output, on small random weights written in the true
format."""

import json

import numpy as np
import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from t2i.core.errors import UserError
from t2i.core.models.weights import load_state, owned_tensors
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config

CAPTIONS = ["a red circle", "", "Red  RED red!", "a blue square left of a star"]
CHARACTERS = [chr(code) for code in range(33, 127)]
MERGES = ["r e", "re d</w>", "a r", "c i"]


def write_tokenizer(folder):
    """CLIP's byte-pair tokenizer over ASCII, with a few merges: vocab.json and merges.txt."""
    words = [
        *CHARACTERS,
        *(character + "</w>" for character in CHARACTERS),
        *(m.replace(" ", "") for m in MERGES),
    ]
    vocabulary = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))
    return len(vocabulary)


def text_config(tokens):
    return CLIPTextConfig(
        vocab_size=tokens, hidden_size=16, intermediate_size=32, projection_dim=8,
        num_hidden_layers=3,
        num_attention_heads=2, bos_token_id=tokens - 2, eos_token_id=tokens - 1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as the hub has it for the text half of CLIP."""
    path = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    CLIPTextModelWithProjection(text_config(write_tokenizer(path))).save_pretrained(path)
    return path


def encoder(folder, assets=None, **settings):
    spec = registry().encoders["clip"]
    return import_object(spec.build)(
        import_object(spec.config).of({"weights": str(folder), **settings}, "test"), assets
    )


def theirs(folder, captions):
    """transformers' own output, padded to 77."""
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokens = tokenizer(
        captions, padding="max_length", truncation=True, max_length=77, return_tensors="pt"
    )
    with torch.no_grad():
        model = CLIPTextModelWithProjection.from_pretrained(folder).float().eval()
        return tokens, model(input_ids=tokens.input_ids, output_hidden_states=True), model


def close(ours, expected):
    np.testing.assert_allclose(ours.numpy(), expected.numpy(), atol=1e-5)


def test_features_are_transformers_own(folder):
    text = encoder(folder).encode(CAPTIONS)
    tokens, out, _ = theirs(folder, CAPTIONS)
    length = int(tokens.attention_mask.sum(1).max())
    assert text.words.shape == (4, length, 16)
    assert text.captions == tuple(CAPTIONS)
    assert torch.equal(text.mask, tokens.attention_mask[:, :length].bool())
    close(text.sentence, out.text_embeds)
    close(text.words, out.last_hidden_state[:, :length] * text.mask.unsqueeze(-1))


def test_stable_diffusion_attends_to_all_77(folder):
    text = encoder(folder, sentence="pooled", attend_padding=True).encode(CAPTIONS)
    tokens, out, model = theirs(folder, CAPTIONS)
    assert text.mask.all()
    close(text.words, out.last_hidden_state)
    ends = (tokens.input_ids == model.config.eos_token_id).int().argmax(1)
    close(text.sentence, out.last_hidden_state[torch.arange(4), ends])


@pytest.mark.parametrize("final_norm", [True, False])
def test_words_of_the_layer_before(folder, final_norm):
    text = encoder(folder, layer=-2, final_norm=final_norm, attend_padding=True).encode(CAPTIONS)
    _, out, model = theirs(folder, CAPTIONS)
    with torch.no_grad():
        words = out.hidden_states[-2]
        close(text.words, model.text_model.final_layer_norm(words) if final_norm else words)


def test_any_caption_is_legal_and_long_ones_are_cut_at_77(folder):
    ours = encoder(folder)
    odd = ["x " * 500_000, " " * 10_000 + "red", "\ud800 \x00 \u00e9\u4f60", "<|endoftext|> red"]
    text = ours.encode(odd)
    assert text.words.shape[1] == 77
    assert torch.isfinite(text.words).all()
    close(text.sentence[:2], ours.encode(["x " * 100, "red"]).sentence)


def test_repeated_captions_and_none(folder):
    ours = encoder(folder)
    text = ours.encode(["b", "a", "b"])
    assert torch.equal(text.words[0], text.words[2])
    assert not torch.equal(text.sentence[0], text.sentence[1])
    close(text.sentence[1], ours.encode(["a"]).sentence[0])
    close(ours.null(2).sentence, ours.encode(["", ""]).sentence)


def test_a_folder_loads_without_a_bar(folder, capfd):
    encoder(folder)
    assert capfd.readouterr() == ("", "")


def test_it_is_frozen_and_says_its_shape(folder):
    ours, pooled = encoder(folder), encoder(folder, sentence="pooled")
    assert not ours.trainable
    assert tuple(ours.shape) == tuple(ours.encode(["a"]).shape) == (8, 16)
    assert tuple(pooled.shape) == tuple(pooled.encode(["a"]).shape) == (16, 16)


@pytest.mark.parametrize("sentence", ["projected", "pooled"])
def test_a_saved_encoder_loads_without_where_it_came_from(folder, tmp_path, monkeypatch, sentence):
    ours = encoder(folder, sentence=sentence)
    ours.save_assets(tmp_path)
    monkeypatch.setattr("t2i.plugins.encoders.clip.encoder.load_text_model", None)
    monkeypatch.setattr("t2i.plugins.encoders.clip.encoder.load_tokenizer", None)
    again = encoder("gone/away", tmp_path, sentence=sentence)
    load_state(again, owned_tensors(ours), "test")
    assert torch.equal(again.encode(CAPTIONS).sentence, ours.encode(CAPTIONS).sentence)
    assert torch.equal(again.encode(CAPTIONS).words, ours.encode(CAPTIONS).words)
    assert not again.trainable


def test_a_whole_clip_and_a_bare_text_model_load_too(tmp_path):
    torch.manual_seed(0)
    tokens = write_tokenizer(tmp_path / "whole")
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,  # noqa: E501
              "image_size": 32, "patch_size": 16}  # fmt: skip
    whole = CLIPModel(
        CLIPConfig(
            text_config=text_config(tokens).to_dict(), vision_config=vision, projection_dim=8
        )
    )
    whole.half().save_pretrained(tmp_path / "whole")  # half precision, as some are released
    text = encoder(tmp_path / "whole").encode(CAPTIONS)
    assert text.sentence.dtype == torch.float32
    close(text.sentence, theirs(tmp_path / "whole", CAPTIONS)[1].text_embeds)

    write_tokenizer(tmp_path / "tokenizer")
    CLIPTextModel.from_pretrained(tmp_path / "whole").save_pretrained(tmp_path / "bare")
    bare = encoder(tmp_path / "bare", tokenizer=str(tmp_path / "tokenizer"), sentence="pooled")
    close(bare.encode(CAPTIONS).words, text.words)
    with pytest.raises(UserError, match=r"has no projection; use --set encoder\.sentence=pooled"):
        encoder(tmp_path / "bare", tokenizer=str(tmp_path / "tokenizer"))


def test_what_cannot_be_had_is_said_in_one_line(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    write_tokenizer(tmp_path / "no-weights")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in folder.iterdir():
        (damaged / file.name).write_bytes(
            file.read_bytes() if "safetensors" not in file.name else b"no tensors"
        )
    bare = tmp_path / "no-tokenizer"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((folder / name).read_bytes())
    opened = tmp_path / "opened"
    opened.mkdir()
    for name in ("open_clip_config.json", "open_clip_model.safetensors", "config.json"):
        (opened / name).write_text("{}")
    cases = [
        (
            {"weights": str(opened)},
            r"encoder\.weights = \S+: it is a CLIP in the layout of open_clip",
        ),
        (
            {"weights": "no-one/nothing"},
            r"neither a folder.*nor available from the hub.*--set encoder\.weights=FOLDER",
        ),
        ({"weights": "../nowhere"}, r"no such folder"),
        (
            {"weights": str(tmp_path / "no-weights")},
            r"no-weights: it has no model\.safetensors",
        ),
        ({"weights": str(damaged)}, r"damaged/model\.safetensors is no sound safetensors file"),
        ({"weights": str(bare)}, r"no-tokenizer cannot be loaded.*no tokenizer\.json"),
        ({"weights": str(folder), "layer": -4}, r"encoder\.layer = -4, but .* has 3"),
    ]
    for settings, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            encoder(settings.pop("weights"), **settings)
        assert "\n" not in str(caught.value)


def test_a_tokenizer_of_other_weights_is_refused(folder, tmp_path):
    torch.manual_seed(0)
    write_tokenizer(tmp_path)
    CLIPTextModelWithProjection(text_config(50)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="do not belong together"):
        encoder(tmp_path)


def test_pickled_weights_are_not_read(folder, tmp_path):
    for file in folder.iterdir():
        if "safetensors" not in file.name:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"is a pickle.*only safetensors"):
        encoder(tmp_path)


def test_a_name_in_the_hubs_cache_needs_no_network(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("t2i.plugins.common.weights.hub.HfApi", None)  # asking the hub would fail
    repository = tmp_path / "models--some-one--clip"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / ("0" * 40)).symlink_to(folder, target_is_directory=True)
    close(
        encoder("some-one/clip").encode(CAPTIONS).sentence,
        encoder(folder).encode(CAPTIONS).sentence,
    )


@pytest.mark.usefixtures("toy")
def test_settings_are_reached_from_the_command_line():
    overrides = {"encoder": {"name": "clip"}}
    config = resolve_config(
        "toy", overrides=overrides, sets=["encoder.weights=x", "encoder.attend_padding=true"]
    )
    assert (config.encoder.config.weights, config.encoder.config.attend_padding) == ("x", True)
    with pytest.raises(
        UserError,
        match=r"text encoder 'clip': no setting is named 'weight'; did you mean 'weights'\?",
    ):
        resolve_config("toy", overrides=overrides, sets=["encoder.weight=x"])
