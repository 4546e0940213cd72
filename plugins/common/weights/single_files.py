"""Tensors of Stable Diffusion's single files: the parts, and what is missing of them.

diffusers converts such files. These functions read an autoencoder alone, and name what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils as converters
from huggingface_hub import snapshot_download
from safetensors.torch import load_file
from torch import Tensor

from t2i.core.errors import UserError, in_one_line
from t2i.core.models.identify import identify, shapes_of
from t2i.plugins.common.weights.diffusers_folders import load_network, network_config
from t2i.plugins.common.weights.network_types import check_sizes

UNET = "model.diffusion_model."
PREFIXES = {"vae": "first_stage_model.", "text": "cond_stage_model.", "unet": UNET}
"""Prefix of each part's tensors in a single file."""
CLIP = "cond_stage_model.transformer.text_model."
OPEN_CLIP = "cond_stage_model.model."
"""Prefixes of the tensors of the text encoders of Stable Diffusion 1.x and 2.x."""


def autoencoder(source: Any, config: Any) -> AutoencoderKL:
    """Load an autoencoder for a single file that has none, or instead of its own.

    Args:
        source: Folder of the autoencoder or of a pipeline that has one; or a safetensors file, with
            the tensors' names of diffusers or of Stable Diffusion's authors.
        config: Folder of a pipeline whose vae/config.json describes the file, if no config.json is
            beside it. None: Stable Diffusion's settings, with the sizes of the tensors.

    Returns:
        The autoencoder, in float32 and evaluation mode.

    Raises:
        UserError: `source` does not exist, is no autoencoder, or is not whole.
    """
    path = Path(str(source)).expanduser()
    if path.is_dir():
        folder = path / "vae" if (path / "vae").is_dir() else path
        whole: AutoencoderKL = load_network(AutoencoderKL, str(folder), "vae")
        return whole
    if not path.is_file():
        raise UserError(f"vae = {source}: no such file or folder")
    shapes = shapes_of(path)
    if shapes is None or not any("decoder." in name for name in shapes):
        raise UserError(f"vae = {source}: it is {identify(path).sentence}; give an autoencoder")
    state = load_file(path)
    described = _vae_folder(path, config)
    if described is not None:
        file = described / "config.json"
        check_sizes(network_config(described, AutoencoderKL), file, [*shapes.values()])
    prefix = PREFIXES["vae"] if any(n.startswith(PREFIXES["vae"]) for n in state) else ""
    state = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    theirs = not any("_blocks." in name for name in state)
    return _filled(str(source), state, _vae_config(path, config, state, theirs), theirs)


def _filled(
    source: str, state: Mapping[str, Tensor], config: Mapping[str, Any], theirs: bool
) -> AutoencoderKL:
    """Build an autoencoder and load its tensors. `theirs`: they have the authors' names."""
    try:
        vae: Any = AutoencoderKL.from_config(dict(config))
        converted = (
            converters.convert_ldm_vae_checkpoint(dict(state), vae.config) if theirs else state
        )
    except Exception as error:  # wrong sizes end in errors of any class
        raise UserError(
            f"vae = {source}: no AutoencoderKL can be made of it ({in_one_line(error)}); name a "
            "folder with its configuration by --set config=FOLDER"
        ) from None
    for name, tensor in vae.state_dict().items():
        if name not in converted or converted[name].squeeze().shape != tensor.squeeze().shape:
            named = _original(name, converted, state) if theirs else name
            raise UserError(f"vae = {source}: its tensor {named} is missing, or of another shape")
    vae.load_state_dict({name: converted[name].view_as(t) for name, t in vae.state_dict().items()})
    filled: AutoencoderKL = vae.float().eval()
    return filled


def _vae_config(
    path: Path, config: Any, state: Mapping[str, Tensor], theirs: bool
) -> Mapping[str, Any]:
    """Return the configuration of an autoencoder in a file."""
    described = _vae_folder(path, config)
    if described is not None:
        return network_config(described, AutoencoderKL)
    level, layer = ("encoder.down.", ".block.") if theirs else ("encoder.down_blocks.", ".resnets.")
    levels = layers = 0
    while f"{level}{levels}{layer}0.conv1.weight" in state:
        levels += 1
    while f"{level}0{layer}{layers}.conv1.weight" in state:
        layers += 1
    return {
        "block_out_channels": [
            len(state[f"{level}{i}{layer}0.conv1.weight"]) for i in range(levels)
        ],
        "layers_per_block": layers,
        "latent_channels": state["decoder.conv_in.weight"].shape[1]
        if "decoder.conv_in.weight" in state
        else 4,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }


def _vae_folder(path: Path, config: Any) -> Path | None:
    """Return the folder whose config.json describes an autoencoder in a file. None: none does."""
    beside = path.parent if (path.parent / "config.json").is_file() else None
    return beside or (Path(str(config)) / "vae" if config is not None else None)


def check_whole(path: Path, config: Any, with_vae: bool) -> None:
    """Check that a single file has all tensors of its U-Net and its autoencoder.

    diffusers' own errors do not name them.

    Args:
        path: The file.
        config: Folder of its configuration. None: the one in the hub's cache.
        with_vae: Whether the file's autoencoder is used.

    Raises:
        UserError: A tensor is missing, or of another shape than the configuration says.
    """
    state = load_file(path)
    for part, prefix in PREFIXES.items():
        if (part != "vae" or with_vae) and (lost := _half_there(state, prefix)):
            raise _not_whole(path, part, lost)
    folder = _config_folder(config, state)
    kinds: dict[str, tuple[type[Any], Any]] = {
        "unet": (UNet2DConditionModel, converters.convert_ldm_unet_checkpoint),
        "vae": (AutoencoderKL, converters.convert_ldm_vae_checkpoint),
    }
    for part, (kind, convert) in kinds.items():
        if folder is None or (part == "vae" and not with_vae):
            continue
        try:
            with torch.device("meta"):
                network = kind.from_config(network_config(folder / part, kind))
        except ValueError as error:
            raise UserError(
                f"{folder / part}: no {kind.__name__} can be built ({in_one_line(error)})"
            ) from None
        try:
            converted = convert(dict(state), network.config)
        except KeyError as error:
            raise _not_whole(path, part, PREFIXES[part] + str(error.args[0])) from None
        except Exception:  # then diffusers' own error is all that is known
            continue
        for name, tensor in network.state_dict().items():
            if name not in converted:
                raise _not_whole(path, part, _original(name, converted, state))
            if converted[name].squeeze().shape != tensor.squeeze().shape:
                raise UserError(
                    f"{path}: its tensor {_original(name, converted, state)} is "
                    f"{tuple(converted[name].shape)}, but {folder / part} describes "
                    f"{tuple(tensor.shape)}: name the folder of the same model with --set config="
                )


def _half_there(state: Mapping[str, Tensor], prefix: str) -> str | None:
    """Return the weight of a layer whose bias is there alone; None if there is no such layer."""
    for name in state:
        weight = name.removesuffix(".bias") + ".weight"
        if name.startswith(prefix) and name.endswith(".bias") and weight not in state:
            return weight
    return None


def check_text_encoder(path: Path, network: Any) -> None:
    """Check that diffusers found all tensors of a single file's text encoder.

    Args:
        path: The file.
        network: transformers' network. What was not in the file is on the meta device.

    Raises:
        UserError: A tensor is missing.
    """
    shapes = shapes_of(path) or {}
    opened = any(name.startswith(OPEN_CLIP) for name in shapes)
    mapping: Any = converters.DIFFUSERS_TO_LDM_MAPPING
    theirs = mapping["openclip"]["layers"]
    for name, tensor in network.state_dict().items():
        inner = name.removeprefix("text_model.")
        named = OPEN_CLIP + theirs.get(f"text_model.{inner}", inner) if opened else CLIP + inner
        if tensor.is_meta:
            raise _not_whole(path, "text", named)


def _not_whole(path: Path, part: str, name: str) -> UserError:
    title = {"unet": "U-Net", "vae": "autoencoder", "text": "text encoder"}[part]
    return UserError(
        f"{path} is not whole: its {title} has no tensor {name}; get the file again, or the whole "
        "checkpoint if this one was reduced"
    )


def _config_folder(config: Any, state: Mapping[str, Tensor]) -> Path | None:
    """Return the folder of a configuration; None if it is not on this machine."""
    if config is not None:
        return Path(str(config))
    with suppress(Exception):  # the hub raises errors of any class
        name = converters.fetch_diffusers_config(state)["pretrained_model_name_or_path"]
        return Path(snapshot_download(name, local_files_only=True, allow_patterns="*.json"))
    return None


def _original(missing: str, converted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Return the name in the file of a tensor that is missing, from those of its neighbours.

    Args:
        missing: diffusers' name of it.
        converted: The tensors that are there, by diffusers' names; they share memory with `state`.
        state: The tensors by their names in the file.

    Returns:
        The name; `missing` itself if no neighbour tells.
    """
    used = {tensor.data_ptr() for tensor in converted.values()}
    for name, tensor in state.items():  # what is not converted because its other half is missing
        start, _, end = name.rpartition(".")
        other = f"{start}.{'bias' if end == 'weight' else 'weight'}"
        conv = end == "weight" and ".conv." in name and tensor.data_ptr() not in used
        if conv and other not in state and missing.endswith((".conv.bias", ".conv.weight")):
            return other
    places = {tensor.data_ptr(): name for name, tensor in state.items() if tensor.numel()}
    pairs = {new: places[t.data_ptr()] for new, t in converted.items() if t.data_ptr() in places}
    parts = missing.split(".")
    for depth in range(1, len(parts)):  # the nearest neighbours first
        head, tail = ".".join(parts[:-depth]) + ".", ".".join(parts[-depth:])
        for new, old in pairs.items():
            end = new.removeprefix(head)
            if new.startswith(head) and old.endswith(end):
                return old.removesuffix(end) + tail
    return missing
