"""Load pretrained CLIP, or one of its encoders, from a folder, the hub's cache or the hub.

Only safetensors and JSON are read; no code is run.

Source: Radford et al. 2021.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from transformers import CLIPModel, CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from t2i.core.errors import UserError
from t2i.core.io.json_files import read_object
from t2i.plugins.common.weights.hub import Wanted
from t2i.plugins.common.weights.network_types import TextTypes, check_sizes, check_types
from t2i.plugins.common.weights.transformers_folders import load_network

Network = TypeVar("Network", CLIPModel, CLIPTextModelWithProjection, CLIPVisionModelWithProjection)

TITLES: Mapping[type, str] = {
    CLIPModel: "CLIP",
    CLIPTextModelWithProjection: "CLIP text encoder",
    CLIPVisionModelWithProjection: "CLIP for images",
}
"""Name of each network in errors."""


def load_clip(
    kind: type[Network],
    wanted: Wanted,
    *,
    optional: Collection[str] = (),
    advice: Mapping[str, str] | None = None,
) -> Network:
    """Load one of transformers' CLIP networks.

    Args:
        kind: Class of the network.
        wanted: Which weights to load, and how errors name them.
        optional: Names of tensors that may be missing.
        advice: Tensor name -> what to do if only that tensor is missing. None: no advice.

    Returns:
        The network, in the precision of its file.

    Raises:
        UserError: The weights cannot be loaded, are damaged or incomplete, or need code from the
            hub.
    """
    return load_network(
        kind, wanted, TITLES[kind], check_config, refuse=partial(_refuse_open_clip, wanted),
        optional=optional, advice=advice,
    )  # fmt: skip


def _refuse_open_clip(wanted: Wanted, folder: Path) -> None:
    """Raise UserError if a folder is in the layout of open_clip."""
    if (folder / "open_clip_config.json").is_file() and not any(folder.glob("model*.safe*")):
        raise UserError(
            f"{wanted.what}: {wanted.setting} = {folder}: it is a CLIP in the layout of "
            f"open_clip; {wanted.advice}, as transformers writes it"
        )


def check_config(folder: Path, shapes: Collection[tuple[int, ...]]) -> None:
    """Check the kinds of a CLIP's settings, and its size against its weights.

    Args:
        folder: Folder of its config.json.
        shapes: Shapes of the tensors that are there, the CLIP's among them.

    Raises:
        UserError: A setting is of a wrong kind, or more is described than there are weights for.
    """
    file = folder / "config.json"
    document = read_object(file, f"folder {folder}")
    halves = [document.get(key) for key in ("text_config", "vision_config")]
    for config in (document, *(half for half in halves if half is not None)):
        if not isinstance(config, Mapping):
            raise UserError(f"{file}: text_config and vision_config must be objects")
        check_types(config, file, TextTypes)
        check_sizes(config, file, shapes)


def split_attention(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split OpenAI's attention matrices (3 width, width) into the three of transformers.

    Args:
        state: Weights by name, of which `*.attn.in_proj_weight` and `*.attn.in_proj_bias` are
            split.

    Returns:
        The weights, with `*.self_attn.{q,k,v}_proj.{weight,bias}` in the place of those.
    """
    split: dict[str, Tensor] = {}
    for name, tensor in state.items():
        packed = re.fullmatch(r"(.*)\.attn\.in_proj_(weight|bias)", name)
        if not packed:
            split[name] = tensor
            continue
        for part, rows in zip("qkv", torch.tensor_split(tensor, 3), strict=True):
            split[f"{packed[1]}.self_attn.{part}_proj.{packed[2]}"] = rows
    return split
