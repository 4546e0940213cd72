"""GenEval's networks, small and random in the true format: the detector against transformers' own
processor of Mask2Former, the colours against transformers' CLIP and Pillow."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    SwinConfig,
)

from t2i.core.errors import UserError
from t2i.plugins.features.geneval.colours import ColourClip, alone
from t2i.plugins.features.geneval.config import GenevalFeaturesConfig
from t2i.plugins.features.geneval.detector import Detector, objects
from t2i.plugins.features.geneval.features import build
from t2i.plugins.features.geneval.prompts import CLASSES, COLOURS
from t2i.plugins.features.geneval.rules import Found

SIDE = 384
"""Side to which transformers' processor scales all masks."""


def write_detector(path, classes=80):
    swin = SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    torch.manual_seed(0)
    network = Mask2FormerForUniversalSegmentation(
        Mask2FormerConfig(
            backbone_config=swin, feature_size=32, mask_feature_size=32, hidden_dim=32,
            encoder_feedforward_dim=16, dim_feedforward=16, encoder_layers=1, decoder_layers=2,
            num_attention_heads=2, num_queries=12, num_labels=classes,
        )
    )  # fmt: skip
    torch.nn.init.normal_(network.class_predictor.weight, 0, 3)
    for tensor in (network.model.transformer_module.queries_features.weight,
                   network.model.transformer_module.queries_embedder.weight):  # fmt: skip
        torch.nn.init.normal_(tensor, 0, 2)
    network.save_pretrained(path)
    return path


def write_clip(path):
    characters = [chr(code) for code in range(33, 127)]
    words = [*characters, *(character + "</w>" for character in characters)]
    vocabulary = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    (path / "vocab.json").write_text(json.dumps(vocabulary))
    (path / "merges.txt").write_text("#version: 0.2\n")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
             "num_attention_heads": 2, "projection_dim": 8}  # fmt: skip
    count = len(vocabulary)
    text = {**sizes, "vocab_size": count, "bos_token_id": count - 2, "eos_token_id": count - 1}
    torch.manual_seed(0)
    network = CLIPModel(
        CLIPConfig(
            text_config=text, vision_config={**sizes, "image_size": 32, "patch_size": 8},
            projection_dim=8,
        )
    )  # fmt: skip
    for tensor in network.parameters():
        torch.nn.init.normal_(tensor, 0, 0.3)
    network.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_detector(tmp_path_factory.mktemp("mask2former"))


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip"))


def detector(folder):
    return Detector(GenevalFeaturesConfig(weights=str(folder))).eval()


def images(height, width):
    """Smooth random images, so that masks have more than one pixel."""
    small = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3)).astype(np.uint8)
    large = [Image.fromarray(one).resize((width, height), Image.BICUBIC) for one in small]
    return torch.from_numpy(np.stack([np.array(one) for one in large])).permute(0, 3, 1, 2)


@torch.no_grad()
def test_objects_are_those_of_transformers(folder):
    """At the side to which transformers scales all masks, no other scaling is between the two."""
    ours = detector(folder)
    ours.shorter = SIDE
    pictures = images(SIDE, SIDE)
    found = ours(pictures)
    network = Mask2FormerForUniversalSegmentation.from_pretrained(folder).eval()
    processor = Mask2FormerImageProcessor(size={"shortest_edge": SIDE, "longest_edge": 1333})
    read = processor(images=list(pictures), return_tensors="pt")["pixel_values"]
    theirs = processor.post_process_instance_segmentation(
        network(pixel_values=read), threshold=0.3, return_binary_maps=True
    )
    assert sum(map(len, found)) >= 4
    for mine, its in zip(found, theirs, strict=True):
        known = {(CLASSES[one["label_id"]], round(one["score"], 4)): mask.bool() for one, mask in
                 zip(its["segments_info"], its["segmentation"], strict=True)}  # fmt: skip
        assert {(one.name, round(one.score, 4)) for one in mine} == set(known)
        for one in mine:
            mask = known[one.name, round(one.score, 4)]
            assert (mask != one.mask).float().mean() < 1e-4
            rows, columns = np.nonzero(one.mask.numpy())
            assert one.box == (
                columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            )  # fmt: skip


@torch.no_grad()
def test_images_are_prepared_as_transformers_prepares_them(folder):
    pictures = images(64, 64)
    pixels, size = detector(folder).pixels(pictures)
    read = Mask2FormerImageProcessor()(images=list(pictures), return_tensors="pt")["pixel_values"]
    assert size == (800, 800)
    assert pixels.shape == read.shape
    assert (pixels - read).abs().max() < 1.1 / 255 / 0.224  # one 8-bit step
    assert (pixels - read).abs().mean() < 0.25 / 255 / 0.224


@torch.no_grad()
def test_wide_images_are_padded_and_their_masks_are_not(folder):
    ours = detector(folder)
    ours.shorter, ours.longer = 40, 90
    pixels, size = ours.pixels(images(20, 30))
    assert size == (40, 60)
    assert pixels.shape[-2:] == (64, 64)
    assert pixels[..., 40:, :].count_nonzero() == pixels[..., 60:].count_nonzero() == 0
    ours.longer = 45
    assert ours.pixels(images(20, 30))[1] == (30, 45)
    masks = [one.mask for each in ours(images(20, 30)) for one in each]
    assert masks
    assert {mask.shape for mask in masks} == {(20, 30)}


def test_an_objects_score_is_that_of_its_class_and_its_mask():
    classes = torch.full((2, 81), -20.0)
    classes[0, CLASSES.index("cow")] = 20
    classes[1, 80] = 20  # nothing
    masks = torch.full((2, 6, 8), -5.0)
    masks[0, 1:3, 2:7] = torch.logit(torch.tensor(0.75))
    (one,) = objects(classes, masks)
    assert (one.name, one.box) == ("cow", (2, 1, 7, 3))
    assert one.score == pytest.approx(0.75, rel=1e-5)
    masks[0] = -5.0
    assert objects(classes, masks) == []  # a mask without a pixel


def test_a_network_of_other_classes_is_refused(tmp_path):
    with pytest.raises(UserError, match="finds 133 classes, not COCO's 80"):
        detector(write_detector(tmp_path, 133))


def test_a_folder_of_another_network_is_refused(folder, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "maskformer"}')
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match="name a Mask2Former"):
        detector(tmp_path)


def patch(image, box):
    mask = torch.zeros(image.shape[-2:], dtype=torch.bool)
    left, top, right, bottom = box
    mask[top:bottom, left:right] = torch.rand(bottom - top, right - left) > 0.3
    mask[top, left] = mask[bottom - 1, right - 1] = True
    return Found("cow", 0.9, box, mask)


@torch.no_grad()
def test_colours_are_those_of_transformers_clip(clip_folder):
    ours = ColourClip(GenevalFeaturesConfig(clip=str(clip_folder))).eval()
    network = CLIPModel.from_pretrained(clip_folder).eval()
    tokenizer = CLIPTokenizer.from_pretrained(clip_folder)
    processor = CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    image = images(80, 100)[0]
    torch.manual_seed(0)
    found = [patch(image, box) for box in ((0, 0, 40, 40), (30, 20, 62, 76), (10, 60, 90, 80))]
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    crops = [
        Image.composite(picture, Image.new("RGB", picture.size, "#999"),
                        Image.fromarray(one.mask.numpy())).crop(one.box)
        for one in found
    ]  # fmt: skip
    for one, crop in zip(found, crops, strict=True):
        assert torch.equal(alone(image, one).permute(1, 2, 0), torch.from_numpy(np.array(crop)))
    seen = network.visual_projection(
        network.vision_model(**processor(images=crops, return_tensors="pt")).pooler_output
    )
    texts = [
        text
        for colour in COLOURS
        for text in (f"a photo of a {colour} cow", f"a photo of a {colour}-colored cow",
                     f"a photo of a {colour} object")
    ]  # fmt: skip
    read = network.text_model(
        **tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt")
    )
    unit = torch.nn.functional.normalize
    said = unit(unit(network.text_projection(read.pooler_output), dim=1).view(10, 3, 8).mean(1))
    torch.testing.assert_close(ours.of_colours("cow"), said, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours(alone(image, found[1])[None]), seen[1:2], rtol=0.02, atol=0.02)
    expected = [COLOURS[place] for place in (unit(seen) @ said.T).argmax(1).tolist()]
    assert ours.names(image, found, "cow") == expected


@torch.no_grad()
def test_the_judge_is_built_of_files(folder, clip_folder, tmp_path):
    line = {"tag": "colors", "prompt": "a red cow",
            "include": [{"class": "cow", "count": 1, "color": "red"}]}  # fmt: skip
    (tmp_path / "prompts.jsonl").write_text(json.dumps(line))
    config = GenevalFeaturesConfig(
        weights=str(folder), clip=str(clip_folder), prompts=str(tmp_path / "prompts.jsonl"),
        max_overlap=0.5,
    )  # fmt: skip
    judge = build(config).eval()
    assert str(folder) in judge.name
    assert "overlap below 0.5" in judge.name
    judge.detector.shorter = 64
    marks = judge.of_pairs(images(64, 64), ["a red cow"] * 2)
    assert marks.shape == (2, 6)
    assert set(marks[:, 3].tolist()) <= {1.0, -1.0}
