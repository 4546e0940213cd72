"""Import of generators: of the authors (reedscot/icml2016), and of the port to PyTorch.

The authors' files are modules of Torch 7 without names: their layers are taken in their order. The
port (aelnouby/Text-to-Image-Synthesis) saves state dicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from t2i.core.errors import UserError
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.models.weights import load_state
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.weights.legacy import (
    counted,
    read_legacy,
    side,
    state_dict,
    without_prefix,
)
from t2i.plugins.common.weights.torch7 import TorchObject, is_torch7, read_torch7
from t2i.plugins.models.gancls.config import START
from t2i.plugins.models.gancls.networks import GANCLSGenerator

EPS = 1e-5
"""What batch norm adds to the variance here."""

KINDS = {
    "Linear": nn.Linear,
    "SpatialConvolution": nn.Conv2d,
    "SpatialConvolutionMM": nn.Conv2d,
    "SpatialFullConvolution": nn.ConvTranspose2d,
    "SpatialBatchNormalization": nn.BatchNorm2d,
    "BatchNormalization": nn.BatchNorm1d,
}
"""Torch 7's layers with weights, of nn and of cudnn."""

STEP = 3
"""Layers between two transposed convolutions of the port: convolution, batch norm, ReLU."""


def load(config: RunConfig, files: Sequence[Path]) -> Model:
    """Build a model from the file of a generator (`t2i import`).

    Its sizes are those of the file, whatever the preset says.

    Args:
        config: The run's configuration.
        files: The authors' *_net_G.t7, or the port's gen_*.pth: exactly one file.

    Returns:
        The model.

    Raises:
        UserError: There is not exactly one file, or it is no generator of GAN-CLS.
    """
    if len(files) != 1:
        raise UserError(
            f"gancls: one file is expected, a generator's *_net_G.t7 or gen_*.pth; {len(files)} "
            "were given"
        )
    if is_torch7(files[0]):
        return of_authors(config, files[0])
    return of_port(config, files[0])


def of_authors(config: RunConfig, path: Path) -> Model:
    """Build a model from a generator of the authors.

    Args:
        config: The run's configuration.
        path: The file of Torch 7.

    Returns:
        The model.

    Raises:
        UserError: It is no generator of GAN-CLS.
    """
    layers = [layer for layer in _module(path).leaves() if layer.name in KINDS]
    kinds = [layer.name for layer in layers]
    ups = kinds.count("SpatialFullConvolution")
    if len(layers) < 4 or kinds[:2] != ["Linear", "SpatialFullConvolution"]:
        raise UserError(
            f"weights {path}: no generator of GAN-CLS (its layers with weights: "
            f"{', '.join(kinds[:6]) or 'none'}): give *_net_G.t7"
        )
    nt, sentence = _sides(layers[0], 2, path)
    width, *_ = _sides(layers[1], 4, path)
    model = _built(
        config,
        path,
        sentence,
        {
            "image_size": START * 2 ** (ups - 1),
            "ngf": _sides(layers[-1], 4, path)[0],
            "nt": nt,
            "z_dim": width - nt,
            "residuals": "SpatialConvolution" in kinds or "SpatialConvolutionMM" in kinds,
            "norm_text": "discriminator",
            "standardise": False,
        },
    )
    generator = model.generator
    assert isinstance(generator, GANCLSGenerator)
    load_state(generator, counted(generator, layered(generator, layers, path)), f"weights {path}")
    return model


def _module(path: Path) -> TorchObject:
    value = read_torch7(path)
    if not isinstance(value, TorchObject):
        raise UserError(f"weights {path}: it holds no module of Torch 7: give *_net_G.t7")
    return value


def _sides(layer: TorchObject, dimensions: int, path: Path) -> tuple[int, ...]:
    weight = layer.tensor("weight")
    if weight is None or weight.dim() != dimensions:
        raise UserError(f"weights {path}: a {layer.name} without its weights; download it again")
    return tuple(weight.shape)


def ordered(generator: GANCLSGenerator) -> list[tuple[str, nn.Module]]:
    """Return the generator's layers with weights in the order in which they are applied.

    Args:
        generator: The generator.

    Returns:
        Names and layers.
    """
    layers: list[tuple[str, nn.Module]] = [("text.1", generator.text[1])]
    for i, norm in enumerate(generator.norms):
        name = f"ups.{i - 1}" if i else "start"
        layers += [(name, generator.get_submodule(name)), (f"norms.{i}", norm)]
        if i < len(generator.residuals):
            block = generator.residuals[i]
            layers += [(f"residuals.{i}.{name}", layer) for name, layer in block.named_children()]
    return [*layers, ("to_rgb", generator.to_rgb)]


def layered(
    generator: GANCLSGenerator, layers: Sequence[TorchObject], path: Path
) -> dict[str, Tensor]:
    """Translate the authors' layers.

    Their convolutions have a bias, which training sets to 0 again and again. What the last step
    added is kept: batch norm takes it off its mean, the last layer has a bias itself.

    Args:
        generator: The generator that the layers are for.
        layers: Their layers with weights, in their order.
        path: The file, named in errors.

    Returns:
        The state dict of `GANCLSGenerator`.

    Raises:
        UserError: The layers are not those of the generator.
    """
    ours = ordered(generator)
    kinds = [KINDS[layer.name] for layer in layers]
    if kinds != [type(layer) for _, layer in ours]:
        raise UserError(
            f"weights {path}: {len(layers)} layers with weights, and not in the order of the "
            f"authors' generator, which has {len(ours)}; is it the right file?"
        )
    state: dict[str, Tensor] = {}
    shift: Tensor | float = 0.0
    for (name, layer), theirs in zip(ours, layers, strict=True):
        tensors = {key: theirs.tensor(key) for key in ("weight", "bias")}
        if isinstance(layer, nn.BatchNorm2d):
            tensors |= _statistics(theirs, shift)
        elif name not in ("text.1", "to_rgb"):
            bias = tensors.pop("bias")
            shift = 0.0 if bias is None else bias
        for key, tensor in tensors.items():
            if tensor is None:
                raise UserError(f"weights {path}: {name} has no {key}; download it again")
            wanted = layer.get_parameter(key) if key in ("weight", "bias") else tensor
            fits = tensor.numel() == wanted.numel()
            state[f"{name}.{key}"] = tensor.reshape(wanted.shape) if fits else tensor
    return state


def _statistics(norm: TorchObject, shift: Tensor | float) -> dict[str, Tensor | None]:
    """Return the statistics of a batch norm. Old versions keep 1 / sqrt(variance + eps)."""
    eps = norm.fields.get("eps")
    eps = float(eps) if isinstance(eps, (int, float)) else EPS
    mean, variance = norm.tensor("running_mean"), norm.tensor("running_var")
    inverse = norm.tensor("running_std")
    if variance is None and inverse is not None:
        variance = inverse.double().pow(-2).float() - eps
    return {
        "running_mean": None if mean is None else mean - shift,
        "running_var": None if variance is None else variance + (eps - EPS),
    }


def of_port(config: RunConfig, path: Path) -> Model:
    """Build a model from a generator of the port to PyTorch.

    Args:
        config: The run's configuration.
        path: The file that torch.save wrote.

    Returns:
        The model.

    Raises:
        UserError: It is no generator of the port.
    """
    state = without_prefix(state_dict(read_legacy(path), str(path)), "module.")
    where = str(path)
    numbers = [name for name in state if name.startswith("netG.") and state[name].dim() == 4]
    if not numbers or "projection.0.weight" not in state:
        raise UserError(
            f"weights {path}: no generator of GAN-CLS (no 'netG' and 'projection'): give gen_*.pth "
            "of aelnouby/Text-to-Image-Synthesis, or the authors' *_net_G.t7"
        )
    nt, sentence = (side(state, "projection.0.weight", where, axis) for axis in (0, 1))
    model = _built(
        config,
        path,
        sentence,
        {
            "image_size": START * 2 ** (len(numbers) - 1),
            "ngf": side(state, f"netG.{STEP * (len(numbers) - 1)}.weight", where),
            "nt": nt,
            "z_dim": side(state, "netG.0.weight", where) - nt,
            "residuals": False,
            "norm_text": "both",
            "standardise": False,
        },
    )
    generator = model.generator
    assert isinstance(generator, GANCLSGenerator)
    ours = port_state(state, nt, len(numbers))
    load_state(generator, counted(generator, ours), f"weights {path}")
    return model


def port_state(state: Mapping[str, Tensor], nt: int, convolutions: int) -> dict[str, Tensor]:
    """Translate the port's state dict of a generator.

    Its first convolution takes [text; z], ours [z; text].

    Args:
        state: The state dict, without "module." in the names.
        nt: Width of the text.
        convolutions: Number of transposed convolutions.

    Returns:
        The state dict of `GANCLSGenerator`, with names that are not known as they were.
    """
    places = {"projection.0": "text.1", "projection.1": "text.2"}
    for i in range(convolutions):
        last = i == convolutions - 1
        places[f"netG.{STEP * i}"] = "to_rgb" if last else f"ups.{i - 1}" if i else "start"
        places[f"netG.{STEP * i + 1}"] = f"norms.{i}"
    ours: dict[str, Tensor] = {"to_rgb.bias": torch.zeros(3)}
    for name, tensor in state.items():
        layer, _, key = name.rpartition(".")
        if layer == "netG.0" and tensor.dim() == 4:
            tensor = torch.cat([tensor[nt:], tensor[:nt]])
        ours[f"{places.get(layer, layer)}.{key}"] = tensor
    return ours


def _built(config: RunConfig, path: Path, sentence: int, sizes: Mapping[str, Any]) -> Model:
    """Build a model of the sizes of a file."""
    if min(size for size in sizes.values() if not isinstance(size, (bool, str))) < 1:
        raise UserError(f"weights {path}: no generator of GAN-CLS: its sizes do not fit together")
    document = config.dump() | dict(sizes)
    document["data"] = {k: v for k, v in document["data"].items() if k != "image_size"}
    model = build(RunConfig.parse(document, f"weights {path}"))
    if model.text_encoder.shape.sentence != sentence:
        raise UserError(
            f"weights {path}: it takes sentences of {sentence} numbers, the text encoder "
            f"'{model.config.encoder.name}' has {model.text_encoder.shape.sentence}: choose the "
            "preset cub, flowers or coco, which have char-cnn-rnn"
        )
    return model
