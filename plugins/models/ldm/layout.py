"""What a pipeline's folder in diffusers' layout must hold, and what of it is read here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL

from t2i.core.errors import UserError
from t2i.core.io.json_files import read_object
from t2i.core.models.model import Model
from t2i.plugins.common.weights.diffusers_folders import (
    INDEX,
    classes,
    refuse_foreign_classes,
    refuse_settings,
)
from t2i.plugins.common.weights.trusted_files import check_pipeline

CLIP_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")
T5_TOKENIZERS = ("T5Tokenizer", "T5TokenizerFast")
VOCABULARIES = {
    **dict.fromkeys(CLIP_TOKENIZERS, ("tokenizer.json", "vocab.json")),
    **dict.fromkeys(T5_TOKENIZERS, ("tokenizer.json", "spiece.model")),
}
"""Files of which a tokenizer needs one, by its class."""
MISSING = {"vocab.json": "vocab.json and merges.txt"}
"""What errors call a file that needs another one."""
TUNING: dict[str, Any] = {
    "lr": 1e-5,
    "batch_size": 4,
    "grad_clip": 1.0,
    "ema_decay": 0.0,
    "steps": 1000,
    "keep": 1,
}
"""Training settings of a pipeline's model, for `t2i train --from FOLDER`: small steps, and no
averages of the weights, which would take as much memory as the weights."""
AGAIN = "get it from where the folder is from"


@dataclass(frozen=True)
class Layout:
    """The parts of a pipeline.

    Args:
        pipeline: Class of the pipeline.
        parts: Part -> its classes that are read, the usual one first. (): any class.
        optional: Parts that may be left out.
        left_out: Further parts that a folder may name. They take no part in sampling from text.
        entries: Further entries of model_index.json that are read.
        latent_settings: Settings of the autoencoder that the pipeline does not read.
    """

    pipeline: str
    parts: Mapping[str, tuple[str, ...]]
    optional: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()
    latent_settings: tuple[str, ...] = ("shift_factor", "latents_mean", "latents_std")

    def check(self, index: Mapping[str, Any], source: Path) -> None:
        """Check that a folder holds the parts that are read, no others, and files of theirs only.

        Args:
            index: The content of its model_index.json.
            source: The folder.

        Raises:
            UserError: It does not.
        """
        self.check_index(index, source)
        self.check_files(index, source)
        check_pipeline(source, self.parts)

    def check_index(self, index: Mapping[str, Any], source: Path) -> None:
        """Check that a pipeline has the parts that are read here, and no others that matter.

        Args:
            index: The content of model_index.json.
            source: Folder of the pipeline, for errors.

        Raises:
            UserError: A part is missing, of another class, or would be ignored.
        """
        refuse_foreign_classes(index, source)
        found = classes(index)
        for name, fitting in self.parts.items():
            if name not in found and name not in self.optional:
                raise UserError(
                    f"{source / INDEX}: it names no {name}, which a {self.pipeline} has"
                )
            if name in found and fitting and found[name] not in fitting:
                raise UserError(f"{source}: its {name} is {found[name]}; only {fitting[0]} is read")
        for name in sorted(set(found) - {*self.parts, *self.left_out}):
            raise UserError(
                f"{source}: it has the part {name} ({found[name]}), which would be ignored: a "
                f"{self.pipeline} has none; remove it from {INDEX} to sample without it"
            )
        for name, value in index.items():
            plain = name.startswith("_") or name in self.entries or isinstance(value, list)
            if not plain and value not in (None, False):
                raise UserError(
                    f"{source / INDEX}: {name} = {value} would be ignored, here as in a "
                    f"{self.pipeline}: remove it from the file"
                )

    def check_files(self, index: Mapping[str, Any], source: Path) -> None:
        """Check that each part of a pipeline has its configuration.

        Args:
            index: The content of model_index.json.
            source: Folder of the pipeline.

        Raises:
            UserError: A part has none.
        """
        found = classes(index)
        for name in self.parts:
            if name not in found:
                continue
            vocabularies = VOCABULARIES.get(found[name], ())
            if vocabularies and not any((source / name / file).is_file() for file in vocabularies):
                first, second = (MISSING.get(file, file) for file in vocabularies)
                raise UserError(
                    f"{source}: {name}/ is missing or has neither {first} nor {second}: {AGAIN}"
                )
            file = "scheduler_config.json" if name == "scheduler" else "config.json"
            if not vocabularies and not (source / name / file).is_file():
                raise UserError(
                    f"{source}: {name}/{file} is missing, though {INDEX} names this part: {AGAIN}"
                )

    def refuse_autoencoder(
        self, vae: Mapping[str, Any], channels: int, source: Path, network: str = "U-Net"
    ) -> None:
        """Check that the autoencoder is one that the pipeline reads, and fits its network.

        Args:
            vae: Configuration of the autoencoder.
            channels: Input channels of the network that denoises.
            source: Folder or file of the pipeline, for errors.
            network: What errors call the network that denoises.

        Raises:
            UserError: It does not fit, or has a setting that would be ignored.
        """
        unread = dict.fromkeys(self.latent_settings, "shifts its latents")
        refuse_settings(vae, AutoencoderKL, f"{source}: its autoencoder", unread)
        if channels != vae.get("latent_channels", 4):
            raise UserError(
                f"{source}: its {network} has {channels} input channels and its autoencoder "
                f"{vae.get('latent_channels', 4)}: it reads more than noise (as for inpainting, "
                "upscaling or depth), and t2i samples from noise and text only"
            )


def autoencoder_settings(vae: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """Describe an autoencoder of diffusers as settings of `AutoencoderConfig`.

    Args:
        vae: Its configuration.
        source: The pipeline's folder, or its single file.

    Returns:
        The settings.
    """
    return {
        "weights": str(source / "vae") if source.is_dir() else str(source),
        "channels": vae["block_out_channels"],
        "layers": vae["layers_per_block"],
        "latent_channels": vae["latent_channels"],
        "attention": vae.get("mid_block_add_attention", True),
        "groups": vae["norm_num_groups"],
    }


def check_tokens(source: Path, suffix: str = "") -> None:
    """Check that a CLIP's captions are padded and cut as the pipeline does it.

    Args:
        source: Folder of the pipeline.
        suffix: End of the names of the folders, such as "_2".

    Raises:
        UserError: The tokenizer has a setting that is not followed here.
    """
    config = source / f"text_encoder{suffix}" / "config.json"
    most = read_object(config, f"folder {source}").get("max_position_embeddings", 77)
    place = source / f"tokenizer{suffix}" / "tokenizer_config.json"
    words = read_object(place, f"folder {source}") if place.is_file() else {}
    length = words.get("model_max_length")
    if type(most) is not int or most < 1:
        raise UserError(f"{config}: max_position_embeddings = {str(most)[:60]!r} is no count: a "
                        "whole number from 1 on is expected")  # fmt: skip
    if isinstance(length, (int, float)) and length < most:
        raise UserError(
            f"{place}: model_max_length = {length}, but the text encoder reads {most} tokens, and "
            f"captions are padded to these here: set it to {most}"
        )


def check_words(model: Model, path: Path) -> None:
    """Check that no word stands for several tokens, which the pipeline would put in.

    Args:
        model: The model, whose text encoder has one or several tokenizers.
        path: Folder of the pipeline, for errors.

    Raises:
        UserError: There is such a word.
    """
    for encoder in model.text_encoder.modules():
        tokenizer: Any = getattr(encoder, "tokenizer", None)
        added = tokenizer.get_added_vocab() if tokenizer is not None else {}
        for word in added:
            if f"{word}_1" in added:
                raise UserError(
                    f"{path}: its tokenizer has the word {word} of several vectors ({word}_1, "
                    "...): only words of one vector are read here"
                )
