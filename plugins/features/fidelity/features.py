"""The features `inception` and `vgg16`: torch-fidelity's own networks.

With them, scores agree with those of torch-fidelity's command. Its classes read their weights by
pickle, which could run code. So the file is first checked by a reader that runs nothing, and
`torch.load` is limited to plain tensors while the class reads the file again.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

from t2i.core.errors import UserError
from t2i.core.fetch.downloads import fetched
from t2i.core.interfaces.scoring import FeatureExtractor
from t2i.core.io.files import read_file
from t2i.core.io.processes import set_variable
from t2i.plugins.common.weights.legacy import read_legacy, state_dict
from t2i.plugins.features.fidelity.config import FidelityConfig, InceptionConfig
from t2i.plugins.features.fidelity.resizing import WAYS, Way

FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
# TensorFlow's graph of 2015 has 1008 logits, of which 1000 stand for classes.
POOL, CLASSES = (2048, 1008)


@dataclass(frozen=True)
class PublishedNetwork:
    """A network of torch-fidelity.

    Args:
        name: Its name in torch-fidelity.
        title: Its name in our registry.
        network: torch-fidelity's class.
        parts: Width of each feature that the class returns, by its name there, in order.
        layers: Our layers, as parts of the joined vector (`FeatureExtractor.layers`).
        file: Name of the published file of weights.
    """

    name: str
    title: str
    network: Callable[..., FeatureExtractorBase]
    parts: MappingProxyType[str, int]
    layers: MappingProxyType[str, slice]
    file: str


INCEPTION = PublishedNetwork(
    "inception-v3-compat", "inception", FeatureExtractorInceptionV3,
    MappingProxyType({"2048": POOL, "logits_unbiased": CLASSES}),
    MappingProxyType({"pool": slice(0, POOL), "logits": slice(POOL, POOL + CLASSES)}),
    "weights-inception-2015-12-05-6726825d.pth",
)  # fmt: skip
VGG16 = PublishedNetwork(
    "vgg16", "vgg16", FeatureExtractorVGG16,
    MappingProxyType({"fc2_relu": 4096}), MappingProxyType({}), "vgg16-397923af.pth",
)  # fmt: skip

TRUNK = (
    "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1",
    "Conv2d_4a_3x3", "MaxPool_2", "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b",
    "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c", "AvgPool",
)  # fmt: skip
"""The layers of Inception from its input to the pooled features, by torch-fidelity's names."""


class FidelityFeatures(FeatureExtractor):
    """Features of a network of torch-fidelity.

    `inception` gives float32 (B, 2048 + 1008): the pooled features, then the logits without bias.
    `vgg16` gives float32 (B, 4096).

    Images are resized inside, to 299 or 224, bilinearly as in TensorFlow 1, without antialiasing.
    That is part of the definition of FID. So these networks are given images at the benchmark's own
    size, never larger images that were shrunk in another way first.

    Args:
        published: The network.
        path: The file of weights.

    Raises:
        UserError: The file cannot be read, or holds other weights.
    """

    def __init__(self, published: PublishedNetwork, path: Path) -> None:
        super().__init__()
        weights = _checked(published, path)
        self.name, self.weights_sha256 = published.name, hashlib.sha256(weights).hexdigest()
        self.dim, self.layers = sum(published.parts.values()), published.layers
        try:
            with plain_weights():
                self.network: Any = published.network(
                    published.name,
                    list(published.parts),
                    feature_extractor_weights_path=io.BytesIO(weights),
                )
        except Exception as error:  # load_state_dict raises for other names or shapes
            raise _unfit(
                published, path, str(error).strip().partition("\n")[2].strip()[:120]
            ) from None

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat(self.network(images), 1)


class ResizedInception(FidelityFeatures):
    """Features of `inception` on images that are resized as another program does it.

    torch-fidelity's class takes bytes and resizes them itself, so its layers are called here.

    Args:
        path: The file of weights.
        program: Name of the program.
        way: Resizes images, uint8 (B, 3, H, W), to float (B, 3, 299, 299) about from -1 to 1.

    Raises:
        UserError: The file cannot be read, or holds other weights.
    """

    def __init__(self, path: Path, program: str, way: Way) -> None:
        super().__init__(INCEPTION, path)
        self.name = f"{INCEPTION.name}, resized as {program}"
        self.way = way

    def forward(self, images: Tensor) -> Tensor:
        x = self.way(images)
        for layer in TRUNK:
            x = getattr(self.network, layer)(x)
        pool = x.flatten(1)
        return torch.cat([pool, pool.mm(self.network.fc.weight.T)], 1)


def _checked(published: PublishedNetwork, path: Path) -> bytes:
    """Return the bytes of a file, if it holds plain tensors as PyTorch saves them.

    Raises:
        UserError: The file cannot be read, or is anything else.
    """
    try:
        weights = read_file(path, f"features '{published.title}'")
    except OSError as error:
        raise UserError(
            f"features '{published.title}': weights {path}: {error.strerror}; "
            f"'t2i fetch {published.title}' gets {published.file}"
        ) from None
    if weights[8:9] == b"{":
        raise _unfit(published, path, "safetensors, which torch-fidelity does not read")
    state_dict(read_legacy(path), str(path))
    return weights


@contextmanager
def plain_weights() -> Iterator[None]:
    """Limit `torch.load` to plain tensors inside the block, whatever its caller passes.

    It sets an environment variable of PyTorch and restores it afterwards.

    Yields:
        Nothing.
    """
    with set_variable(FORCE, "1"):
        yield


def _unfit(published: PublishedNetwork, path: Path, why: str) -> UserError:
    """Make the error for a file that holds other weights."""
    return UserError(
        f"features '{published.title}': weights {path} are not those of {published.name} ({why}); "
        f"'t2i fetch {published.title}' gets {published.file}"
    )


def _path(published: PublishedNetwork, config: FidelityConfig) -> Path:
    """Return the file that the settings name, or the download of `t2i fetch`."""
    if config.weights:
        return Path(config.weights).expanduser()
    return fetched(published.title, published.file)


def inception(config: InceptionConfig) -> FidelityFeatures:
    """Build the feature extractor `inception`.

    Args:
        config: Settings.

    Returns:
        The extractor.

    Raises:
        UserError: The weights are not there, or are other weights.
    """
    path, program = _path(INCEPTION, config), config.resize
    if program in WAYS:
        return ResizedInception(path, program, WAYS[program])
    return FidelityFeatures(INCEPTION, path)


def vgg16(config: FidelityConfig) -> FidelityFeatures:
    """Build the feature extractor `vgg16`.

    Args:
        config: Settings.

    Returns:
        The extractor.

    Raises:
        UserError: The weights are not there, or are other weights.
    """
    return FidelityFeatures(VGG16, _path(VGG16, config))
