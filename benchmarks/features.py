"""Features of pictures: one extraction for all metrics that read them, and a cache for those of reference sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from t2i.core.data import Dataset
from t2i.core.errors import UserError, nearest
from t2i.core.files import load_tensors, save_tensors, sealed, settle, verify
from t2i.core.paths import cache_dir
from t2i.core.registry import registry
from t2i.core.runs import chosen
from t2i.core.scoring import FeatureExtractor
from t2i.core.specs import resolve

BATCH = 64  # pictures at once

T = TypeVar("T")


class Extractors:
    """The feature extractors that some metrics name, each built once.

    names: registry names, with "/layer" where a metric reads one of several. settings: of those that need some.
    """

    def __init__(
        self, names: Iterable[str], device: torch.device | str, settings: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        self.names = sorted(set(names))
        self.device = device
        self._networks: dict[str, FeatureExtractor] = {}
        for base in sorted({name.partition("/")[0] for name in self.names}):
            choice = chosen(registry().features, base, (settings or {}).get(base, {}), "features")
            network: FeatureExtractor = resolve(registry().features[base].build)(choice.config)
            self._networks[base] = network.to(device).eval().requires_grad_(False)
        self._slices = {name: self._slice(name) for name in self.names}

    def _slice(self, name: str) -> slice:
        base, _, layer = name.partition("/")
        layers = self._networks[base].layers
        if layer and layer not in layers:
            raise UserError(f"features '{base}' have no layer '{layer}'{nearest(layer, layers)}")
        return layers[layer] if layer else slice(None)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray, names: Collection[str]) -> dict[str, Tensor]:
        """Features (B, D) on the processor, by name, of uint8 pictures (B, H, W, 3). Each network runs once."""
        pictures = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).contiguous()
        bases = {name.partition("/")[0] for name in names}
        found = {base: self._networks[base](pictures).float().cpu() for base in bases}
        return {name: found[name.partition("/")[0]][:, self._slices[name]] for name in names}

    def describe(self, name: str) -> dict[str, Any]:
        """What a score made with these features depends on."""
        base, _, layer = name.partition("/")
        network = self._networks[base]
        described = {"name": network.name, "weights_sha256": network.weights_sha256, "dim": network.dim}
        return {**described, "layer": layer} if layer else described


def fingerprint(document: Any) -> str:
    """SHA-256 of a JSON document."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def batches(items: Iterable[T], size: int = BATCH) -> Iterator[list[T]]:
    """Items in lists of `size`, the last one shorter. (itertools.batched needs Python 3.12.)"""
    rest = iter(items)
    while held := list(islice(rest, size)):
        yield held


def reference_features(data: Dataset, count: int, extractors: Extractors) -> dict[str, Tensor]:
    """Features of the first `count` pictures of a data set, by name: from the cache where they have been made before.

    The cache is keyed by the data's fingerprint and the extractor's weights; a damaged entry is made anew.
    """
    folders = {
        name: cache_dir() / "references" / fingerprint([data.fingerprint(), count, extractors.describe(name)])
        for name in extractors.names
    }
    known = {name: _cached(folder) for name, folder in folders.items()}
    if any(features is None for features in known.values()):
        made: dict[str, list[Tensor]] = {name: [] for name in extractors.names}
        for batch in batches(data[index].image for index in range(count)):
            for name, features in extractors(np.stack(batch), extractors.names).items():
                made[name].append(features)
        known = {name: torch.cat(parts) for name, parts in made.items()}
        for name, folder in folders.items():
            with sealed(folder) as place:
                save_tensors(place / "features.safetensors", {"features": known[name]})
    return {name: features for name, features in known.items() if features is not None}


def _cached(folder: Path) -> Tensor | None:
    settle(folder)
    if not folder.is_dir():
        return None
    try:
        verify(folder, "cache")
        features: Tensor = load_tensors(folder / "features.safetensors", "cache")["features"]
    except (UserError, KeyError):
        return None
    return features
