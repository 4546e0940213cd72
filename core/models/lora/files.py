"""LoRA files: reading one, and fitting it to a model."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.io.json_files import read_object
from t2i.core.io.tensors import load_tensors
from t2i.core.io.terminal import printable
from t2i.core.models.identify import LORA, identify, shapes_of
from t2i.core.models.lora.layouts import METADATA, Pair, pairs_of
from t2i.core.models.lora.networks import Layer, LoraNetworks, named_layers

IN_FOLDERS = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""Names of the file in a folder: diffusers' and peft's."""
KINDS = (
    ("FLUX", ("double_blocks", "single_transformer_blocks", "single_blocks")),
    ("Stable Diffusion 3", ("joint_blocks", "context_embedder", "attn.add_q_proj")),
    ("Stable Diffusion XL", ("lora_te2_", "text_encoder_2.", "input_blocks_4_1_transformer")),
    ("a U-Net such as Stable Diffusion's", ("down_blocks", "lora_unet_", "input_blocks")),
    ("a diffusion transformer", ("transformer.", "transformer_blocks")),
    ("CLIP's text encoder", ("lora_te_", "text_encoder.", "text_model")),
)  # fmt: skip
"""What a LoRA is for, by parts of its tensors' names; the first that fits is meant."""
SHOWN = 3
"""Names in a message."""


@dataclass(frozen=True)
class LoraFile:
    """A LoRA file that was fitted to a model.

    Args:
        path: The file.
        hash: SHA-256 of its bytes, the first 12 hexadecimal digits. In a folder of peft, those of
            its settings are hashed too.
        pairs: The changes that fit, each with its layer.
        unused: Names of the tensors that are not used.
        total: Number of tensors in the file.
    """

    path: Path
    hash: str
    pairs: tuple[tuple[Layer, Pair], ...]
    unused: tuple[str, ...]
    total: int

    @property
    def told(self) -> str:
        """What of it is used, in a sentence."""
        used = f"{self.total - len(self.unused)} of {self.total} keys used"
        more = ", ..." if len(self.unused) > SHOWN else ""
        left = f"; not used: {', '.join(self.unused[:SHOWN])}{more}" if self.unused else ""
        return printable(f"LoRA {self.path}: {used}{left}")


def parse_lora(text: str) -> tuple[Path, float]:
    """Read FILE or FILE:WEIGHT.

    Args:
        text: The text. A file whose name has a colon is taken as it is.

    Returns:
        The file and its weight, 1 if none is given.
    """
    file, colon, weight = text.rpartition(":")
    if not (colon and file) or Path(text).exists():
        return Path(text), 1.0
    try:
        return Path(file), float(weight)
    except ValueError:
        return Path(text), 1.0


def read_lora(path: Path, networks: LoraNetworks, model: str) -> LoraFile:
    """Read a LoRA file, and find the layers that it changes.

    Args:
        path: A .safetensors file in diffusers', kohya's or peft's layout, or a folder with one.
        networks: The networks of the model.
        model: Name of the model, for errors.

    Returns:
        The file.

    Raises:
        UserError: There is no such file, it is no LoRA, no key of it fits, it belongs to a network
            of other widths, or a change is not finite.
    """
    path = _file(path)
    if shapes_of(path) is None:
        raise UserError(printable(f"LoRA {path} is {identify(path).sentence}"))
    tensors = load_tensors(path, f"LoRA {path}")
    if not any(part in name for name in tensors for part in LORA):
        raise UserError(f"{path} is {identify(path).what}, not a LoRA")
    layers = named_layers(networks)
    found = [
        (layers[pair.layer], pair)
        for pair in pairs_of(tensors, _metadata(path))
        if pair.layer in layers
    ]
    used = {name for _, pair in found for name in pair.names}
    if not found:
        raise UserError(_refusal(path, tensors, networks, model))
    for layer, pair in found:
        _check(path, layer, pair, model)
    unused = tuple(name for name in tensors if name not in used)
    return LoraFile(path, _hash(path), tuple(found), unused, len(tensors))


def _file(path: Path) -> Path:
    """Return the LoRA file that a path means."""
    if not path.exists():
        raise UserError(f"LoRA {path}: no such file; give FILE or FILE:WEIGHT")
    if not path.is_dir():
        return path
    for name in IN_FOLDERS:
        if (path / name).is_file():
            return path / name
    raise UserError(f"LoRA {path}: the folder has no {' and no '.join(IN_FOLDERS)}: name the file")


def _settings(path: Path) -> Path | None:
    """Return the file of peft's settings that belongs to a file of weights, if there is one."""
    beside = path.with_name("adapter_config.json")
    return beside if path.name == IN_FOLDERS[1] and beside.is_file() else None


def _hash(path: Path) -> str:
    """Hash what decides the change."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    if beside := _settings(path):
        digest.update(beside.read_bytes())
    return digest.hexdigest()[:12]


def _metadata(path: Path) -> dict[str, str]:
    """Return the file's metadata, or the settings of peft's beside it, which name alpha."""
    from safetensors import safe_open

    if beside := _settings(path):
        return {METADATA: json.dumps(read_object(beside, f"LoRA {path}"))}
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def _refusal(
    path: Path, tensors: Mapping[str, Tensor], networks: LoraNetworks, model: str
) -> str:  # fmt: skip
    """Say that no key fits, and what the file looks like."""
    names = [*tensors]
    kind = next((kind for kind, parts in KINDS if any(p in n for n in names for p in parts)), None)
    looks = f"it looks like a LoRA for {kind}" if kind else "it is for an unknown network"
    first = printable(names[0][:100])
    return (
        f"LoRA {path}: none of its {len(names)} keys fits model '{model}', which has "
        f"{', '.join(networks)}: {looks} (its first key is {first})"
    )


def _check(path: Path, layer: Layer, pair: Pair, model: str) -> None:
    """Check that a change is finite, and has the size of the weights.

    A 1x1 kernel counts as a matrix.
    """
    numbers = (pair.scale, float(pair.down.float().abs().max()), float(pair.up.float().abs().max()))
    if not all(math.isfinite(number) for number in numbers):
        raise UserError(
            f"LoRA {path}: its change of {layer.name} is not finite: the file is damaged, or its "
            "training failed"
        )
    own = tuple(layer.weight.shape)
    if _squeezed(own) != _squeezed(pair.shape):
        raise UserError(
            f"LoRA {path}: it changes {layer.name} of shape {pair.shape}, and that of model "
            f"'{model}' is {own}: it was trained on another base"
        )


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:2] if all(side == 1 for side in shape[2:]) else shape
