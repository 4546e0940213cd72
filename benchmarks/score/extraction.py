"""Features of images: extracted once for all metrics, and cached for reference sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from t2i.core.errors import UserError, nearest
from t2i.core.fetch.paths import cache_dir
from t2i.core.interfaces.dataset import Dataset
from t2i.core.interfaces.scoring import FeatureExtractor, ImageBatch, PairedExtractor
from t2i.core.io.sealed import intact, sealed
from t2i.core.io.tensors import load_tensors, save_tensors
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry

BATCH = 64  # images that go through a network at once

T = TypeVar("T")


class Extractors:
    """The feature extractors that some metrics name, each built once.

    Args:
        names: Registry names of extractors, with "/LAYER" for one of an extractor's layers.
        device: Where the networks run.
        settings: Settings of extractors by registry name. None: the defaults.
        compared: Those of `names` whose features of the reference images are needed. None: all.

    Raises:
        UserError: A name or layer is unknown, settings are invalid, or weights are missing.
    """

    def __init__(
        self,
        names: Iterable[str],
        device: torch.device | str,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        compared: Iterable[str] | None = None,
    ) -> None:
        self.names = sorted(set(names))
        self.compared = self.names if compared is None else sorted(set(compared))
        self.device = torch.device(device)
        self._networks: dict[str, FeatureExtractor] = {}
        for base in sorted({name.partition("/")[0] for name in self.names}):
            choice = registry().features.choose(base, (settings or {}).get(base, {}), "features")
            network: FeatureExtractor = import_object(registry().features[base].build)(
                choice.config
            )
            self._networks[base] = network.to(device).eval().requires_grad_(False)
        self._slices = {name: self._slice(name) for name in self.names}
        self._said: dict[tuple[str, str], Tensor] = {}

    def _slice(self, name: str) -> slice:
        """Return the part of an extractor's features that a name stands for."""
        base, _, layer = name.partition("/")
        layers = self._networks[base].layers
        if layer and layer not in layers:
            raise UserError(f"features '{base}' have no layer '{layer}'{nearest(layer, layers)}")
        return layers[layer] if layer else slice(None)

    @torch.inference_mode()
    def __call__(
        self, images: np.ndarray, names: Collection[str], captions: Sequence[str] = ()
    ) -> dict[str, Tensor]:
        """Extract features of images. Each network runs once.

        Args:
            images: The images, uint8 (B, H, W, 3).
            names: Names of the features, from those given to the constructor.
            captions: B captions, for networks that read an image together with its caption. Empty:
                there are none.

        Returns:
            The features by name, float32 (B, D) on the CPU.

        Raises:
            UserError: A network reads captions, and there are none.
        """
        bases = {name.partition("/")[0] for name in names}
        if not bases:
            return {}
        batch = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).contiguous()
        with exact(self.device):
            found = {base: self._seen(base, batch, captions).float().cpu() for base in bases}
        return {name: found[name.partition("/")[0]][:, self._slices[name]] for name in names}

    def _seen(self, base: str, images: Tensor, captions: Sequence[str]) -> Tensor:
        """Run one network on a batch."""
        network = self._networks[base]
        if isinstance(network, PairedExtractor) and len(captions) == len(images):
            return network.of_pairs(images, captions)
        features: Tensor = network(images)
        return features

    @torch.inference_mode()
    def of_text(self, captions: Sequence[str], names: Collection[str]) -> dict[str, Tensor]:
        """Extract features of captions. Each caption is read once, because all rows have the same.

        Args:
            captions: B captions.
            names: Names of the features, from those given to the constructor. Those that read
                images and captions together are left out.

        Returns:
            The features by name, float32 (B, D) on the CPU.

        Raises:
            UserError: An extractor reads no text.
        """
        networks = {name: self._networks[name.partition("/")[0]] for name in names}
        apart = [n for n, network in networks.items() if not isinstance(network, PairedExtractor)]
        for name in apart:
            new = [
                caption for caption in dict.fromkeys(captions) if (name, caption) not in self._said
            ]
            if new:
                with exact(self.device):
                    read = (
                        self._networks[name.partition("/")[0]]
                        .encode_text(new)
                        .float()
                        .cpu()[:, self._slices[name]]
                    )
                self._said |= {
                    (name, caption): vector for caption, vector in zip(new, read, strict=True)
                }
        return {
            name: torch.stack([self._said[name, caption] for caption in captions]) for name in apart
        }

    def width(self, name: str) -> int:
        """Return the number of features, of the layer if one is named.

        Args:
            name: Name of the features.

        Returns:
            The width D.
        """
        return len(range(self._networks[name.partition("/")[0]].dim)[self._slices[name]])

    def describe(self, name: str) -> dict[str, Any]:
        """Describe what scores with these features depend on.

        Args:
            name: Name of the features.

        Returns:
            Name, SHA-256 of the weights, width and, if one is named, layer of the extractor.
        """
        base, _, layer = name.partition("/")
        network = self._networks[base]
        described = {
            "name": network.name,
            "weights_sha256": network.weights_sha256,
            "dim": network.dim,
        }
        return {**described, "layer": layer} if layer else described

    def meant(self, name: str | None, texts: Iterable[str]) -> list[str]:
        """Find the texts that mean the network behind some features.

        Args:
            name: Name of the features. None: there is no network.
            texts: Texts from a model's settings: names or folders.

        Returns:
            The texts that mean that network.
        """
        network = self._networks[name.partition("/")[0]] if name else None
        return [text for text in texts if network is not None and network.is_named(text)]


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Compute in full single precision within the block: no half precision, and no TF32 on CUDA.

    Args:
        device: The device that computes.

    Yields:
        Nothing.
    """
    kept = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = kept


def fingerprint(document: Any) -> str:
    """Hash a document.

    Args:
        document: Anything that can be written as JSON. The order of keys does not matter.

    Returns:
        The SHA-256 in hexadecimal digits.
    """
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def batches(items: Iterable[T], size: int = BATCH) -> Iterator[list[T]]:
    """Group items into lists, as itertools.batched does from Python 3.12 on.

    Args:
        items: The items.
        size: Items in a list.

    Yields:
        Lists of `size` items; the last one may be shorter.
    """
    rest = iter(items)
    while held := list(islice(rest, size)):
        yield held


def rebatched(stream: Iterable[ImageBatch], size: int = BATCH) -> Iterator[ImageBatch]:
    """Regroup images into batches of one size.

    The last digits of an image's features depend on the size of its batch, so they must not depend
    on how the images were sampled.

    Args:
        stream: Batches of any size, without features.
        size: Images in a batch.

    Yields:
        The same images in order, in batches of `size`; the last one may be smaller.
    """
    held: list[ImageBatch] = []
    count = 0
    for images in stream:
        held.append(images)
        count += len(images.groups)
        while count >= size:
            whole = _joined(held)
            yield _part(whole, slice(0, size))
            held, count = [_part(whole, slice(size, None))], count - size
    if count:
        yield _joined(held)


def _joined(held: Sequence[ImageBatch]) -> ImageBatch:
    """Join batches; features are dropped if there are several."""
    if len(held) == 1:
        return held[0]
    return ImageBatch(
        np.concatenate([images.images for images in held]),
        tuple(caption for images in held for caption in images.captions),
        tuple(group for images in held for group in images.groups),
    )


def _part(images: ImageBatch, rows: slice) -> ImageBatch:
    return ImageBatch(images.images[rows], images.captions[rows], images.groups[rows])


def reference_features(
    data: Dataset, count: int, extractors: Extractors, names: Sequence[str] | None = None
) -> dict[str, Tensor]:
    """Get the features of reference images, from the cache if they are in it.

    The key of the cache is made of the data's version, the number of images and the description
    of the extractor. A damaged entry is replaced.

    Args:
        data: The data set.
        count: Number of images, the first ones of `data`.
        extractors: The extractors.
        names: Names of the features. None: those of `extractors.compared`.

    Returns:
        The features by name, float32 (`count`, D).
    """
    wanted = extractors.compared if names is None else names
    folders = {
        name: cache_dir()
        / "references"
        / fingerprint([data.version(), count, extractors.describe(name)])
        for name in wanted
    }
    found = {name: _cached(folder) for name, folder in folders.items()}
    known = {name: features for name, features in found.items() if features is not None}
    made: dict[str, list[Tensor]] = {name: [] for name in wanted if name not in known}
    if made:
        for batch in batches(data[index].image for index in range(count)):
            for name, features in extractors(np.stack(batch), list(made)).items():
                made[name].append(features)
    for name, parts in made.items():
        known[name] = torch.cat(parts)
        with sealed(folders[name]) as place:
            save_tensors(place / "features.safetensors", {"features": known[name]})
    return known


def _cached(folder: Path) -> Tensor | None:
    """Read features from the cache; None if they are missing or damaged."""
    if not intact(folder):
        return None
    try:
        features: Tensor = load_tensors(folder / "features.safetensors", "cache")["features"]
    except (UserError, KeyError):
        return None
    return features
