"""Import of the weights that DF-GAN's authors released (github.com/tobran/DF-GAN)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from torch import Tensor

from t2i.core.models.model import Model
from t2i.core.models.weights import load_state
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.gan.conditioning.fusion import AUTHORS
from t2i.plugins.common.text.damsm import authors_encoder, pickled_vocabulary
from t2i.plugins.common.weights.authors import TEXT_ENCODER, VOCABULARY, Part, recognised
from t2i.plugins.common.weights.legacy import renamed, without_prefix
from t2i.plugins.models.dfgan.config import DFGANConfig
from t2i.plugins.models.dfgan.networks import DFGANGenerator, Discriminator, OneWayOutput, widths

PARTS = {
    "checkpoint": Part("model", "state_epoch_*.pth"),
    "text encoder": TEXT_ENCODER,
    "vocabulary": VOCABULARY,
}

GENERATOR = (
    (r"^fc\.", "start."),
    (r"^GBlocks\.(\d+)\.c(\d)\.", r"blocks.\1.conv\2."),
    (r"^GBlocks\.(\d+)\.c_sc\.", r"blocks.\1.shortcut."),
    (r"^GBlocks\.(\d+)\.fuse(\d)\.", r"blocks.\1.fuse\2."),
    *AUTHORS,
    (r"^to_rgb\.1\.", "to_rgb."),
)
DISCRIMINATOR = (
    (r"^conv_img\.", "from_rgb."),
    (r"^DBlocks\.(\d+)\.conv_r\.0\.", r"blocks.\1.conv1."),
    (r"^DBlocks\.(\d+)\.conv_r\.2\.", r"blocks.\1.conv2."),
    (r"^DBlocks\.(\d+)\.conv_s\.", r"blocks.\1.shortcut."),
    (r"^DBlocks\.(\d+)\.gamma$", r"blocks.\1.gain"),
)
OUTPUT = ((r"^joint_conv\.0\.", "joint."), (r"^joint_conv\.2\.", "score."))


def generator_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the authors' netG.

    Args:
        state: State dict of netG, with or without the prefix "module.".

    Returns:
        The state dict of `DFGANGenerator`.

    Raises:
        UserError: Two tensors end under one name.
    """
    return renamed(without_prefix(state, "module."), GENERATOR)


def discriminator_state(state: Mapping[str, Tensor], config: DFGANConfig) -> dict[str, Tensor]:
    """Translate the authors' netD.

    Every block of theirs holds a 1x1 shortcut, but uses it only where the channels change. The
    unused ones are left out.

    Args:
        state: State dict of netD, with or without the prefix "module.".
        config: Settings with the widths of the blocks.

    Returns:
        The state dict of `Discriminator`.

    Raises:
        UserError: Two tensors end under one name.
    """
    unused = [
        i
        for i, (c_in, c_out) in enumerate(pairwise(widths(config.nf, config.image_size)))
        if c_in == c_out
    ]
    names = {f"blocks.{i}.shortcut.{kind}" for i in unused for kind in ("weight", "bias")}
    ours = renamed(without_prefix(state, "module."), DISCRIMINATOR)
    return {name: tensor for name, tensor in ours.items() if name not in names}


def output_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the authors' netC.

    Args:
        state: State dict of netC, with or without the prefix "module.".

    Returns:
        The state dict of `OneWayOutput`.

    Raises:
        UserError: Two tensors end under one name.
    """
    return renamed(without_prefix(state, "module."), OUTPUT)


def load(config: RunConfig, files: Sequence[Path]) -> Model:
    """Build a model from the authors' three files (`t2i import`).

    The files are the checkpoint {'model': {'netG', 'netD', 'netC'}, ...}, DAMSM's text encoder, and
    its pickled vocabulary. Only G is sampled. D and C are checked as well, to make sure that the
    checkpoint is the expected one.

    Args:
        config: The run's configuration. Its encoder gets the vocabulary.
        files: The three files in any order. They are recognised by their content.

    Returns:
        The model.

    Raises:
        UserError: A file is missing, is given twice, is none of the three, or does not fit the
            settings.
    """
    found = recognised("dfgan", PARTS, files)
    text, vocabulary = found["text encoder"], found["vocabulary"].path
    words = pickled_vocabulary(vocabulary)
    where = f"{text.path} with the words of {vocabulary}"
    choice, encoder = authors_encoder(config.encoder, text.state(), words, where)
    settings = config.settings
    assert isinstance(settings, DFGANConfig)
    checkpoint = found["checkpoint"]
    where = f"weights {checkpoint.path}"
    generator = DFGANGenerator(settings, encoder.shape)
    judge, output = Discriminator(settings), OneWayOutput(settings, encoder.shape.sentence)
    load_state(generator, generator_state(checkpoint.state("model", "netG")), f"{where}: netG")
    load_state(
        judge, discriminator_state(checkpoint.state("model", "netD"), settings), f"{where}: netD"
    )
    load_state(output, output_state(checkpoint.state("model", "netC")), f"{where}: netC")
    return Model(replace(config, encoder=choice), generator, encoder)
