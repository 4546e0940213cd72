"""The weights that DF-GAN's authors released (github.com/tobran/DF-GAN), under our names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from torch import Tensor

from t2i.core.models.model import Model
from t2i.core.models.weights import load_state
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.gan.fusion import AUTHORS
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
    """The authors' netG as our generator's state dict."""
    return renamed(without_prefix(state, "module."), GENERATOR)


def discriminator_state(state: Mapping[str, Tensor], config: DFGANConfig) -> dict[str, Tensor]:
    """The authors' netD as our discriminator's. Theirs holds a 1x1 shortcut in every block and uses it only where
    channels change: the others are left out."""
    unused = [
        i
        for i, (c_in, c_out) in enumerate(pairwise(widths(config.nf, config.image_size)))
        if c_in == c_out
    ]
    names = {f"blocks.{i}.shortcut.{kind}" for i in unused for kind in ("weight", "bias")}
    ours = renamed(without_prefix(state, "module."), DISCRIMINATOR)
    return {name: tensor for name, tensor in ours.items() if name not in names}


def output_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' netC as our one-way output's."""
    return renamed(without_prefix(state, "module."), OUTPUT)


def load(config: RunConfig, files: Sequence[Path]) -> Model:
    """The model of the authors' three files: {'model': {'netG', 'netD', 'netC'}, ...}, the text encoder of DAMSM, and
    the pickled vocabulary. UserError if one is missing, is none of these, or does not fit the settings.

    What is sampled is G; that D and C fit too tells that the file is what it seems.
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
