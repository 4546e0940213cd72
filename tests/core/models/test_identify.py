"""Folders and files of other projects are called by what they are."""

import json
import os
import struct

import pytest

from t2i.core.models.identify import family, identify, shapes_of


def safetensors(path, shapes, cut=0):
    """Write a file of zeros, float32, as the format says; without its last `cut` bytes."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 4
        for side in shape:
            size *= side
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    whole = struct.pack("<Q", len(text)) + text + bytes(end)
    path.write_bytes(whole[: len(whole) - cut])
    return path


FIRST = "input_blocks.0.0.weight"
FAMILIES = {
    "lora_unet_down_blocks_0.lora_down.weight": "a LoRA",
    "base_model.model.to_k.lora_A.weight": "a LoRA",
    "unet.to_k.processor.to_q_lora.down.weight": "a LoRA",
    "lora_unet_x.hada_w1_a": "a LoRA",
    "x.lokr_w1": "a LoRA",
    "emb_params": "a textual inversion",
    "<bird>": "a textual inversion",
    "control_model.time_embed.0.weight": "a ControlNet",
    "controlnet_cond_embedding.conv_in.weight": "a ControlNet",
    "ip_adapter.1.to_k_ip.weight": "an IP-Adapter",
    "conditioner.embedders.1.model.ln_final.weight": "Stable Diffusion XL",
    "conditioner.embedders.0.model.ln_final.weight": "the refiner of Stable Diffusion XL",
    f"model.diffusion_model.{FIRST}": "Stable Diffusion",
    "joint_blocks.0.x_block.attn.qkv.weight": "Stable Diffusion 3",
    "double_blocks.0.img_attn.qkv.weight": "FLUX",
    "blocks.0.cross_attn.q_linear.weight": "PixArt",
    FIRST: "a U-Net alone",
    "first_stage_model.decoder.conv_in.weight": "an autoencoder alone",
    "decoder.up_blocks.0.resnets.0.conv1.weight": "an autoencoder alone",
    "text_model.embeddings.token_embedding.weight": "the text half of a CLIP",
    "shared.weight": "a T5 alone",
    "model_ema.diffusion_modelinput_blocks00weight": "a checkpoint with averaged weights only",
    "something": "a safetensors file of 1 tensors that no known model has, such as 'something'",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_files_are_told_by_the_names_of_tensors(name, tmp_path):
    path = safetensors(tmp_path / "x.safetensors", {name: (8, 4, 3, 3)})
    assert identify(path).what.startswith(FAMILIES[name])
    assert shapes_of(path) == {name: (8, 4, 3, 3)}


def test_input_channels_tell_the_task():
    for channels, task in ((9, "inpainting"), (8, "editing by instructions"), (5, "depth maps")):
        what = family({f"model.diffusion_model.{FIRST}": (8, channels, 3, 3)}).what
        assert f"for {task}: its U-Net has {channels} input channels" in what
    assert family({}).what == "a safetensors file without tensors"


FILES = {
    "an empty file": b"",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\n",
    "a web page (HTML)": b"\n <!DOCTYPE html><html>",
    "a GGUF file": b"GGUF\x03",
    "a pickle": b"\x80\x04N.",
    "no sound safetensors file (9 bytes)": b"\xff" * 9,
    "no sound safetensors file: cut at 12 bytes, inside its header": b"\x40" + bytes(7) + b'{"a"',
}


@pytest.mark.parametrize("what", FILES)
def test_other_files_are_told_by_their_first_bytes(what, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(FILES[what])
    assert identify(path).what.startswith(what)
    assert shapes_of(path) is None


def test_a_cut_file_is_no_file(tmp_path):
    path = safetensors(tmp_path / "x.safetensors", {"a": (10,)}, cut=1)
    size = path.stat().st_size
    assert identify(path).what == f"no sound safetensors file: cut at {size} of {size + 1} bytes"
    assert shapes_of(path) is None


FOLDERS = {
    "a StableDiffusionXLPipeline of diffusers": {"model_index.json": "StableDiffusionXLPipeline"},
    "a KandinskyPipeline of diffusers": {"model_index.json": "KandinskyPipeline"},
    "a UNet2DConditionModel of diffusers alone": {"config.json": "UNet2DConditionModel"},
    "a CLIP in the layout of open_clip": {"open_clip_config.json": "", "config.json": "X"},
    "a LoRA": {"pytorch_lora_weights.safetensors": ""},
    "a scheduler of diffusers alone": {"scheduler_config.json": "DDIMScheduler"},
    "a tokenizer alone": {"vocab.json": ""},
    "a training checkpoint of": {"unet/config.json": "UNet", "optimizer.bin": ""},
    "a pipeline with code of its own (Mine)": {"model_index.json": ["code", "Mine"]},
    "a pipeline with code of its own, which": {"model_index.json": []},
    "an A\\x1b[31m B of diffusers": {"model_index.json": "A\x1b[31m\nB"},
    "a folder of a pipeline's parts (unet/, vae/) without": {
        "unet/config.json": "UNet",
        "vae/config.json": "VAE",
    },
    "a folder of training checkpoints (checkpoint-5)": {"checkpoint-5/optimizer.bin": ""},
    "a folder of the hub's cache": {"refs/main": "", "snapshots/abc/x": ""},
    "a folder of pipelines": {"x/model_index.json": "DDPMPipeline"},
    "a folder of files of weights (x.safetensors is an empty file)": {"x.safetensors": ""},
    "a folder in which no model is recognised (it holds a.jpg)": {"a.jpg": ""},
    "an empty folder": {},
}


@pytest.mark.parametrize("what", FOLDERS)
def test_folders_are_told_by_their_files(what, tmp_path):
    for file, kind in FOLDERS[what].items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(json.dumps({"_class_name": kind}) if kind != "" else "")
    assert identify(tmp_path).what.startswith(what)


def test_a_transformers_folder_is_told_by_its_architecture(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["CLIPTextModel"]}')
    assert identify(tmp_path).what.startswith("a CLIPTextModel of transformers alone")


HEADERS = {
    "offsets": {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}},
    "negative": {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [-4, 0]}},
    "more values than bytes": {"a": {"dtype": "F32", "shape": [9, 9], "data_offsets": [0, 4]}},
    "data type": {"a": {"dtype": "Q", "shape": [1], "data_offsets": [0, 4]}},
    "list": [1],
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_lies_is_no_sound_file(name, tmp_path):
    text = json.dumps(HEADERS[name]).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    assert shapes_of(path) is None
    assert identify(path).what.startswith("no sound safetensors file")
    assert "\n" not in identify(path).sentence


ENDINGS = {
    "x.onnx": "an ONNX model",
    "x.msgpack": "weights of JAX",
    "x.h5": "weights of Keras",
    "x.npz": "a file of NumPy's arrays",
    "x.pkl": "a pickle",  # of the oldest protocol, which is text
    "x.bin": "a pickle",
    "x.sft": "no sound safetensors file (300 bytes)",
    "x.exe": "no file of weights (300 bytes)",
}


@pytest.mark.parametrize("name", ENDINGS)
def test_files_of_unknown_bytes_are_told_by_their_endings(name, tmp_path):
    (tmp_path / name).write_bytes(b"\x01" * 300)
    assert identify(tmp_path / name).what.startswith(ENDINGS[name])


def test_a_checkpoint_of_weights_alone_is_no_model_file_to_name(tmp_path):
    place = tmp_path / "checkpoint-500"
    place.mkdir()
    safetensors(place / "model.safetensors", {"conv_in.weight": (8, 4, 3, 3)})
    assert identify(place).what.startswith("a training checkpoint of")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.safetensors")
    os.mkfifo(tmp_path / "model_index.json")
    assert identify(tmp_path / "x.safetensors").what.startswith("no regular file")
    assert shapes_of(tmp_path / "x.safetensors") is None
    assert identify(tmp_path).what.startswith("a folder whose model_index.json names no pipeline")
