"""Read and write networks and pipelines in diffusers' layout.

Each part of a pipeline has its own folder with config.json and safetensors. Only safetensors and
JSON are read; no code is run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from t2i.core.errors import UserError
from t2i.core.io.files import read_json, write_json
from t2i.plugins.common.weights.hub import Wanted, obtained
from t2i.plugins.common.weights.variants import variant_of

WEIGHTS = "diffusion_pytorch_model"
FOLDER = f"a folder with config.json and {WEIGHTS}.safetensors"
INDEX = "model_index.json"


def pipeline_index(path: Path) -> Mapping[str, Any] | None:
    """Read a pipeline's model_index.json.

    Args:
        path: Folder of the pipeline.

    Returns:
        The document: the class of the pipeline, and [library, class] of each part. None if there is
        no such file, or it holds no object.

    Raises:
        UserError: The file cannot be read.
    """
    if not (path / INDEX).is_file():
        return None
    index = read_json(path / INDEX, f"folder {path}")
    return index if isinstance(index, dict) else None


def classes(index: Mapping[str, Any]) -> dict[str, str]:
    """List the classes of a pipeline's parts.

    Args:
        index: The pipeline's model_index.json.

    Returns:
        Class name by part. Parts without a class are left out.
    """
    pairs = {
        name: value for name, value in index.items() if isinstance(value, list) and len(value) == 2
    }
    return {name: str(kind) for name, (_, kind) in pairs.items() if kind is not None}


def refuse_foreign_classes(index: Mapping[str, Any], folder: Path) -> None:
    """Refuse a pipeline with a part from another library than diffusers or transformers.

    That library would be imported, which runs its code.

    Args:
        index: The pipeline's model_index.json.
        folder: Folder of the pipeline, for messages.

    Raises:
        UserError: A part's class is from another library.
    """
    for name, value in index.items():
        library = value[0] if isinstance(value, list) and value else None
        if library not in (None, "diffusers", "transformers", "stable_diffusion"):
            raise UserError(
                f"{folder / INDEX}: '{name}' asks for code from {str(library)[:80]!r}; parts are "
                f"diffusers' or "
                "transformers' own"
            )


def part_of(folder: Path, name: str) -> Path:
    """Find the folder of a pipeline's part.

    Args:
        folder: Folder of the pipeline.
        name: Name of the part, such as "unet".

    Returns:
        The subfolder of that name. The folder itself if there is none: early pipelines of one
        network have all parts there.
    """
    return folder / name if (folder / name).is_dir() else folder


def described_network(
    kind: type[Any], name: str | None, part: str, assets: Path | None
) -> Any | None:
    """Build a pretrained network of diffusers from its own configuration.

    Args:
        kind: Class of the network.
        name: Folder or hub name of the pretrained network. None: the settings name none.
        part: Name of the part, "unet" or "vae".
        assets: Folder of a saved model; its weights are loaded later. None: a new model.

    Returns:
        The network: pretrained, or (with `assets`) still to be loaded. None if `name` is None, or
        for a new model on the meta device: no weights can be loaded there, and the network that the
        settings describe serves as well.

    Raises:
        UserError: The weights cannot be loaded.
    """
    if name is None:
        return None
    if assets is not None:
        return kind.from_config(kind.load_config(assets / part))
    # Before torch 2.8, torch.get_default_device() ignores `with torch.device(...)`.
    weightless = torch.empty(0).is_meta
    return None if weightless else load_network(kind, name, part)


def keep_description(network: Any, part: str, assets: Path) -> None:
    """Write the configuration that `described_network` reads from a saved model.

    Args:
        network: The network of diffusers.
        part: Name of the part, "unet" or "vae".
        assets: Folder of the saved model. The configuration goes into its subfolder `part`.
    """
    network.save_config(assets / part)


def load_network(kind: type[Any], name: str, part: str) -> Any:
    """Load a pretrained network of diffusers.

    Args:
        kind: Class of the network.
        name: A hub name, the network's own folder, or the folder of a pipeline that has it as
            `part`.
        part: Name of the part, "unet" or "vae".

    Returns:
        The network in float32 and evaluation mode.

    Raises:
        UserError: The weights cannot be loaded, are incomplete, or are not in safetensors.
    """
    what = {"unet": "U-Net", "vae": "autoencoder"}[part]
    setting = {"unet": "unet.weights", "vae": "autoencoder.weights"}[part]

    def load(source: str, offline: bool) -> Any:
        folder = part_of(Path(source), part) if offline and Path(source).is_dir() else None
        network, report = kind.from_pretrained(
            str(folder or source), variant=variant_of(folder, WEIGHTS) if folder else None,
            local_files_only=offline,
            use_safetensors=True, torch_dtype=torch.float32, output_loading_info=True,
        )  # fmt: skip
        if report["missing_keys"] or report["mismatched_keys"]:
            first = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))[0]
            raise UserError(
                f"{what}: {setting} = {source} holds no whole {kind.__name__}: {first} is missing "
                f"or misfits"
            )
        return network.eval()

    return obtained(Wanted(what, setting, name, "main", FOLDER), load)


def save_network(network: Any, folder: Path) -> None:
    """Write a network of diffusers, its configuration and its weights.

    Args:
        network: The network. It is converted to the contiguous memory format.
        folder: The folder to write to.
    """
    # safetensors supports no other memory format.
    network.to(memory_format=torch.contiguous_format).save_pretrained(folder)


def write_index(
    folder: Path, pipeline: str, parts: Mapping[str, tuple[str | None, str | None]], **more: Any
) -> None:
    """Write the model_index.json of a pipeline.

    Args:
        folder: Folder of the pipeline.
        pipeline: Class name of the pipeline.
        parts: (library, class) by part. (None, None) for a part that the pipeline does not have.
        **more: Further keys of the document.
    """
    from diffusers import __version__

    listed = {name: list(pair) for name, pair in parts.items()}
    write_json(
        folder / INDEX,
        {"_class_name": pipeline, "_diffusers_version": __version__, **more, **listed},
    )


def write_scheduler(folder: Path, scheduler: Any, **more: Any) -> None:
    """Write the configuration of a scheduler.

    Args:
        folder: Folder of the scheduler.
        scheduler: A scheduler of diffusers.
        **more: Further keys of the document. Their names begin with "_", so that diffusers ignores
            them.
    """
    scheduler.save_pretrained(folder)
    path = folder / "scheduler_config.json"
    write_json(path, {**json.loads(path.read_text("utf-8")), **more})


def unet_settings(network: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """Translate the configuration of a U-Net of diffusers into settings.

    Args:
        network: The U-Net's config.json.
        source: Folder of the U-Net, for the setting `weights`.

    Returns:
        Settings of a `UNetConfig`, by name.
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
    """Read the size of a U-Net's input.

    Args:
        network: The U-Net's config.json.
        source: Folder of the U-Net, for messages.

    Returns:
        Height and width of the input.

    Raises:
        UserError: The size is missing, or not square.
    """
    size = network["sample_size"]
    sides = {size} if isinstance(size, int) else set(size or ())
    if len(sides) != 1:
        raise UserError(
            f"{source}: sample_size is {size}; images here are squares of one size: set it in "
            f"config.json"
        )
    return int(sides.pop())


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, (list, tuple)) else value
