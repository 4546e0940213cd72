"""Import of the weights that AttnGAN's authors released (`t2i import`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from t2i.core.models.model import Model
from t2i.core.models.weights import load_state
from t2i.core.runs.configure import RunConfig
from t2i.core.settings import Config
from t2i.plugins.common.text.config import ImageEncoderConfig
from t2i.plugins.common.text.damsm import authors_encoder, pickled_vocabulary
from t2i.plugins.common.text.image_encoder import authors_state
from t2i.plugins.common.weights.authors import TEXT_ENCODER, VOCABULARY, Part, recognised
from t2i.plugins.common.weights.legacy import counted, renamed, without_prefix
from t2i.plugins.models.attngan.config import AttnGANConfig
from t2i.plugins.models.attngan.networks import AttnGANGenerator, helpers

PARTS = {
    "generator": Part("ca_net.fc.weight", "netG*.pth or *_AttnGAN2.pth"),
    "text encoder": TEXT_ENCODER,
    "vocabulary": VOCABULARY,
    "image encoder": Part("emb_features.weight", "image_encoder*.pth", needed=False),
}
NETWORK = [
    (r"^ca_net\.fc\.", "augment.linear."),
    (r"^h_net1\.fc\.0\.", "first.linear."),
    (r"^h_net1\.fc\.1\.", "first.norm."),
    # Layer 0 of theirs is the upsampling, which is part of our convolution.
    (r"\.(upsample\d?)\.1\.", r".\1.0."),
    (r"\.(upsample\d?)\.2\.", r".\1.1."),
    *((rf"^h_net1\.upsample{i + 1}\.", f"first.ups.{i}.") for i in range(4)),
    *((rf"^h_net{i + 2}\.", f"next.{i}.") for i in range(2)),
    (r"\.att\.conv_context\.", ".attention.project."),
    (r"\.upsample\.", ".up."),
    *((rf"^img_net{i + 1}\.img\.0\.", f"to_rgb.{i}.") for i in range(3)),
]
# Layers of the four halvings: theirs -> ours.
S16 = {
    0: "0.0",
    2: "1.0",
    3: "1.1",
    5: "2.0",
    6: "2.1",
    8: "3.0",
    9: "3.1",
}
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
    """Translate the authors' generator.

    Args:
        state: State dict of their G_NET, with or without the prefix "module.".

    Returns:
        The state dict of `Network`.

    Raises:
        UserError: Two tensors end under one name.
    """
    ours = renamed(without_prefix(state, "module."), NETWORK)
    return {
        name: t.flatten(1) if name.endswith("attention.project.weight") else t
        for name, t in ours.items()
    }


def discriminator_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate one of the authors' discriminators.

    Their scores are sigmoids of our logits.

    Args:
        state: State dict of their D_NET64, D_NET128 or D_NET256 (netD0.pth to netD2.pth), with or
            without the prefix "module.".

    Returns:
        The state dict of `Discriminator`.

    Raises:
        UserError: Two tensors end under one name.
    """
    return renamed(without_prefix(state, "module."), DISCRIMINATOR)


def load(config: RunConfig, files: Sequence[Path]) -> Model:
    """Build a model from the authors' files (`t2i import`).

    The files are the generator, the text encoder and captions.pickle, and optionally the image
    encoder. The image encoder is needed in training only: it is checked, but not saved with the
    sampled model.

    Args:
        config: The run's configuration. Its encoder gets the vocabulary, and `image_encoder.kind`
            becomes "inception" or, without that file, "none".
        files: The files in any order. They are recognised by their content.

    Returns:
        The model.

    Raises:
        UserError: A file is missing, is given twice, is none of these, or does not fit the preset.
    """
    found = recognised("attngan", PARTS, files)
    settings = _completed(config.settings, "image encoder" in found)
    text, vocabulary = found["text encoder"], found["vocabulary"].path
    words = pickled_vocabulary(vocabulary)
    where = f"weights {text.path} with {vocabulary}"
    choice, encoder = authors_encoder(config.encoder, text.state(), words, where)
    generator = AttnGANGenerator(settings, encoder.shape)
    drawing = found["generator"]
    load_state(
        generator.network,
        counted(generator.network, network_state(drawing.state())),
        f"weights {drawing.path}",
    )
    seeing = helpers(settings, encoder.shape, fresh=False)
    for module in seeing.values():
        part = found["image encoder"]
        state = counted(module, authors_state(without_prefix(part.state(), "module.")))
        load_state(module, state, f"weights {part.path}")
    return Model(replace(config, settings=settings, encoder=choice), generator, encoder, seeing)


def _completed(settings: Config, with_images: bool) -> AttnGANConfig:
    """Return the settings with an image encoder if its file was found, else with none."""
    assert isinstance(settings, AttnGANConfig)
    image_encoder = ImageEncoderConfig(kind="inception" if with_images else "none")
    return settings.model_copy(update={"image_encoder": image_encoder})
