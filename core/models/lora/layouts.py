"""The layouts of LoRA files: which tensors are the two factors of a change, and of which layer.

diffusers    unet.down_blocks.0...to_q.lora_A.weight, .lora_B.weight (or .lora.down, .lora.up)
older        ...attn1.processor.to_q_lora.down.weight; ...q_proj.lora_linear_layer.down.weight
kohya        lora_unet_down_blocks_0..._to_q.lora_down.weight, .lora_up.weight, .alpha

Sources: diffusers (loaders, utils/state_dict_utils.py) and kohya-ss/sd-scripts (networks/lora.py).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

FACTOR = re.compile(
    r"(?P<layer>.+?)"
    r"(?:\.lora_(?P<a>[AB])(?:\.[^.]+)?|\.lora_(?P<b>down|up)|\.lora\.(?P<c>down|up)"
    r"|\.lora_linear_layer\.(?P<d>down|up)|_lora\.(?P<e>down|up))\.weight"
)
"""Name of a factor. A and down are applied first, B and up second."""
ALPHA = ".alpha"
OLD = {"to_out": "to_out.0"}
"""Layers whose names in old files of a U-Net differ: `to_out_lora` stands for `to_out.0`."""
OLD_TEXT = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
"""The same for old files of a text encoder."""
METADATA = "lora_adapter_metadata"
"""Entry of a file's metadata in which diffusers keeps peft's settings, as JSON. Their names begin
with the network's. Those of peft's own folders do not."""
PEFT = "base_model.model."
"""What peft's names of layers begin with in files of its own."""


@dataclass(frozen=True)
class Pair:
    """The change of one layer, alpha / r B A.

    Args:
        layer: Name of the layer, as the file has it but for spellings of old files.
        down: A, float (r, ...): inputs of the layer to r numbers.
        up: B, float (outputs, r, ...).
        alpha: The constant alpha. None: r, so that the factor is 1.
        names: Names of its tensors in the file.
    """

    layer: str
    down: Tensor
    up: Tensor
    alpha: float | None
    names: tuple[str, ...]

    @property
    def rank(self) -> int:
        """The rank r."""
        return len(self.down)

    @property
    def scale(self) -> float:
        """The factor alpha / r."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weights that it changes, (outputs, inputs, ...)."""
        return (len(self.up), *self.down.shape[1:])

    def change(self) -> Tensor:
        """Compute the change of the weights.

        Returns:
            alpha / r B A, float32, in the shape `shape`.
        """
        product = self.up.float().flatten(1) @ self.down.float().flatten(1)
        return self.scale * product.view(self.shape)


def pairs_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> list[Pair]:
    """Find the changes in a file.

    Tensors that belong to no whole pair are left out, and so is every layer with further tensors
    (`dora_scale`, `lora_mid`), whose change would be another one.

    Args:
        tensors: All tensors of the file, by name.
        metadata: The file's metadata.

    Returns:
        The pairs, in the order of the file.
    """
    found: dict[str, dict[str, str]] = {}
    for name in tensors:
        if match := FACTOR.fullmatch(name):
            kind = next(kind for key, kind in match.groupdict().items() if key != "layer" and kind)
            found.setdefault(match["layer"], {})["up" if kind in ("up", "B") else "down"] = name
    alphas = {name.removesuffix(ALPHA): name for name in tensors if name.endswith(ALPHA)}
    known = {name for own in found.values() for name in own.values()} | set(alphas.values())
    changed = {layer for name in tensors if name not in known for layer in _owners(name)}
    pairs = []
    for raw, names in found.items():
        if len(names) < 2 or raw in changed or not _fit(tensors, names):
            continue
        down, up = tensors[names["down"]], tensors[names["up"]]
        layer = _layer(raw, names["down"])
        if raw not in alphas:
            alpha = _told_alpha(metadata, layer, len(down))
        elif tensors[alphas[raw]].numel() == 1:
            alpha = float(tensors[alphas[raw]])
        else:
            continue
        own = (names["down"], names["up"], *([alphas[raw]] if raw in alphas else []))
        pairs.append(Pair(layer, down, up, alpha, own))
    return pairs


def _owners(name: str) -> list[str]:
    """Return the names of the layers that a tensor may belong to: all beginnings of its name."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _fit(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> bool:
    """Whether two factors can be multiplied: the second has r inputs, at one position."""
    down, up = tensors[names["down"]], tensors[names["up"]]
    whole = down.numel() and up.numel() and down.dim() > 1 and up.dim() > 1
    return bool(whole) and up[0].numel() == len(down) == up.shape[1]


def _layer(raw: str, name: str) -> str:
    """Return the present name of a layer that an old file spells in another way."""
    layer = raw.replace(".processor.", ".")
    if not name.startswith(f"{raw}_lora."):
        return layer
    place, _, last = layer.rpartition(".")
    spelt = OLD_TEXT if place.endswith("self_attn") else OLD
    return f"{place}.{spelt.get(last, last)}"


def _told_alpha(metadata: Mapping[str, str], layer: str, rank: int) -> float | None:
    """Return the alpha that peft's settings in the metadata name for a layer, if they do.

    Where they ask for the factor alpha / sqrt(r) (`use_rslora`, Kalajdzievski 2023), it is the one
    with which alpha / r is that factor.
    """
    try:
        told = json.loads(metadata.get(METADATA, "{}"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    part, _, rest = layer.partition(".")
    before = "" if layer.startswith(PEFT) else f"{part}."
    patterns, alpha = told.get(f"{before}alpha_pattern"), told.get(f"{before}lora_alpha")
    for pattern, own in (patterns if isinstance(patterns, dict) else {}).items():
        if rest == pattern or rest.endswith(f".{pattern}"):
            alpha = own
    if not isinstance(alpha, int | float):
        return None
    return alpha * math.sqrt(rank) if told.get(f"{before}use_rslora") else float(alpha)
