"""Settings of the feature extractors `inception` and `vgg16`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from t2i.core.settings import Config


class FidelityConfig(Config):
    """Settings of the features `inception` and `vgg16`."""

    weights: str | None = Field(None, min_length=1)
    """Path of the weights, in the file that their authors published.

    None: the file that `t2i fetch` has downloaded.
    """


class InceptionConfig(FidelityConfig):
    """Settings of the features `inception`."""

    resize: Literal["torch-fidelity", "clean-fid", "pytorch-fid"] = "torch-fidelity"
    """Program whose way to resize images to 299 pixels is used.

    torch-fidelity: bilinear as in TensorFlow 1, the FID of most papers. clean-fid: bicubic with
    antialiasing, in floating point (its mode "clean"). pytorch-fid: bilinear without antialiasing,
    as PyTorch interpolates (also clean-fid's mode "legacy_pytorch").
    """
