"""Writing the adapters of a run as a LoRA file, in diffusers' or kohya's layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.io.files import temporary_beside
from t2i.core.io.folders import arriving, check_free
from t2i.core.io.tensors import load_tensors, save_tensors
from t2i.core.models.building import build
from t2i.core.models.loading import base_of, config_of
from t2i.core.models.locating import Located
from t2i.core.models.lora.files import IN_FOLDERS
from t2i.core.models.lora.layouts import Pair, pairs_of
from t2i.core.models.lora.networks import KOHYA, LoraNetworks, kohya_prefix
from t2i.core.models.model import Model

ENDING = ".safetensors"


def export_lora(place: Located, out: Path, layout: str = "diffusers") -> Path:
    """Write the adapters of a run as a LoRA file. The base is not needed, and not loaded.

    Args:
        place: The run.
        out: A new file whose name ends in .safetensors, or a new folder for diffusers' name.
        layout: "diffusers" or "kohya".

    Returns:
        The file.

    Raises:
        UserError: The run has trained no adapters, or kohya has no names for its networks.
    """
    folder = place.model_folder
    if folder is None or base_of(folder / "config.json") is None:
        raise UserError(
            f"{place.name} has no adapters: 't2i train --from FOLDER --lora RANK' trains some; "
            "leave out --lora to export a whole model"
        )
    model = build(config_of(place), folder, helpers=False)
    tensors = dict(_named(model, folder, layout))
    check_free(out)
    if out.suffix == ENDING:
        temporary = temporary_beside(out)
        save_tensors(temporary, tensors)
        temporary.rename(out)
        return out
    with arriving(out) as arrived:
        save_tensors(arrived / IN_FOLDERS[0], tensors)
    return out / IN_FOLDERS[0]


def _named(model: Model, folder: Path, layout: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a run's adapters under the names of a layout."""
    networks, alpha = model.lora_networks, model.config.settings.lora.alpha
    if layout == "kohya" and not networks.keys() <= KOHYA.keys():
        raise UserError(
            f"kohya's layout has no names for the networks of model '{model.config.model}' "
            f"({', '.join(networks)}): leave out --layout"
        )
    for part, places in _places(model, networks).items():
        adapters = load_tensors(folder / f"{part}{ENDING}", f"model {folder}")
        for pair in pairs_of(adapters, {}):
            network, name = _place(pair.layer, places)
            own = pair.scale if alpha is None else alpha / pair.rank
            if layout == "diffusers":
                yield f"{network}.{name}.lora_A.weight", pair.down
                yield f"{network}.{name}.lora_B.weight", pair.up * own
            else:
                name = networks[network].aliases.get(name, name) if _is_xl(networks) else name
                yield from _kohya(f"{kohya_prefix(network, networks)}_{name}", pair, own)


def _kohya(name: str, pair: Pair, scale: float) -> Iterator[tuple[str, Tensor]]:
    spelt = name.replace(".", "_")
    yield f"{spelt}.lora_down.weight", pair.down
    yield f"{spelt}.lora_up.weight", pair.up
    yield f"{spelt}.alpha", torch.tensor(scale * pair.rank)


def _is_xl(networks: LoraNetworks) -> bool:
    """Whether kohya's scripts name the layers of the U-Net as its authors did."""
    return "unet" in networks and "text_encoder_2" in networks


def _places(model: Model, networks: LoraNetworks) -> dict[str, dict[str, str]]:
    """Find where the networks are: for each part of the model, their names by their prefixes."""
    found: dict[str, dict[str, str]] = {}
    for part, module in model.parts():
        prefixes = {id(inner): name for name, inner in module.named_modules()}
        found[part] = {
            f"{prefixes[id(one.module)]}.".removeprefix("."): network
            for network, one in networks.items()
            if id(one.module) in prefixes
        }
    return found


def _place(layer: str, places: dict[str, str]) -> tuple[str, str]:
    """Return the network that a layer of a part belongs to, and its name there."""
    for prefix, network in places.items():
        if layer.startswith(prefix):
            return network, layer.removeprefix(prefix)
    raise UserError(
        f"the adapter of {layer} is in none of the networks that LoRA files name "
        f"({', '.join(places.values())}): export the whole model, without --lora"
    )
