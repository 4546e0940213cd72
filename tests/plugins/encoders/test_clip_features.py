"""The features `clip` against transformers' own CLIP, on small random weights written in the true
format."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, CLIPTextModelWithProjection, CLIPTokenizer

from t2i.core.errors import UserError
from t2i.core.kit.conformance import scores
from t2i.core.kit.conformance.subject import Part
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config

CAPTIONS = ["a red circle", "", "Red  RED red!", "a blue square left of a star", "x " * 500]
CHARACTERS = [chr(code) for code in range(33, 127)]
SIDE = 32


def write_tokenizer(folder):
    words = [*CHARACTERS, *(character + "</w>" for character in CHARACTERS)]
    vocabulary = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return len(vocabulary)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as the hub has it for a whole CLIP."""
    path = tmp_path_factory.mktemp("clip") / "clip-vit-small"
    path.mkdir()
    tokens = write_tokenizer(path)
    torch.manual_seed(0)
    text = {
        "vocab_size": tokens, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "bos_token_id": tokens - 2, "eos_token_id": tokens - 1,
        "projection_dim": 8,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE, "patch_size": 8, "projection_dim": 8,
    }  # fmt: skip
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(
        path
    )
    return path


def build(name="clip", **settings):
    spec = registry().features[name]
    return import_object(spec.build)(import_object(spec.config).of(settings, "test")).eval()


@pytest.fixture(scope="module")
def features(folder):
    return build(weights=str(folder))


def make_images(side, count=3):
    small = np.random.default_rng(0).integers(0, 256, (count, 7, 7, 3)).astype(np.uint8)
    return [Image.fromarray(one).resize((side, side), Image.BICUBIC) for one in small]


@pytest.mark.parametrize("side", [SIDE, 75, 20])
@torch.no_grad()
def test_images_are_seen_as_by_clips_own_processor(side, folder, features):
    """Resized by Pillow, bicubic, as CLIP's processor does; 75 is shrunk, where antialiasing
    matters."""
    images = make_images(side)
    seen = [np.asarray(image.resize((SIDE, SIDE), Image.BICUBIC)) for image in images]
    pixels = torch.from_numpy(np.stack(seen)).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (
        (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711),
    ))  # fmt: skip
    network = CLIPModel.from_pretrained(folder)
    theirs = network.visual_projection(network.vision_model((pixels - mean) / std).pooler_output)
    ours = features(
        torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-3 * float(theirs.abs().max()))
    if side == SIDE:
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@torch.no_grad()
def test_captions_are_read_as_by_transformers(folder, features):
    tokens = CLIPTokenizer.from_pretrained(folder)(
        CAPTIONS, padding="max_length", truncation=True, max_length=77, return_tensors="pt"
    )
    theirs = CLIPTextModelWithProjection.from_pretrained(folder)(
        input_ids=tokens.input_ids
    ).text_embeds
    torch.testing.assert_close(features.encode_text(CAPTIONS), theirs, rtol=0, atol=1e-5)


def test_it_says_what_it_is(folder, features, tmp_path):
    assert (features.dim, features.name) == (8, f"CLIP {folder}")
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    assert build(weights=str(other)).weights_sha256 == features.weights_sha256
    torch.manual_seed(9)
    CLIPModel(features.network.config).save_pretrained(other)
    assert build(weights=str(other)).weights_sha256 != features.weights_sha256


def test_its_own_weights_are_known_again_by_whatever_name(folder, features, tmp_path):
    assert features.is_named(str(folder))
    half = tmp_path / "half"
    CLIPTextModelWithProjection.from_pretrained(folder).half().save_pretrained(half)
    assert features.is_named(str(half))  # the text half alone, in half precision
    torch.manual_seed(9)
    other = tmp_path / folder.name
    CLIPModel(features.network.config).save_pretrained(other)
    assert not features.is_named(str(other))  # of the same name, but another network
    assert features.is_named(f"elsewhere/{folder.name}")  # not here: by its name
    for text in ("clip", "", "a" * 5000, "lab/another", str(tmp_path), "a\0b", "words"):
        assert not features.is_named(text)


def test_galips_own_clip_is_a_marked_judge(folder):
    """GALIP's published preset names the hub's ViT-B/32, which `clip` is by default."""
    network = build(weights=str(folder))
    network.networks = (import_object(registry().features["clip"].config)().weights,)
    config = resolve_config("galip", preset="coco", overrides={"data": {"name": "shapes"}}).dump()
    named = re.findall(r'"(openai/[^"]+)"', json.dumps(config))
    assert len(named) == 2  # in its networks and as its text encoder
    assert all(network.is_named(text) for text in named)
    assert not any(
        network.is_named(text)
        for text in ("openai/clip-vit-large-patch14", "openai/clip-vit-base-patch16")
    )


def test_the_kit_finds_nothing_where_the_weights_are_fetched(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("T2I_HOME", str(tmp_path))
    shutil.copytree(folder, tmp_path / "fetched" / "clip")
    scores.vectors(Part("features", "clip"))


@pytest.mark.parametrize("name", ["clip", "clip-vit-b-16", "clip-vit-l-14"])
def test_missing_weights_are_refused_with_the_command_that_gets_them(name, tmp_path, monkeypatch):
    monkeypatch.setenv("T2I_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("t2i.plugins.common.weights.hub.PROBE_SECONDS", 0.01)
    with pytest.raises(
        UserError, match=f"features '{name}': .* 't2i fetch {name}', or set its weights to a folder"
    ):
        build(name, weights="lab/nowhere")


def test_a_folder_that_lacks_a_half_is_refused(folder, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(folder, half)
    state = load_file(half / "model.safetensors")
    save_file(
        {name: state[name] for name in state if name.startswith("text")}, half / "model.safetensors"
    )
    with pytest.raises(
        UserError, match=r"features 'clip': .*/half holds no whole CLIP: \S+ is missing"
    ):
        build(weights=str(half))
