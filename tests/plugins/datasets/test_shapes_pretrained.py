"""The networks that the data set ships: what they were trained on, and that they are sound."""

import json

import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.io.sealed import seal, verify
from t2i.core.models.building import build, stages_of
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from t2i.plugins.common.clip.vision import build_clip
from t2i.plugins.common.latent.autoencoder import Autoencoder
from t2i.plugins.common.tokens.tokenizer import ImageTokenizer, tokenizer_of
from t2i.plugins.common.tokens.tokenizer_config import TokenizerConfig
from t2i.plugins.datasets.shapes.draws import Draws
from t2i.plugins.datasets.shapes.grammar import FULL, KINDS, draw_scene, parse
from t2i.plugins.datasets.shapes.pretrained import (
    contrasts,
    train_autoencoder,
    train_clip,
    train_tokens,
)

NAMES = ("shapes-clip", "shapes-autoencoder", "shapes-tokens")
LIMIT = 1_000_000  # bytes


@pytest.mark.parametrize("name", NAMES)
def test_shipped_weights_are_sealed_and_small(name):
    folder = registry().shipped(name)
    verify(folder, name)
    assert sum(file.stat().st_size for file in folder.rglob("*.safetensors")) <= LIMIT


def test_no_other_name_is_shipped():
    assert registry().shipped("shapes") is None


def test_changed_weights_are_refused(monkeypatch, tmp_path):
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "config.json").write_text("{}")
    seal(tmp_path / "clip")
    (tmp_path / "clip" / "config.json").write_text("{ }")
    monkeypatch.setattr(type(registry()), "shipped", lambda self, name: tmp_path / "clip")
    config = resolve_config("dfgan", preset="shapes")
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        build(config)


def test_groups_differ_in_one_attribute_and_show_nothing_held_out():
    same = 0
    for kind in KINDS:
        for number in range(40):
            draws = Draws(5, 5, number)
            scene = draw_scene(draws, FULL, kind)
            changed = contrasts.altered(scene, draws)
            assert not changed.held_out
            assert (changed.kind, len(changed.objects)) == (kind, len(scene.objects))
            same += changed == scene
    assert same <= 2


def test_batches_repeat_and_pair_each_image_with_its_caption():
    stream = contrasts.Contrasts(groups=3, size=4, seen=2, first=7)
    batch, again = next(iter(stream)), stream.batch(7)
    assert torch.equal(batch.images, again.images)
    assert batch.captions == again.captions
    assert batch.place.tolist() == [0, 1, 4, 5, 8, 9]
    assert batch.images.shape == (6, 3, 32, 32)
    assert all(parse(caption) for caption in batch.captions)


def test_the_right_caption_is_found_by_the_shipped_clip():
    clip = train_clip.Clip.new()
    clip.text = build(resolve_config("dfgan", preset="shapes")).text_encoder
    config = train_clip.VISION.model_copy(update={"weights": "shapes-clip"})
    clip.vision = build_clip(config, clip.text.shape.sentence, None, "test")
    found = train_clip.accuracies(clip)
    assert found["of 4"] > 85
    assert found["of 256"] > 75


def test_clip_is_written_as_it_was(tmp_path):
    torch.manual_seed(0)
    clip = train_clip.Clip.new()
    batch = contrasts.Contrasts(2, 4, 2).batch(0)
    assert clip.loss(batch).isfinite()
    train_clip.write(clip, tmp_path)
    config = train_clip.VISION.model_copy(update={"weights": str(tmp_path)})
    vision = build_clip(config, 128, None, "test")
    torch.testing.assert_close(
        vision.embedding(batch.images), clip.vision.embedding(batch.images), rtol=0.02, atol=0.02
    )
    spec = registry().encoders["words"]
    text = registry().encoders.choose("words", {"weights": str(tmp_path)}, "text encoder").config
    loaded = import_object(spec.build)(import_object(spec.fit)(text, []), None)
    torch.testing.assert_close(
        loaded.encode(batch.captions).sentence, clip.text.encode(batch.captions).sentence,
        rtol=0.02, atol=0.02,
    )  # fmt: skip


def test_whitening_is_folded_into_the_autoencoder(tmp_path):
    torch.manual_seed(0)
    own = Autoencoder(train_autoencoder.CONFIG, 32)
    own.measure(torch.randn(64, 8, 8, 8) * torch.linspace(0.5, 2, 8)[:, None, None] + 0.3)
    train_autoencoder.write(own, tmp_path)
    model = build(
        resolve_config(
            "ldm", preset="shapes", sets=[f"autoencoder.weights={json.dumps(str(tmp_path))}"]
        )
    )
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        z, found = own.encode(images), model.generator.encode(images)
        torch.testing.assert_close(found, z, rtol=0.02, atol=0.02)
        torch.testing.assert_close(model.generator.decode(z), own.decode(z), rtol=0.02, atol=0.02)


def test_reconstructions_by_the_shipped_autoencoder_are_read_right():
    generator = build(resolve_config("ldm", preset="shapes")).generator
    shares = train_autoencoder.accuracies(generator.autoencoder, count=100)
    assert shares["one object"] >= 95
    assert shares["unseen"] >= 85


def test_the_tokenizer_begins_as_the_autoencoder_and_its_reconstructions_are_read_right():
    own = ImageTokenizer(train_tokens.CONFIG, 32)
    train_tokens.begin(own)
    vae = build(resolve_config("ldm", preset="shapes")).generator.autoencoder
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        z = own.features(images)
        torch.testing.assert_close(z, vae.encode(images), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(own.reconstruct(z), vae.decode(z), rtol=1e-4, atol=1e-4)
    shipped = tokenizer_of(TokenizerConfig(weights="shapes-tokens"), 32)
    assert (shipped.length, shipped.vocabulary) == (64, 512)
    shares = train_tokens.accuracies(shipped, count=100)
    assert shares["one object"] >= 97
    assert shares["unseen"] >= 90


@pytest.mark.parametrize("spec", [s for s in registry().models if "shapes" in s.presets])
def test_presets_of_shapes_train_no_part_that_is_shipped(spec):
    config = resolve_config(spec.name, preset="shapes")
    stages = stages_of(config, build(config).text_encoder)
    shipped = {"autoencoder", "clip", "text", "tokenizer"}
    if spec.name == "vqvae":  # the tokenizer that is shipped is a VQGAN
        shipped.remove("tokenizer")
    assert {stage.name for stage in stages}.isdisjoint(shipped)
    assert config.data.name == "shapes"
