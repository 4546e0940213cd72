"""LPIPS, a distance of images by the features of a VGG16.

Source: Zhang et al. 2018 (arXiv:1801.03924), version 0.1; the weights fit those of the package
`lpips`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.fetch.downloads import fetched
from t2i.plugins.common.weights.legacy import read_legacy

TRUNK = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
"""Channels of VGG16's convolutions; 0 is a pooling."""
TAPS = (1, 4, 8, 12, 16)
"""Places in TRUNK of the convolutions whose outputs are compared (relu1_2 to relu5_3)."""
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
EPSILON = 1e-10
TRUNK_FILE, LINEAR_FILE = "vgg16-397923af.pth", "vgg.pth"
PACKAGES = {
    "lpips": "weights/v0.1/vgg.pth",
    "torchmetrics": "functional/image/lpips_models/vgg.pth",
}
"""Packages that have the linear weights, and where in them."""


class Perceptual(nn.Module):
    """The distance. It is frozen, and has no dropout.

    Attributes:
        convolutions: VGG16's convolutions.
        linear: The weights of the squared differences of each of five sizes.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = [channels for channels in TRUNK if channels]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1)
            for before, after in zip((3, *widths), widths, strict=False)
        )
        self.linear = nn.ParameterList(
            [nn.Parameter(Tensor(1, TRUNK[tap], 1, 1).fill_(1 / TRUNK[tap])) for tap in TAPS]
        )
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", Tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", Tensor(SCALE)[:, None, None])
        self.requires_grad_(False).eval()

    def features(self, images: Tensor) -> list[Tensor]:
        """Compute the features of five sizes, of length 1 at each place.

        Args:
            images: Images (B, 3, H, W) in [-1, 1].

        Returns:
            Features (B, C, h, w), the largest first.
        """
        h, found = (images - self.shift) / self.scale, []
        convolutions = iter(self.convolutions)
        for place, channels in enumerate(TRUNK):
            h = F.relu(next(convolutions)(h)) if channels else F.max_pool2d(h, 2)
            if place in TAPS:
                # Unlike the root of a sum of squares, it has gradients where all channels are 0.
                length = torch.linalg.vector_norm(h, dim=1, keepdim=True)
                found.append(h / (length + EPSILON))
        return found

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """Compute the distance.

        Args:
            images: Images (B, 3, H, W) in [-1, 1], at least 16 pixels high and wide.
            others: The images that they are compared with.

        Returns:
            Distances (B,).
        """
        pairs = zip(self.features(images), self.features(others), self.linear, strict=True)
        parts = [F.conv2d((a - b).square(), w).mean((1, 2, 3)) for a, b, w in pairs]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total


def load_perceptual() -> Perceptual:
    """Load the distance with its weights: VGG16's, and the linear ones of version 0.1.

    The linear ones are read from the package `lpips` or `torchmetrics` if one is installed.

    Returns:
        The distance.

    Raises:
        UserError: The weights were not fetched, or are damaged.
    """
    trunk, linear = fetched("lpips", TRUNK_FILE), _packaged() or fetched("lpips", LINEAR_FILE)
    perceptual = Perceptual()
    fill_perceptual(perceptual, read_legacy(trunk), read_legacy(linear), f"{trunk}, {linear}")
    return perceptual


def fill_perceptual(
    perceptual: Perceptual, trunk: Mapping[Any, Any], linear: Mapping[Any, Any], where: str
) -> None:
    """Load weights into the distance.

    Args:
        perceptual: The distance.
        trunk: State dict of torchvision's VGG16 (features.N.weight).
        linear: State dict of LPIPS' linear weights (linN.model.1.weight).
        where: Where they are from, for errors.

    Raises:
        UserError: A tensor is missing or misfits.
    """
    # torchvision counts the activations and poolings, too.
    places = [n + sum(width > 0 for width in TRUNK[:n]) for n, width in enumerate(TRUNK) if width]
    state = {
        f"convolutions.{n}.{part}": trunk.get(f"features.{place}.{part}")
        for n, place in enumerate(places)
        for part in ("weight", "bias")
    }
    state |= {f"linear.{n}": linear.get(f"lin{n}.model.1.weight") for n in range(len(TAPS))}
    own = dict(perceptual.named_parameters())
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor) or tensor.shape != own[name].shape:
            raise UserError(
                f"LPIPS: {where}: the tensor for '{name}' is missing or misfits; 't2i fetch lpips' "
                "gets the right files"
            )
    perceptual.load_state_dict(state, strict=False)


def _packaged() -> Path | None:
    """Find the linear weights in an installed package, which is not imported."""
    for package, place in PACKAGES.items():
        found = find_spec(package)
        if found is not None and found.origin is not None:
            file = Path(found.origin).parent / place
            if file.is_file():
                return file
    return None
