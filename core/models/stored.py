"""The networks of a model with their settings: moved, merged with LoRAs, and saved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Self, cast

import torch
from torch import nn

from t2i.core.devices import keep_freed_memory
from t2i.core.errors import UserError
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Networks
from t2i.core.io.json_files import write_json
from t2i.core.io.sealed import sealed
from t2i.core.io.tensors import save_tensors
from t2i.core.models.lora.base import Base
from t2i.core.models.lora.files import read_lora
from t2i.core.models.lora.merging import AppliedLora, MergedLoras
from t2i.core.models.lora.networks import LoraNetwork, LoraNetworks
from t2i.core.models.notebook import count_in_words, facts_table
from t2i.core.models.weights import saved_tensors
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig


class StoredModel:
    """The networks of a model with its settings and its sampler.

    Args:
        config: The settings of the run that the model comes from.
        generator: The network that makes images.
        text_encoder: The network that reads captions.
        helpers: Networks that only training needs (`ModelSpec.helpers`). A model that was loaded
            for sampling has none.

    Attributes:
        loras: The LoRAs that are merged into the weights (`Model.lora`).
        base: What the weights belong to of which only changes are saved. None: all are saved.
    """

    def __init__(
        self,
        config: RunConfig,
        generator: Generator,
        text_encoder: TextEncoder,
        helpers: Mapping[str, nn.Module] | None = None,
    ) -> None:
        self.config = config
        self.generator = generator
        self.text_encoder = text_encoder
        self.helpers = nn.ModuleDict(dict(helpers or {}))
        self.loras = MergedLoras()
        self.base: Base | None = None

    def to(self, device: torch.device | str) -> Self:
        """Move all networks to a device.

        Args:
            device: Such as "cuda" or "cpu".

        Returns:
            This model.
        """
        if torch.device(device).type == "cpu":
            keep_freed_memory()
        self.generator.to(device)
        self.text_encoder.to(device)
        self.helpers.to(device)
        return self

    def eval(self) -> Self:
        """Put the networks into evaluation mode: no dropout, and stored batch statistics.

        Returns:
            This model.
        """
        self.generator.eval()
        self.text_encoder.eval()
        return self

    def frozen(self) -> Self:
        """Make the model ready for use: evaluation mode, and no parameter asks for a gradient.

        Returns:
            This model.
        """
        self.generator.requires_grad_(False)
        self.text_encoder.requires_grad_(False)
        return self.eval()

    @property
    def networks(self) -> Networks:
        """The networks, as `Stage.trainer` receives them."""
        return Networks(self.generator, self.text_encoder, dict(self.helpers.items()))

    @property
    def parameter_count(self) -> int:
        """Number of parameters of the generator and the text encoder."""
        both = (*self.generator.parameters(), *self.text_encoder.parameters())
        return sum(parameter.numel() for parameter in both)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.generator.device

    def __repr__(self) -> str:
        return (
            f"Model({self.config.model} {self.config.preset}, {self.generator.image_size} px, "
            f"{count_in_words(self.parameter_count)} parameters, {self.config.sampler.name})"
        )

    def _repr_html_(self) -> str:
        size = self.generator.image_size
        return facts_table(
            {
                "model": f"{self.config.model}, preset {self.config.preset}",
                "family": self.generator.family,
                "images": f"{size} x {size} pixels",
                "parameters": count_in_words(self.parameter_count),
                "trained on": self.config.data.name,
                "text encoder": self.config.encoder.name,
                "sampler": self.config.sampler.name,
                "device": str(self.device),
            }
        )

    @property
    def lora_networks(self) -> LoraNetworks:
        """The networks that a LoRA can change, by the names that files have for them."""
        named = registry().models[self.config.model].networks
        if named is not None:
            return cast(LoraNetworks, import_object(named)(self))
        return {name: LoraNetwork(module) for name, module in self.parts()}

    def lora(self, file: str | Path, weight: float = 1.0) -> AppliedLora:
        """Merge a LoRA file into the weights: W + weight alpha / r B A. Several add up.

        Args:
            file: A .safetensors file in diffusers', kohya's or peft's layout, or a folder with one.
            weight: The factor of its change.

        Returns:
            The LoRA. Its `told` says how many keys of the file are used; `remove()` takes it out.

        Raises:
            UserError: It is no such file, no key of it fits, it was trained on another base, or the
                weight is not finite.
        """
        if not math.isfinite(weight):
            raise UserError(f"LoRA {file}: its weight is {weight}: give a number, such as 0.8")
        return self.loras.add(read_lora(Path(file), self.lora_networks, self.config.model), weight)

    def save(self, folder: Path) -> None:
        """Write a folder that `t2i.load` reads.

        It holds settings, weights, tokenizer files, and a manifest of checksums. Of a model with a
        base, only the weights that are not the base's are written, and where the base is.

        Args:
            folder: The new folder. It appears only when it is complete.
        """
        base = {} if self.base is None else {"base": self.base.document()}
        with sealed(folder) as place:
            write_json(place / "config.json", {"format": 1, "run": self.config.dump(), **base})
            for name, module in self.parts():
                save_tensors(place / f"{name}.safetensors", saved_tensors(module))
                (place / name).mkdir()
                module.save_assets(place / name)

    def parts(self) -> list[tuple[str, Generator | TextEncoder]]:
        """List the networks that are saved for sampling.

        Returns:
            Each with its name, which is also its file's.
        """
        return [("generator", self.generator), ("text_encoder", self.text_encoder)]
