"""PickScore, HPSv2 and ImageReward, on small random weights written in the true format, against
transformers' CLIP, open_clip, and numbers that ImageReward's public code computed."""

import json
import math

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize
from transformers import CLIPConfig, CLIPModel

from t2i.core.errors import UserError
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.plugins.common.images.resize import cropped

CHARACTERS = [chr(code) for code in range(33, 127)]
CAPTIONS = ["a red circle", "two cats & 3 dogs; blue", "Red  RED red!"]
SIDE = 32


def built(name, **settings):
    spec = registry().features[name]
    return import_object(spec.build)(import_object(spec.config).of(settings, "test")).eval()


def images(height, width):
    small = np.random.default_rng(0).integers(0, 256, (3, 7, 7, 3)).astype(np.uint8)
    return [Image.fromarray(one).resize((width, height), Image.BICUBIC) for one in small]


def batch(pictures):
    return torch.from_numpy(np.stack([np.asarray(one) for one in pictures])).permute(0, 3, 1, 2)


def write_tokenizer(folder):
    words = [*CHARACTERS, *(character + "</w>" for character in CHARACTERS)]
    vocabulary = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return len(vocabulary)


def normalised(pixels):
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (
        (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711),
    ))  # fmt: skip
    return (pixels - mean) / std


# --- PickScore


@pytest.fixture(scope="module")
def pick_folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("pick")
    tokens = write_tokenizer(path)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
             "num_attention_heads": 2, "projection_dim": 8, "hidden_act": "gelu"}  # fmt: skip
    ends = {"vocab_size": tokens, "bos_token_id": tokens - 2, "eos_token_id": tokens - 1}
    vision = {**sizes, "image_size": SIDE, "patch_size": 8}
    torch.manual_seed(0)
    network = CLIPModel(CLIPConfig(text_config={**sizes, **ends}, vision_config=vision,
                                   projection_dim=8))  # fmt: skip
    for tensor in network.parameters():
        torch.nn.init.normal_(tensor, 0, 0.3)
    network.logit_scale.data.fill_(math.log(90))
    network.save_pretrained(path)
    return path


@torch.no_grad()
def test_pickscore_is_the_scaled_cosine_of_its_clip(pick_folder):
    judge = built("pickscore", weights=str(pick_folder))
    pictures = images(SIDE, SIDE)
    ours = (judge(batch(pictures)) * judge.encode_text(CAPTIONS)).sum(1)
    network = CLIPModel.from_pretrained(pick_folder)
    said = judge.tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    theirs = network(pixel_values=normalised(batch(pictures) / 255), **said).logits_per_image
    torch.testing.assert_close(ours, theirs.diag(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(512, 512), (333, 601)])
@torch.no_grad()
def test_pickscore_fits_images_as_the_processor_of_its_authors(pick_folder, size):
    judge = built("pickscore", weights=str(pick_folder))
    pictures = images(*size)
    named = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)
    squares = {"height": SIDE, "width": SIDE}
    processor = named(size={"shortest_edge": SIDE}, crop_size=squares)
    theirs = torch.tensor(np.stack(processor(pictures)["pixel_values"]))
    network = CLIPModel.from_pretrained(pick_folder)
    said = judge.tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    theirs = network(pixel_values=theirs, **said).logits_per_image.diag()
    ours = (judge(batch(pictures)) * judge.encode_text(CAPTIONS)).sum(1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_pickscore_knows_its_names(pick_folder):
    judge = built("pickscore", weights=str(pick_folder))
    assert judge.is_named("pickscore")
    assert judge.is_named(str(pick_folder))
    assert not judge.is_named("openai/clip-vit-base-patch32")


# --- HPSv2


@pytest.fixture(scope="module")
def hps_file(tmp_path_factory):
    open_clip = pytest.importorskip("open_clip")
    path = tmp_path_factory.mktemp("hps") / "HPS_v2.1_compressed.pt"
    tokens = write_tokenizer(path.parent)
    torch.manual_seed(0)
    network = open_clip.CLIP(
        8,
        open_clip.CLIPVisionCfg(layers=2, width=32, head_width=2, patch_size=8, image_size=SIDE),
        open_clip.CLIPTextCfg(vocab_size=tokens, width=16, heads=16, layers=2),
    ).eval()
    for tensor in network.parameters():
        torch.nn.init.normal_(tensor, 0, 0.3)
    network.half().float()
    torch.save({"state_dict": {k: v.half() for k, v in network.state_dict().items()}}, path)
    return path, network


@pytest.mark.parametrize("size", [(SIDE, SIDE), (48, 20)])
@torch.no_grad()
def test_hpsv2_equals_open_clip(hps_file, size):
    """Images are resized without rounding, and get black bars."""
    from torchvision.transforms.functional import pad, resize

    path, network = hps_file
    judge = built("hpsv2", weights=str(path))
    pixels, scale = batch(images(*size)) / 255, SIDE / max(size)
    if scale != 1:
        fitted = [round(side * scale) for side in size]
        pixels = resize(pixels, fitted, interpolation=3, antialias=True)
        free = SIDE - fitted[1]
        pixels = pad(pixels, [free // 2, 0, free - free // 2, 0])
    said = judge.tokenizer(CAPTIONS, padding="max_length", max_length=77, return_tensors="pt")
    said = said.input_ids.masked_fill(said.attention_mask == 0, 0)
    theirs = network.encode_image(normalised(pixels), normalize=True)
    theirs = (theirs * network.encode_text(said, normalize=True)).sum(1)
    ours = (judge(batch(images(*size))) * judge.encode_text(CAPTIONS)).sum(1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_a_file_of_another_network_is_refused(hps_file, tmp_path):
    network = hps_file[1]
    state = network.state_dict()
    del state["visual.ln_post.bias"]
    write_tokenizer(tmp_path)
    torch.save({"state_dict": state}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"post_layernorm\.bias is missing.*t2i fetch hpsv2"):
        built("hpsv2", weights=str(tmp_path / "other.pt"))


# --- ImageReward

REWARD_SHAPES = {
    "blip.visual_encoder.cls_token": (1, 1, 64), "blip.visual_encoder.pos_embed": (1, 5, 64),
    "blip.visual_encoder.patch_embed.proj.weight": (64, 3, 16, 16),
    "blip.visual_encoder.patch_embed.proj.bias": (64,),
    "blip.visual_encoder.blocks.0.norm1.weight": (64,),
    "blip.visual_encoder.blocks.0.norm1.bias": (64,),
    "blip.visual_encoder.blocks.0.attn.qkv.weight": (192, 64),
    "blip.visual_encoder.blocks.0.attn.qkv.bias": (192,),
    "blip.visual_encoder.blocks.0.attn.proj.weight": (64, 64),
    "blip.visual_encoder.blocks.0.attn.proj.bias": (64,),
    "blip.visual_encoder.blocks.0.norm2.weight": (64,),
    "blip.visual_encoder.blocks.0.norm2.bias": (64,),
    "blip.visual_encoder.blocks.0.mlp.fc1.weight": (256, 64),
    "blip.visual_encoder.blocks.0.mlp.fc1.bias": (256,),
    "blip.visual_encoder.blocks.0.mlp.fc2.weight": (64, 256),
    "blip.visual_encoder.blocks.0.mlp.fc2.bias": (64,),
    "blip.visual_encoder.norm.weight": (64,), "blip.visual_encoder.norm.bias": (64,),
    "blip.text_encoder.embeddings.position_ids": (1, 40),
    "blip.text_encoder.embeddings.word_embeddings.weight": (194, 128),
    "blip.text_encoder.embeddings.position_embeddings.weight": (40, 128),
    "blip.text_encoder.embeddings.LayerNorm.weight": (128,),
    "blip.text_encoder.embeddings.LayerNorm.bias": (128,),
    **{
        f"blip.text_encoder.encoder.layer.0.{kind}.self.{part}.{end}": shape
        for kind, width in (("attention", 128), ("crossattention", 64))
        for part in ("query", "key", "value")
        for end, shape in (
            ("weight", (128, 128 if part == "query" else width)), ("bias", (128,)),
        )
    },
    **{
        f"blip.text_encoder.encoder.layer.0.{kind}.output.{part}.{end}": shape
        for kind in ("attention", "crossattention")
        for part, end, shape in (
            ("dense", "weight", (128, 128)), ("dense", "bias", (128,)),
            ("LayerNorm", "weight", (128,)), ("LayerNorm", "bias", (128,)),
        )
    },
    "blip.text_encoder.encoder.layer.0.intermediate.dense.weight": (256, 128),
    "blip.text_encoder.encoder.layer.0.intermediate.dense.bias": (256,),
    "blip.text_encoder.encoder.layer.0.output.dense.weight": (128, 256),
    "blip.text_encoder.encoder.layer.0.output.dense.bias": (128,),
    "blip.text_encoder.encoder.layer.0.output.LayerNorm.weight": (128,),
    "blip.text_encoder.encoder.layer.0.output.LayerNorm.bias": (128,),
    "blip.vision_proj.weight": (8, 64),
    **{
        f"mlp.layers.{number}.{end}": shape
        for number, out, into in (
            (0, 1024, 128), (2, 128, 1024), (4, 64, 128), (6, 16, 64), (7, 1, 16),
        )
        for end, shape in (("weight", (out, into)), ("bias", (out,)))
    },
}  # fmt: skip
"""The tensors of a small ImageReward.pt: one block in each encoder, images of 32 pixels."""

PUBLIC = [0.8543118238, 0.8722463846, 0.8263572454]
"""What the public code computes of the file below, of three images of 32 pixels."""


def write_reward(folder):
    """Write ImageReward.pt with weights that depend on no random generator."""
    state = {}
    for number, (name, shape) in enumerate(REWARD_SHAPES.items()):
        count = math.prod(shape)
        if name.endswith("position_ids"):
            state[name] = torch.arange(count).view(shape)
            continue
        phase = torch.arange(count, dtype=torch.double) * 1.7 + number
        scale = 1.5 / math.sqrt(shape[-1]) if len(shape) > 1 else 0.3
        state[name] = (scale * torch.sin(phase**1.1)).float().view(shape)
    torch.save(state, folder / "ImageReward.pt")
    pieces = [*CHARACTERS, *(f"##{character}" for character in CHARACTERS)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", *pieces]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(words)) + "\n")
    return state


@pytest.fixture(scope="module")
def reward(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward")
    write_reward(folder)
    return built("image-reward", weights=str(folder / "ImageReward.pt"))


@torch.no_grad()
def test_image_reward_equals_its_public_code(reward):
    ours = reward.of_pairs(batch(images(32, 32)), CAPTIONS)
    torch.testing.assert_close(ours[:, 0], torch.tensor(PUBLIC), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(512, 512), (70, 33), (35, 32), (200, 347)])
def test_image_reward_fits_images_as_torchvision_fits_those_of_pillow(size):
    pictures = images(*size)
    fit = Compose([Resize(SIDE, interpolation=InterpolationMode.BICUBIC), CenterCrop(SIDE)])
    theirs = batch([fit(one) for one in pictures]) / 255
    assert torch.equal(cropped(batch(pictures), SIDE, round), theirs)


def test_image_reward_needs_captions(reward):
    with pytest.raises(UserError, match="with its caption"):
        reward(batch(images(32, 32)))
    assert reward.is_named("/runs/ImageReward.pt")


@pytest.mark.parametrize("name", ["hpsv2", "image-reward"])
def test_without_weights_the_error_names_the_command(name, tmp_path, monkeypatch):
    monkeypatch.setenv("T2I_HOME", str(tmp_path))
    with pytest.raises(UserError, match=f"t2i fetch {name}"):
        built(name)
