"""The frozen features that ship with the package."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from t2i.core.errors import T2IError
from t2i.plugins.datasets.shapes import features
from t2i.plugins.datasets.shapes.config import FeaturesConfig, ShapesConfig
from t2i.plugins.datasets.shapes.dataset import Shapes


def make_images(split: str, count: int, size: int = 32) -> torch.Tensor:
    data = Shapes(ShapesConfig(image_size=size), split)
    return torch.from_numpy(np.stack([data[n].image for n in range(count)])).permute(0, 3, 1, 2)


def frechet(a: torch.Tensor, b: torch.Tensor) -> float:
    """Squared Frechet distance of two sets of features, their covariances taken as diagonal."""
    means, spreads = a.mean(0) - b.mean(0), a.std(0) - b.std(0)
    return float((means**2 + spreads**2).sum())


def test_the_weights_are_small_and_the_ones_named() -> None:
    data = features.WEIGHTS.read_bytes()
    assert len(data) <= 1_000_000
    assert hashlib.sha256(data).hexdigest() == features.WEIGHTS_SHA256


def test_features_are_a_frozen_function_of_the_image() -> None:
    network = features.build(FeaturesConfig())
    images = make_images("val", 8)
    found = network(images)
    assert found.shape == (8, network.dim)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert torch.allclose(found[:3], network(images[:3]), atol=1e-4)


def test_larger_images_have_nearly_the_same_features() -> None:
    network = features.load()
    small, large = network(make_images("val", 50)), network(make_images("val", 50, 64))
    assert float((small - large).square().mean()) < 0.1 * float(
        (small - small.roll(1, 0)).square().mean()
    )


def test_the_distance_grows_with_what_is_wrong() -> None:
    network = features.load()
    reference = network(make_images("train", 600))
    images = make_images("val", 600)
    same = frechet(reference, network(images))
    dark = frechet(reference, network((images * 0.6).to(torch.uint8)))
    collapsed = frechet(reference, network(images[:4].repeat(150, 1, 1, 1)))
    noise = frechet(reference, network(torch.randint(0, 256, images.shape, dtype=torch.uint8)))
    assert same < 0.2 * min(dark, collapsed)
    assert max(dark, collapsed) < noise


def test_changed_or_missing_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tmp_path / "features.safetensors"
    changed.write_bytes(features.WEIGHTS.read_bytes()[:-1] + b"?")
    monkeypatch.setattr(features, "WEIGHTS", changed)
    with pytest.raises(T2IError, match="differs"):
        features.load()
    changed.unlink()
    with pytest.raises(T2IError, match="cannot be read"):
        features.load()
