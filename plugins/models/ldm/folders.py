"""Read Stable Diffusion's and PixArt's folders and files as models, and write models as folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError
from t2i.core.models.identify import identify
from t2i.core.models.model import Model
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.weights.diffusers_folders import pipeline_index
from t2i.plugins.models.ldm import described, pixart, sd3, sdxl
from t2i.plugins.models.ldm.config import LDMConfig, SizesConfig
from t2i.plugins.models.ldm.single_files import from_file, is_single_file

FILE_SETTINGS = ("config", "vae")
SIZES = "sizes"
PIPELINES: Mapping[str, Any] = {
    module.LAYOUT.pipeline: module for module in (described, sdxl, sd3, pixart)
}
"""Modules that open the folders of pipelines, by the class of the pipeline."""


def open_pretrained(path: Path, settings: Mapping[str, Any]) -> Model | None:
    """Open a Stable Diffusion or PixArt-alpha: a folder in diffusers' layout, or a single file.

    Single files are those of Stable Diffusion 1.x and 2.x. The safety checker is not loaded.

    Args:
        path: The folder or the file.
        settings: `config` names a folder with the configuration of a single file. Without it
            diffusers downloads the configuration. `vae` names the file or folder of an autoencoder
            to use instead of the single file's own. `sizes` is the setting of that name for Stable
            Diffusion XL.

    Returns:
        The model; None if `path` is none of these.

    Raises:
        UserError: Something is missing or damaged, a setting of the pipeline cannot be followed, or
            `config` or `vae` does not fit.
    """
    if not path.is_dir():
        _refuse_sizes(path, settings)
        return from_file(path.resolve(), settings) if is_single_file(path) else None
    index = pipeline_index(path)
    pipeline = None if index is None else index.get("_class_name")
    if index is None or not isinstance(pipeline, str) or pipeline not in PIPELINES:
        return None
    for name in FILE_SETTINGS:
        if name in settings:
            raise UserError(
                f"{name} = {settings[name]}: {path} is a folder with a configuration and an "
                f"autoencoder of its own: leave out --set {name}=..."
            )
    if pipeline == sdxl.LAYOUT.pipeline:
        return sdxl.from_folder(path.resolve(), index, settings)
    _refuse_sizes(path, settings)
    opened: Model = PIPELINES[pipeline].from_folder(path.resolve(), index)
    return opened


def _refuse_sizes(path: Path, settings: Mapping[str, Any]) -> None:
    """Raise UserError if sizes are given for a model that reads none."""
    if SIZES in settings:
        raise UserError(
            f"{SIZES}: {path} is no folder of Stable Diffusion XL, and reads no sizes: leave out "
            f"--set {SIZES}..."
        )


def weights(config: RunConfig, files: Sequence[Path]) -> Model:
    """Open what `open_pretrained` opens (`t2i import`).

    Args:
        config: Only `sizes` is used: the files have their own configuration.
        files: FOLDER, FILE, or FILE and the FOLDER of its configuration.

    Returns:
        The model.

    Raises:
        UserError: The files are none of these, or cannot be opened.
    """
    assert isinstance(config.settings, LDMConfig)
    told = config.settings.sizes
    settings: dict[str, Any] = {} if told == SizesConfig() else {SIZES: told.model_dump()}
    settings |= {"config": str(files[1])} if len(files) == 2 else {}
    model = open_pretrained(files[0], settings) if len(files) <= 2 else None
    if model is None:
        raise UserError(
            f"{files[0]}: no folder of Stable Diffusion or PixArt-alpha in diffusers' layout, nor "
            "a single .safetensors file of Stable Diffusion 1.x or 2.x (which may be followed by a "
            "folder with its configuration): "
            f"it is {identify(files[0]).sentence}"
        )
    return model
