"""The networks of latent diffusion that LoRA files change, by the names of diffusers' pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from diffusers import UNet2DConditionModel
from torch import nn
from transformers import PreTrainedModel

from t2i.core.models.lora.networks import LoraNetwork
from t2i.core.models.model import Model
from t2i.plugins.models.ldm.networks import LatentGenerator, LDMGenerator
from t2i.plugins.models.ldm.transformers import TransformerGenerator

RESNET = {
    "conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}  # fmt: skip
OTHERS = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0", "conv_out": "out.2",
}  # fmt: skip


def networks(model: Model) -> dict[str, LoraNetwork]:
    """List the networks that LoRA files change.

    Args:
        model: A model of `ldm`.

    Returns:
        "unet" or "transformer", then "text_encoder", "text_encoder_2" and so on.
    """
    generator = model.generator
    assert isinstance(generator, LatentGenerator)
    if isinstance(generator, TransformerGenerator):
        found = {"transformer": LoraNetwork(generator.transformer)}
    else:
        assert isinstance(generator, LDMGenerator)
        unet = generator.unet.unet
        found = {"unet": LoraNetwork(unet, authors_names(unet))}
    text = list(_outermost(model.text_encoder)) or [model.text_encoder]
    for number, module in enumerate(text, 1):
        found["text_encoder" + (f"_{number}" if number > 1 else "")] = LoraNetwork(module)
    return found


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the networks of transformers in a module that are in no other one."""
    if isinstance(module, PreTrainedModel):
        yield module
        return
    for child in module.children():
        yield from _outermost(child)


def authors_names(unet: nn.Module) -> dict[str, str]:
    """Return the names that Stable Diffusion's authors gave the layers of a U-Net.

    LoRAs of Stable Diffusion XL that kohya's scripts trained have them.

    Source: kohya-ss/sd-scripts, library/sdxl_model_util.py.

    Args:
        unet: diffusers' U-Net.

    Returns:
        The authors' names by diffusers'. Empty for other networks.
    """
    if not isinstance(unet, UNet2DConditionModel):
        return {}
    config: Any = unet.config
    depth = config.layers_per_block
    if not isinstance(depth, int):
        return {}
    places = dict(_places(len(config.block_out_channels), depth))
    named = dict(OTHERS)
    for name, _ in unet.named_modules():
        place = next((p for p in places if name.startswith(f"{p}.") or name == p), None)
        if place is None:
            continue
        rest = name.removeprefix(place).removeprefix(".")
        rest = RESNET.get(rest, rest) if ".resnets." in place else rest
        named[name] = f"{places[place]}.{rest}" if rest else places[place]
    return named


def _places(levels: int, depth: int) -> Iterator[tuple[str, str]]:
    """Yield diffusers' and the authors' names of the blocks of a U-Net.

    Args:
        levels: Number of resolutions.
        depth: Residual blocks of a level on the way down; on the way up there is one more.
    """
    for i in range(levels):
        first = (depth + 1) * i
        for j in range(depth):
            yield f"down_blocks.{i}.resnets.{j}", f"input_blocks.{first + j + 1}.0"
            yield f"down_blocks.{i}.attentions.{j}", f"input_blocks.{first + j + 1}.1"
        yield f"down_blocks.{i}.downsamplers.0.conv", f"input_blocks.{first + depth + 1}.0.op"
        for j in range(depth + 1):
            yield f"up_blocks.{i}.resnets.{j}", f"output_blocks.{first + j}.0"
            yield f"up_blocks.{i}.attentions.{j}", f"output_blocks.{first + j}.1"
        yield f"up_blocks.{i}.upsamplers.0", f"output_blocks.{first + depth}.2"
    yield "mid_block.resnets.0", "middle_block.0"
    yield "mid_block.attentions.0", "middle_block.1"
    yield "mid_block.resnets.1", "middle_block.2"
