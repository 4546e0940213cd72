"""The features `timm` and `dinov2`: the input of the classifier of a pretrained timm backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import hf_hub_download
from torch import Tensor

from t2i.core.errors import UserError, nearest
from t2i.core.interfaces.scoring import FeatureExtractor
from t2i.core.io.tensors import load_tensors
from t2i.core.models.weights import weights_hash
from t2i.plugins.common.images.resize import resized
from t2i.plugins.common.weights.hub import Wanted, obtained
from t2i.plugins.features.timm.config import Dinov2Config, TimmConfig

FILE = "model.safetensors"
FOLDER = f"a folder with {FILE}"
MODES = {"bicubic": "bicubic", "bilinear": "bilinear"}


class TimmFeatures(FeatureExtractor):
    """Pooled features of a backbone of timm, float32 (B, D).

    The backbone's own pooling is used (DINOv2: the class token after the final norm). Images are
    resized whole, antialiased, and normalised with the mean and standard deviation that the
    backbone was trained with.

    Args:
        config: Settings.
        title: Registry name of the extractor, for error messages.
        source: File, folder or hub name from which the weights are loaded.

    Attributes:
        mean: Mean of each colour channel, for images in [0, 1], (3, 1, 1).
        std: Standard deviation of each colour channel, (3, 1, 1).

    Raises:
        UserError: The weights cannot be found, or are those of another network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: TimmConfig, title: str, source: str) -> None:
        super().__init__()
        state = _state(config, title, source)
        self.network: Any = _network(config, title, state)
        described: Any = timm.data
        wants = described.resolve_model_data_config(self.network)
        side = config.image_size
        self.size: tuple[int, int] = (side, side) if side else tuple(wants["input_size"][-2:])
        self.mode: Any = MODES.get(wants["interpolation"], "bicubic")
        self.name = f"timm {config.model} at {self.size[0]}"
        self.weights_sha256 = weights_hash(self.network.state_dict())
        self.dim = int(getattr(self.network, "head_hidden_size", self.network.num_features))
        self.networks = tuple(dict.fromkeys([config.model, source, f"timm/{config.model}"]))
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(wants[name]).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network(
            (resized(images, self.size, self.mode) - self.mean) / self.std
        )
        return features


def _state(config: TimmConfig, title: str, source: str) -> dict[str, Tensor]:
    """Load the weights; a UserError says what to do if they cannot be found."""
    what = f"features '{title}'"
    if Path(source).is_file():
        return load_tensors(Path(source), what)

    def load(source: str, offline: bool) -> dict[str, Tensor]:
        folder = Path(source)
        if folder.is_dir():
            return load_tensors(folder / FILE, what)
        path = hf_hub_download(source, FILE, revision=config.revision, local_files_only=offline)
        return load_tensors(Path(path), what)

    remedy = f"set its weights to a .safetensors file or {FOLDER}"
    if config == Dinov2Config():
        remedy = f"'t2i fetch {title}', or {remedy}"
    return obtained(Wanted(what, "weights", source, config.revision, FOLDER, remedy), load)


def _network(config: TimmConfig, title: str, state: dict[str, Tensor]) -> Any:
    """Build the backbone without its classifier.

    The classifier is removed after loading, so that timm can load the published file strictly.
    """
    published: Any = timm.get_pretrained_cfg(config.model)
    sized: dict[str, Any] = (
        {"img_size": config.image_size} if config.image_size and published.fixed_input_size else {}
    )
    try:
        network: Any = timm.create_model(
            config.model,
            pretrained=True,
            pretrained_cfg_overlay={"state_dict": state, "source": ""},
            **sized,
        )
    except RuntimeError as error:
        reason = str(error).strip().replace("\n", " ")[:160]
        raise UserError(
            f"features '{title}': these are no weights of {config.model}: {reason}"
        ) from None
    network.reset_classifier(0)
    return network


def _source(config: TimmConfig, title: str) -> str:
    """Return the file, folder or hub name of the weights.

    Raises:
        UserError: timm does not know the model, or has no weights for it and none are set.
    """
    cfg = timm.get_pretrained_cfg(config.model) if timm.is_model(config.model) else None
    if cfg is None:
        known = timm.list_models(pretrained=True)
        raise UserError(
            f"features '{title}': timm has no model '{config.model}'{nearest(config.model, known)}"
        )
    if config.weights:
        return config.weights
    if not cfg.hf_hub_id:
        raise UserError(
            f"features '{title}': timm has no weights for '{config.model}': "
            "set its weights to a file"
        )
    hub = str(cfg.hf_hub_id)
    return hub if hub.count("/") and not hub.endswith("/") else f"{hub}{config.model}"


def build(config: TimmConfig) -> TimmFeatures:
    """Build the feature extractor `timm`.

    Args:
        config: Settings.

    Returns:
        The extractor.

    Raises:
        UserError: timm does not know the model, or the weights cannot be found or do not fit.
    """
    return TimmFeatures(config, "timm", _source(config, "timm"))


def dinov2(config: Dinov2Config) -> TimmFeatures:
    """Build the feature extractor `dinov2`.

    Args:
        config: Settings.

    Returns:
        The extractor.

    Raises:
        UserError: timm does not know the model, or the weights cannot be found or do not fit.
    """
    return TimmFeatures(config, "dinov2", _source(config, "dinov2"))
