"""Weights that AttnGAN's authors released, under our names: `t2i import`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from t2i.core.config import Config
from t2i.core.errors import UserError
from t2i.core.model import Model, load_state
from t2i.core.runs import RunConfig
from t2i.plugins.attngan.config import AttnGANConfig
from t2i.plugins.attngan.networks import AttnGANGenerator
from t2i.plugins.common.damsm import authors_encoder, pickled_vocabulary
from t2i.plugins.common.image_encoder import authors_state, counted
from t2i.plugins.common.legacy import read_legacy, renamed, state_dict, without_prefix
from t2i.plugins.common.settings import ImageEncoderConfig

# What each of the authors' files is known by: a tensor that only it holds.
MARKS = {"generator": "ca_net.fc.weight", "text encoder": "rnn.weight_ih_l0", "image encoder": "emb_features.weight"}
NEEDED = {
    "generator": "netG*.pth or *_AttnGAN2.pth",
    "text encoder": "text_encoder*.pth",
    "vocabulary": "captions.pickle",
}
PICKLES = (".pickle", ".pkl")
NETWORK = [
    (r"^ca_net\.fc\.", "augment.linear."),
    (r"^h_net1\.fc\.0\.", "first.linear."),
    (r"^h_net1\.fc\.1\.", "first.norm."),
    (r"\.(upsample\d?)\.1\.", r".\1.0."),  # theirs begin with the upsampling
    (r"\.(upsample\d?)\.2\.", r".\1.1."),
    *((rf"^h_net1\.upsample{i + 1}\.", f"first.ups.{i}.") for i in range(4)),
    *((rf"^h_net{i + 2}\.", f"next.{i}.") for i in range(2)),
    (r"\.att\.conv_context\.", ".attention.project."),
    (r"\.upsample\.", ".up."),
    *((rf"^img_net{i + 1}\.img\.0\.", f"to_rgb.{i}.") for i in range(3)),
]
S16 = {0: "0.0", 2: "1.0", 3: "1.1", 5: "2.0", 6: "2.1", 8: "3.0", 9: "3.1"}  # layers of the four halvings
DISCRIMINATOR = [
    *((rf"^img_code_s16\.{theirs}\.", f"layers.{ours}.") for theirs, ours in S16.items()),
    (r"^img_code_s32\.", "layers.4."),
    (r"^img_code_s64\.", "layers.5."),
    (r"^img_code_s32_1\.", "layers.5."),
    (r"^img_code_s64_1\.", "layers.6."),
    (r"^img_code_s64_2\.", "layers.7."),
    (r"^UNCOND_DNET\.outlogits\.0\.", "unconditional.score."),
    (r"^COND_DNET\.outlogits\.0\.", "conditional.score."),
    (r"^COND_DNET\.jointConv\.", "conditional.joint."),
]


def network_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' G_NET state dict under the names of `Network`."""
    ours = renamed(without_prefix(state, "module."), NETWORK)
    return {name: t.flatten(1) if name.endswith("attention.project.weight") else t for name, t in ours.items()}


def discriminator_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the authors' D_NET64, D_NET128 or D_NET256 (netD0.pth to netD2.pth) under the names of
    `Discriminator`. Their scores are sigmoids of our logits."""
    return renamed(without_prefix(state, "module."), DISCRIMINATOR)


def load(config: RunConfig, files: Sequence[Path]) -> Model:
    """The model in the authors' files: generator, text encoder and captions.pickle, in any order, and the image encoder
    if it is there, without which the model can be drawn from all the same.

    UserError if one is missing, given twice or none of these, or does not fit the preset.
    """
    found = _recognised(files)
    for kind, name in NEEDED.items():
        if kind not in found:
            raise UserError(f"attngan: no {kind} among the files: add the authors' {name}")
    settings = _completed(config.settings, "image encoder" in found)
    path, state = found["text encoder"]
    words = pickled_vocabulary(found["vocabulary"][0])
    choice, encoder = authors_encoder(config.encoder, state, words, f"weights {path} with {found['vocabulary'][0]}")
    generator = AttnGANGenerator(settings, encoder.shape)
    path, state = found["generator"]
    load_state(generator.network, counted(generator.network, network_state(state)), f"weights {path}")
    if generator.image_encoder is not None:
        path, state = found["image encoder"]
        load_state(generator.image_encoder, counted(generator.image_encoder, authors_state(state)), f"weights {path}")
    return Model(replace(config, settings=settings, encoder=choice), generator, encoder)


def _completed(settings: Config, with_pictures: bool) -> AttnGANConfig:
    """The settings with the image encoder that was found, or none."""
    assert isinstance(settings, AttnGANConfig)
    image_encoder = ImageEncoderConfig(kind="inception" if with_pictures else "none")
    return settings.model_copy(update={"image_encoder": image_encoder})


def _recognised(files: Sequence[Path]) -> dict[str, tuple[Path, dict[str, Tensor]]]:
    """The files by what they are, with their tensors (none of the vocabulary's, which alone is a plain pickle)."""
    found: dict[str, tuple[Path, dict[str, Tensor]]] = {}
    for path in files:
        state = {} if path.suffix in PICKLES else without_prefix(state_dict(read_legacy(path), str(path)), "module.")
        kinds = [kind for kind, mark in MARKS.items() if mark in state] if state else ["vocabulary"]
        if not kinds:
            raise UserError(f"attngan: {path} is none of the authors' files: {', '.join([*MARKS, 'vocabulary'])}")
        if kinds[0] in found:
            raise UserError(f"attngan: {path} and {found[kinds[0]][0]} both hold a {kinds[0]}: give one of them")
        found[kinds[0]] = path, state
    return found
