"""Networks and whole pipelines in diffusers' layout: a folder for each part.

A folder holds config.json and safetensors. No other files are read, and no code is run.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import __version__ as version

from t2i.core.errors import UserError
from t2i.core.io.json_files import read_json, read_object, write_json
from t2i.plugins.common.weights.hub import Wanted, obtained
from t2i.plugins.common.weights.network_types import (
    check_sizes,
    check_types,
    shapes_in,
    shapes_saved,
)
from t2i.plugins.common.weights.variants import variant_of

WEIGHTS = "diffusion_pytorch_model"
FOLDER = f"a folder with config.json and {WEIGHTS}.safetensors"
INDEX = "model_index.json"
WHAT = {
    "unet": "U-Net", "transformer": "transformer", "vae": "autoencoder", "prior": "prior",
    "decoder": "decoder", "text_proj": "decoder's projections", "super_res_first": "upsampler",
    "super_res_last": "upsampler",
}  # fmt: skip
"""What errors call the networks of a pipeline, by the names of their parts."""


def pipeline_index(path: Path) -> Mapping[str, Any] | None:
    """Read model_index.json: the class of the pipeline, and (library, class) of each part.

    Args:
        path: Folder of the pipeline.

    Returns:
        The document. None if there is no such file, or it holds no JSON object.

    Raises:
        UserError: The file cannot be read, or is not JSON.
    """
    if not (path / INDEX).is_file():
        return None
    index = read_json(path / INDEX, f"folder {path}")
    return index if isinstance(index, dict) else None


def classes(index: Mapping[str, Any]) -> dict[str, str]:
    """Return the class of each part of a pipeline.

    Args:
        index: The content of model_index.json.

    Returns:
        Part -> class. Parts that are left out, (None, None), are not listed.
    """
    pairs = {
        name: value for name, value in index.items() if isinstance(value, list) and len(value) == 2
    }
    return {name: str(kind) for name, (_, kind) in pairs.items() if kind is not None}


def refuse_foreign_classes(index: Mapping[str, Any], folder: Path) -> None:
    """Check that all classes come from diffusers' own libraries, because others would be imported.

    Args:
        index: The content of model_index.json.
        folder: Folder of the pipeline, for errors.

    Raises:
        UserError: A part's class comes from another library.
    """
    for name, value in index.items():
        library = value[0] if isinstance(value, list) and value else None
        if library not in (None, "diffusers", "transformers", "stable_diffusion"):
            raise UserError(
                f"{folder / INDEX}: '{name}' needs code from {str(library)[:80]!r}; parts are "
                "diffusers' or transformers' own"
            )


def network_config(folder: Path, kind: type[Any]) -> dict[str, Any]:
    """Read the config.json of a network.

    Args:
        folder: Folder of the network.
        kind: Class of the network.

    Returns:
        The settings, with the class's defaults for those that the file leaves out.

    Raises:
        UserError: The file cannot be read, holds no JSON object, or has a setting of a wrong kind.
    """
    document = read_object(folder / "config.json", f"folder {folder}")
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    config = {**{each.name: each.default for each in parameters}, **document}
    check_types(config, folder / "config.json")
    return config


def refuse_settings(
    config: Mapping[str, Any], kind: type[Any], what: str, unread: Mapping[str, str]
) -> None:
    """Check that a network's configuration has no setting that would be ignored.

    Args:
        config: The configuration.
        kind: Class of the network in diffusers.
        what: What errors call the network.
        unread: Settings of the class that are not followed here -> what the network does with them.
            None and False are neutral.

    Raises:
        UserError: The configuration has one of `unread`, or a setting that the class does not know.
    """
    known = inspect.signature(kind.__init__).parameters
    for key, value in config.items():
        if value in (None, False) or key.startswith("_"):
            continue
        if key in unread:
            raise UserError(
                f"{what} {unread[key]} ({key} = {str(value)[:60]}), which no model here does"
            )
        if key not in known:
            raise UserError(
                f"{what} has the setting {key} = {str(value)[:60]}, which {kind.__name__} of "
                f"diffusers {version} does not know: a newer diffusers, or remove it"
            )


def part_of(folder: Path, name: str) -> Path:
    """Return the folder of a pipeline's part.

    Args:
        folder: Folder of the pipeline.
        name: Name of the part.

    Returns:
        The part's folder. Early pipelines of one network have none and keep all parts in the
        pipeline's folder.
    """
    return folder / name if (folder / name).is_dir() else folder


def described_network(
    kind: type[Any], name: str | None, part: str, assets: Path | None
) -> Any | None:
    """Load or build a network of diffusers that brings its own configuration.

    Args:
        kind: Class of the network.
        name: Folder or hub name of the pretrained network. None: the settings name none.
        part: Name of the part in a pipeline, one of `WHAT`.
        assets: Folder of a saved model, which describes the network; its weights are loaded later.
            None: a new model.

    Returns:
        The network. None if the settings name none, and on the meta device: there are no weights to
        load there, so that a network built from the settings does as well.

    Raises:
        UserError: The network cannot be loaded (see `load_network`).
    """
    if name is None:
        return None
    if assets is not None:
        return _described(kind, assets / part)
    # Before torch 2.8, torch.get_default_device() ignores `with torch.device(...)`.
    weightless = torch.empty(0).is_meta
    return None if weightless else load_network(kind, name, part)


def _described(kind: type[Any], folder: Path) -> Any:
    """Build the network that a saved model describes. It is no larger than the model's weights."""
    config = network_config(folder, kind)
    shapes = shapes_saved(folder)
    if shapes is not None:
        check_sizes(config, folder / "config.json", shapes)
    return kind.from_config(kind.load_config(folder))


def keep_description(network: Any, part: str, assets: Path) -> None:
    """Write the configuration that `described_network` reads.

    Args:
        network: A network of diffusers.
        part: Name of the part, one of `WHAT`.
        assets: Folder of the saved model.
    """
    network.save_config(assets / part)


def load_network(kind: type[Any], name: str, part: str) -> Any:
    """Load a network of diffusers with its weights, in float32.

    Args:
        kind: Class of the network.
        name: Hub name, or a folder: the network's own, or that of a pipeline.
        part: Name of the network in a pipeline, one of `WHAT`.

    Returns:
        The network, in evaluation mode.

    Raises:
        UserError: The network cannot be found, is incomplete, or is not in safetensors.
    """
    what = WHAT[part]
    setting = f"{'autoencoder' if part == 'vae' else part}.weights"

    def load(source: str, offline: bool) -> Any:
        folder = part_of(Path(source), part) if offline and Path(source).is_dir() else None
        variant = variant_of(folder, WEIGHTS) if folder else None
        if folder:
            check_sizes(network_config(folder, kind), folder / "config.json", shapes_in(folder))
        network, report = kind.from_pretrained(
            str(folder or source), variant=variant,
            local_files_only=offline, use_safetensors=True, torch_dtype=torch.float32,
            output_loading_info=True,
        )  # fmt: skip
        unfilled = [key for key, tensor in network.state_dict().items() if tensor.is_meta]
        lost = [*report["missing_keys"], *report["mismatched_keys"], *unfilled]
        if lost:
            first = sorted(map(str, lost))[0]
            raise UserError(
                f"{what}: {setting} = {source} holds no whole {kind.__name__}: {first} is missing "
                "or misfits"
            )
        return network.eval()

    return obtained(Wanted(what, setting, name, "main", FOLDER), load)


def save_network(network: Any, folder: Path) -> None:
    """Write a network of diffusers into a folder.

    Args:
        network: The network; its memory format becomes contiguous.
        folder: The folder.
    """
    # safetensors has no other memory format.
    network.to(memory_format=torch.contiguous_format).save_pretrained(folder)


def write_index(
    folder: Path, pipeline: str, parts: Mapping[str, tuple[str | None, str | None]], **more: Any
) -> None:
    """Write the model_index.json of a pipeline.

    Args:
        folder: Folder of the pipeline.
        pipeline: Class of the pipeline.
        parts: Part -> (library, class); (None, None) for a part that is left out.
        more: Further entries of the file.
    """
    listed = {name: list(pair) for name, pair in parts.items()}
    write_json(
        folder / INDEX,
        {"_class_name": pipeline, "_diffusers_version": version, **more, **listed},
    )


def write_scheduler(folder: Path, scheduler: Any, **more: Any) -> None:
    """Write a scheduler's configuration.

    Args:
        folder: Folder of the scheduler.
        scheduler: A scheduler of diffusers.
        more: Our own entries. Their names begin with "_", which diffusers ignores.
    """
    scheduler.save_pretrained(folder)
    path = folder / "scheduler_config.json"
    written = json.loads(path.read_text("utf-8"))
    # JSON has no infinite numbers. diffusers' classes have them by default, where they have any.
    kept = {key: value for key, value in written.items() if value not in (math.inf, -math.inf)}
    write_json(path, {**kept, **more})


def unet_settings(network: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """Describe a U-Net of diffusers as settings of `UNetConfig`.

    Args:
        network: The network's configuration.
        source: Where it is; it becomes the setting `weights`.

    Returns:
        The settings.
    """
    kinds = {"cross": "CrossAttn", "self": "Attn"}
    downs = [str(kind) for kind in network["down_block_types"]]
    attention = [
        next((name for name, word in kinds.items() if word in kind), "none") for kind in downs
    ]
    heads = network["attention_head_dim"]
    words = bool(network.get("cross_attention_dim")) and "cross" in attention
    middle = "cross" if words else "self" if network.get("add_attention", True) else "none"
    channels = tuple(network["block_out_channels"])
    width = heads if isinstance(heads, int) else None
    if words:
        width = None if isinstance(heads, int) else channels[0] // heads[0]
    return {
        "weights": str(source),
        "channels": channels,
        "layers": _first(network["layers_per_block"]),
        "attention": attention,
        "middle": middle,
        "head_width": width,
        "heads": heads if words and isinstance(heads, int) else None,
        "groups": network["norm_num_groups"] or 1,
        "dropout": network.get("dropout", 0.0),
    }


def square_size(network: Mapping[str, Any], source: Path) -> int:
    """Return the height and width of a U-Net's input.

    Args:
        network: The network's configuration.
        source: Where it is, for errors.

    Returns:
        The size, in pixels or latent pixels.

    Raises:
        UserError: The configuration has no size, or one that is not square.
    """
    size = network["sample_size"]
    sides = {size} if isinstance(size, int) else set(size or ())
    if len(sides) != 1:
        raise UserError(
            f"{source}: sample_size is {size}; images here are squares of one size: set it in "
            "config.json"
        )
    return int(sides.pop())


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, (list, tuple)) else value
