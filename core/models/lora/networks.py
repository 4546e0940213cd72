"""The networks of a model that a LoRA can change, and the names of their layers in files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

KOHYA = {
    "unet": "lora_unet",
    "transformer": "lora_transformer",
    "text_encoder": "lora_te",
    "text_encoder_2": "lora_te2",
    "text_encoder_3": "lora_te3",
}
"""What kohya's names begin with, by the names of diffusers' pipelines. Other networks have "lora_"
before their names. That of transformers is OneTrainer's: kohya's own scripts divide them into other
layers."""
FIRST_OF_SEVERAL = "lora_te1"
"""What kohya's names of the first text encoder begin with if there are several."""
INNER = "text_model."
"""Beginning of the names of CLIP's layers, which some files leave out."""


@dataclass(frozen=True)
class LoraNetwork:
    """A network that a LoRA can change.

    Args:
        module: The network.
        aliases: Other projects' names of its layers, by name in `module`.
    """

    module: nn.Module
    aliases: Mapping[str, str] = field(default_factory=dict)

    def layers(self) -> dict[str, nn.Module]:
        """List the layers that a LoRA can change: those with a matrix or a kernel of weights.

        Returns:
            The layers by name.
        """
        kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
        return {
            name: layer for name, layer in self.module.named_modules() if isinstance(layer, kinds)
        }


LoraNetworks = Mapping[str, LoraNetwork]
"""Networks by name. The names are those of diffusers' pipelines where there is such a pipeline."""


@dataclass(frozen=True)
class Layer:
    """A layer that a name in a file stands for.

    Args:
        name: Full name, "NETWORK.NAME".
        weight: Its weights, (outputs, inputs, ...).
    """

    name: str
    weight: Tensor


def kohya_prefix(network: str, networks: LoraNetworks) -> str:
    """Return what kohya's names of a network's layers begin with.

    Args:
        network: Name of the network.
        networks: All networks of the model.

    Returns:
        Such as "lora_unet".
    """
    if network == "text_encoder" and "text_encoder_2" in networks:
        return FIRST_OF_SEVERAL
    return KOHYA.get(network, f"lora_{network}")


def named_layers(networks: LoraNetworks) -> dict[str, Layer]:
    """List the layers by each name that a file may have for them.

    Args:
        networks: The networks of the model.

    Returns:
        The layers by name. Of two layers with one name, the first is meant.
    """
    named: dict[str, Layer] = {}
    for network, one in networks.items():
        for name, layer in one.layers().items():
            weight = layer.weight
            assert isinstance(weight, Tensor)
            for spelt in _spellings(network, name, one, networks):
                named.setdefault(spelt, Layer(f"{network}.{name}", weight))
    return named


def _spellings(
    network: str, name: str, one: LoraNetwork, networks: LoraNetworks
) -> Iterator[str]:  # fmt: skip
    prefix, unet = kohya_prefix(network, networks), KOHYA["unet"]
    names = [name, name.removeprefix(INNER), *([one.aliases[name]] if name in one.aliases else [])]
    for own in names:
        yield f"{network}.{own}"
        yield f"{prefix}_{own.replace('.', '_')}"
        yield f"base_model.model.{own}"  # peft's own files, of one network
        if network in ("unet", "transformer"):
            yield own  # the oldest files, of the U-Net alone
            yield f"{unet}_{own.replace('.', '_')}"
    if prefix == FIRST_OF_SEVERAL:
        yield f"{KOHYA['text_encoder']}_{name.replace('.', '_')}"
