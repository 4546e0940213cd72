"""Import of the weights that the authors of StackGAN-v2, AttnGAN and DM-GAN released."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from t2i.core.interfaces.text import TextShape
from t2i.core.models.model import Model
from t2i.core.models.weights import load_state
from t2i.core.runs.configure import RunConfig
from t2i.core.settings import Config
from t2i.plugins.common.gan.trees.config import MatchedTreeConfig
from t2i.plugins.common.gan.trees.generator import TreeGenerator
from t2i.plugins.common.gan.trees.matching import helpers
from t2i.plugins.common.text.config import ImageEncoderConfig
from t2i.plugins.common.text.damsm import authors_encoder, pickled_vocabulary
from t2i.plugins.common.text.image_encoder import authors_state
from t2i.plugins.common.weights.authors import TEXT_ENCODER, VOCABULARY, Part, recognised
from t2i.plugins.common.weights.legacy import counted, renamed, without_prefix

MARK = "ca_net.fc.weight"
"""A key that only the files of generators contain."""

Rules = Sequence[tuple[str, str]]

NETWORK: Rules = (
    (r"^ca_net\.fc\.", "augment.linear."),
    (r"^h_net1\.fc\.0\.", "first.linear."),
    (r"^h_net1\.fc\.1\.", "first.norm."),
    # Layer 0 of theirs is the upsampling, which is part of our convolution.
    (r"\.(upsample\d?)\.1\.", r".\1.0."),
    (r"\.(upsample\d?)\.2\.", r".\1.1."),
    *((rf"^h_net1\.upsample{i + 1}\.", f"first.ups.{i}.") for i in range(4)),
    *((rf"^h_net{i + 2}\.", f"next.{i}.") for i in range(4)),
    (r"\.upsample\.", ".up."),
    *((rf"^img_net{i + 1}\.img\.0\.", f"to_rgb.{i}.") for i in range(5)),
)
"""Rules that turn the names of their generators into those of `Tree`, but for the later stages'
own parts."""
# Layers of the four halvings: theirs -> ours.
_BATCH_NORM = {0: "0.0", 2: "1.0", 3: "1.1", 5: "2.0", 6: "2.1", 8: "3.0", 9: "3.1"}
_SPECTRAL = {0: "0.0", 2: "1.0", 4: "2.0", 6: "3.0"}
_LATER = (
    (r"^img_code_s32\.", "layers.4."),
    (r"^img_code_s64\.", "layers.5."),
    (r"^img_code_s32_1\.", "layers.5."),
    (r"^img_code_s64_1\.", "layers.6."),
    (r"^img_code_s64_2\.", "layers.7."),
)
_HEADS = (
    (r"^UNCOND_DNET\.outlogits\.0\.", "unconditional.score."),
    (r"^COND_DNET\.outlogits\.0\.", "conditional.score."),
    (r"^COND_DNET\.jointConv\.", "conditional.joint."),
    (r"^uncond_logits\.0\.", "unconditional.score."),
    (r"^logits\.0\.", "conditional.score."),
    (r"^jointConv\.", "conditional.joint."),
)


def network_state(state: Mapping[str, Tensor], own: Rules) -> dict[str, Tensor]:
    """Translate one of the authors' generators.

    Args:
        state: State dict of their G_NET, with or without the prefix "module.".
        own: Further rules, for the parts of the later stages.

    Returns:
        The state dict of `Tree`.

    Raises:
        UserError: Two tensors end under one name.
    """
    return renamed(without_prefix(state, "module."), [*NETWORK, *own])


def discriminator_state(
    state: Mapping[str, Tensor], *, spectral: bool = False
) -> dict[str, Tensor]:
    """Translate one of the authors' discriminators.

    Their scores are sigmoids of our logits.

    Args:
        state: State dict of their D_NET64, D_NET128 or D_NET256 (netD0.pth to netD2.pth), with or
            without the prefix "module.".
        spectral: Whether its convolutions have spectral norm (DM-GAN) instead of batch norm. Its
            `weight_v` is left out: it is made anew from `weight_u` before it is read.

    Returns:
        The state dict of `Discriminator`.

    Raises:
        UserError: Two tensors end under one name.
    """
    numbers = _SPECTRAL if spectral else _BATCH_NORM
    first = [(rf"^img_code_s16\.{n}\.", f"layers.{ours}.") for n, ours in numbers.items()]
    norms = [(r"\.module\.weight_bar$", ".weight"), (r"\.module\.weight_u$", ".u")]
    norms += [(r"\.module\.bias$", ".bias")]
    kept = {name: t for name, t in state.items() if not name.endswith(".module.weight_v")}
    return renamed(without_prefix(kept, "module."), [*norms, *first, *_LATER, *_HEADS])


def load_matched(
    config: RunConfig,
    files: Sequence[Path],
    build: Callable[[Any, TextShape, Path | None], TreeGenerator],
    translate: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
    generators: str,
) -> Model:
    """Build AttnGAN or DM-GAN from the authors' files.

    The files are the generator, the text encoder and captions.pickle, and optionally the image
    encoder. The image encoder is needed in training only: it is checked, but not saved with the
    sampled model.

    Args:
        config: The run's configuration. Its encoder gets the vocabulary, and `image_encoder.kind`
            becomes "inception" or, without that file, "none".
        files: The files in any order. They are recognised by their content.
        build: Function that builds the generator, as the model's specification names it.
        translate: Function that translates the state dict of the generator.
        generators: The authors' names of the generator's files, for errors.

    Returns:
        The model.

    Raises:
        UserError: A file is missing, is given twice, is none of these, or does not fit the preset.
    """
    parts = {
        "generator": Part(MARK, generators),
        "text encoder": TEXT_ENCODER,
        "vocabulary": VOCABULARY,
        "image encoder": Part("emb_features.weight", "image_encoder*.pth", needed=False),
    }
    found = recognised(config.model, parts, files)
    text, vocabulary = found["text encoder"], found["vocabulary"].path
    words = pickled_vocabulary(vocabulary)
    where = f"weights {text.path} with {vocabulary}"
    choice, encoder = authors_encoder(config.encoder, text.state(), words, where)
    settings = _completed(config.settings, "image encoder" in found)
    generator = build(settings, encoder.shape, None)
    drawing = found["generator"]
    state = counted(generator.network, translate(drawing.state()))
    load_state(generator.network, state, f"weights {drawing.path}")
    seeing = helpers(settings, encoder.shape, fresh=False)
    for module in seeing.values():
        part = found["image encoder"]
        theirs = counted(module, authors_state(without_prefix(part.state(), "module.")))
        load_state(module, theirs, f"weights {part.path}")
    return Model(replace(config, settings=settings, encoder=choice), generator, encoder, seeing)


def _completed(settings: Config, with_images: bool) -> MatchedTreeConfig:
    """Return the settings with an image encoder if its file was found, else with none."""
    assert isinstance(settings, MatchedTreeConfig)
    image_encoder = ImageEncoderConfig(kind="inception" if with_images else "none")
    return settings.model_copy(update={"image_encoder": image_encoder})
