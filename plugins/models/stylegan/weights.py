"""Import of state dicts with the names of NVIDIA's code (stylegan2-ada-pytorch, stylegan-t).

The files that NVIDIA releases are pickles of classes with their source, which are never loaded. A
state dict that was written from one holds tensors alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.models.weights import load_state
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.fir import TAPS
from t2i.plugins.common.weights.legacy import read_legacy, renamed, state_dict
from t2i.plugins.models.stylegan.config import StyleGANConfig
from t2i.plugins.models.stylegan.networks import StyleGANGenerator
from t2i.plugins.models.stylegan.synthesis import START, START_T

GENERATOR = (
    (r"^mapping\.(?:mlp\.)?fc(\d+)\.", r"mapping.layers.\1."),
    (r"^mapping\.[wx]_avg$", "average"),
    (r"^synthesis\.b4\.const$", "synthesis.start.value"),
    (r"^synthesis\.b8\.input\.", "synthesis.start."),
    (r"\.affine\.(?:proj\.)?(weight|bias)$", r".affine.linear.\1"),
    (r"^synthesis\.start\.affine\.linear\.", "synthesis.start.affine."),
    (r"\.noise_strength$", ".strength"),
)
DISCRIMINATOR = (
    (r"^b4\.conv\.", "conv."),
    (r"^b4\.fc\.", "linear."),
    (r"^b4\.out\.", "out."),
    (r"^b\d+\.fromrgb\.", "from_rgb."),
    (r"^mapping\.fc(\d+)\.", r"mapping.layers.\1."),
)
HEADS = (
    (r"\.main\.0\.0\.", ".first.conv."),
    (r"\.main\.0\.1\.", ".first.norm."),
    (r"\.main\.1\.fn\.0\.", ".second.conv."),
    (r"\.main\.1\.fn\.1\.", ".second.norm."),
    (r"\.cmapper\.", ".text."),
    (r"\.cls\.", ".out."),
    (r"\.weight_orig$", ".weight"),
    (r"\.weight_([uv])$", r".\1"),
)

EXPORT = (
    "NVIDIA's .pkl holds classes and their source, which would run; it is not loaded. In a "
    "clone of NVIDIA's code, write its tensors: "
    'python -c "import torch, dnnlib, legacy; '
    "torch.save(legacy.load_network_pkl(open('FILE.pkl', 'rb'))['G_ema'].state_dict(), 'FILE.pt')\""
    ", and import FILE.pt"
)


def generator_state(state: Mapping[str, Tensor], config: StyleGANConfig) -> dict[str, Tensor]:
    """Translate a state dict of NVIDIA's generator.

    The text encoder inside StyleGAN-T's mapping is left out: it is CLIP's own.

    Args:
        state: The state dict.
        config: Settings, which say which of the two generators it is.

    Returns:
        The state dict of `StyleGANGenerator`.

    Raises:
        UserError: A filter is another than [1, 3, 3, 1], or two tensors end under one name.
    """
    start = START if config.generator == "stylegan2" else START_T
    ours = renamed(_without_filters(state, "mapping.clip."), GENERATOR)

    def placed(match: re.Match[str]) -> str:
        block = int(match[1]).bit_length() - start.bit_length()
        layer = match[2]
        if layer == "torgb":
            return f"synthesis.to_rgb.{block}."
        number = 0 if layer == "conv0" else int(match[3] or 0) + (block > 0)
        return f"synthesis.blocks.{block}.{number}."

    pattern = re.compile(r"^synthesis\.b(\d+)\.(conv0|conv1|convs1|torgb)\.(?:(\d+)\.)?")
    ours = {pattern.sub(placed, name): tensor for name, tensor in ours.items()}
    return {name: t.flatten() if name.endswith(".gamma") else t for name, t in ours.items()}


def discriminator_state(state: Mapping[str, Tensor], config: StyleGANConfig) -> dict[str, Tensor]:
    """Translate a state dict of StyleGAN2's discriminator.

    Args:
        state: The state dict.
        config: Settings with the size of the images.

    Returns:
        The state dict of `Discriminator`.

    Raises:
        UserError: A filter is another than [1, 3, 3, 1], or two tensors end under one name.
    """
    ours = renamed(_without_filters(state), DISCRIMINATOR)

    def placed(match: re.Match[str]) -> str:
        return f"blocks.{config.image_size.bit_length() - int(match[1]).bit_length()}."

    return {re.sub(r"^b(\d+)\.", placed, name): tensor for name, tensor in ours.items()}


def heads_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate a state dict of StyleGAN-T's discriminator, without its frozen DINO.

    Args:
        state: The state dict.

    Returns:
        The state dict of `ProjectedDiscriminator`.

    Raises:
        UserError: Two tensors end under one name.
    """
    return renamed(_without_filters(state, "dino."), HEADS)


def _without_filters(state: Mapping[str, Tensor], other: str = "?") -> dict[str, Tensor]:
    """Leave out the filters, which must be ours, and what begins with `other`."""
    taps = torch.tensor(TAPS, dtype=torch.float32)
    kernel = torch.outer(taps, taps) / taps.sum() ** 2
    kept = {}
    for name, tensor in state.items():
        if name.endswith("resample_filter"):
            if tensor.shape != kernel.shape or not torch.allclose(tensor.float(), kernel):
                raise UserError(f"stylegan: '{name[:80]}' is another filter than [1, 3, 3, 1]")
        elif not name.startswith(other):
            kept[name] = tensor
    return kept


def load(config: RunConfig, files: Sequence[Path]) -> Model:
    """Build a model with a generator in NVIDIA's names (`t2i import`).

    Args:
        config: The run's configuration.
        files: One file, the state dict of G_ema: safetensors, or what `torch.save` wrote of it. A
            document with a state dict under "G_ema" is read too.

    Returns:
        The model.

    Raises:
        UserError: There is not exactly one file, it is NVIDIA's pickle, or its tensors do not fit
            the settings.
    """
    if len(files) != 1:
        raise UserError(f"stylegan: one file holds the generator (G_ema), {len(files)} are given")
    path, settings = files[0], config.settings
    assert isinstance(settings, StyleGANConfig)
    if path.suffix == ".pkl":
        raise UserError(f"stylegan: {path}: {EXPORT}")
    document = read_legacy(path)
    where = f"weights {path}"
    state = state_dict(document, str(path), *(["G_ema"] if "G_ema" in document else []))
    if settings.generator == "stylegan2" and "mapping.embed.weight" not in state:
        raise UserError(
            f"{where}: it has no 'mapping.embed.weight': an unconditional generator takes no text"
        )
    model = build(config)
    assert isinstance(model.generator, StyleGANGenerator)
    load_state(model.generator, generator_state(state, settings), where)
    return model
