"""Stable Diffusion's single files, with the tensors' names of its authors.

diffusers converts them. What it would leave out, guess or fail at is named here before.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)

from t2i.core.errors import UserError, in_one_line
from t2i.core.io.terminal import note
from t2i.core.models.identify import family, shapes_of
from t2i.core.models.model import Model
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.plugins.common.clip.weights import check_config
from t2i.plugins.common.diffusion.scheduler_files import known_scheduler, read_scheduler
from t2i.plugins.common.weights.bars import no_bars
from t2i.plugins.common.weights.diffusers_folders import (
    classes,
    network_config,
    pipeline_index,
)
from t2i.plugins.common.weights.network_types import check_sizes
from t2i.plugins.common.weights.single_files import (
    PREFIXES,
    UNET,
    autoencoder,
    check_text_encoder,
    check_whole,
)
from t2i.plugins.common.weights.trusted_files import check_pipeline
from t2i.plugins.models.ldm.config import LDMConfig
from t2i.plugins.models.ldm.described import (
    FORCED,
    LAYOUT,
    Described,
    check_text,
    refuse_networks,
)
from t2i.plugins.models.ldm.networks import LDMGenerator

NAMES = {"vae": "autoencoder", "text": "text encoder", "unet": "U-Net"}
AVERAGED = "model_ema."
V_PREDICTION, ZERO_SNR = "v_pred", "ztsnr"
"""Empty tensors that mark a file: its U-Net predicts v; its schedule ends without any signal."""
Shapes = Mapping[str, tuple[int, ...]]


def is_single_file(path: Path) -> bool:
    """Return whether a path is a single file of Stable Diffusion 1.x or 2.x, or of its U-Net.

    Args:
        path: An existing file.

    Returns:
        Whether it is. Other files are named by `identify`.
    """
    shapes = shapes_of(path) if path.is_file() else None
    if not shapes or not any(name.startswith(UNET) for name in shapes):
        return False
    return family(shapes).what.startswith("Stable Diffusion") and not any(
        name.startswith("conditioner.") or "joint_blocks." in name for name in shapes
    )


def from_file(path: Path, settings: Mapping[str, Any]) -> Model:
    """Open a single file, whose networks diffusers builds.

    The text encoder is another plugin's, which reads folders. So its part is written to a temporary
    folder.

    Args:
        path: The file.
        settings: `config` and `vae`, as `open_pretrained` has them.

    Returns:
        The model.

    Raises:
        UserError: A part or a tensor is missing, or the configuration does not fit.
    """
    shapes = shapes_of(path) or {}
    _check_parts(path, shapes, "vae" in settings)
    vae = autoencoder(settings["vae"], settings.get("config")) if "vae" in settings else None
    pipeline = _converted(path, settings.get("config"), vae)
    refuse_networks(pipeline.unet.config, pipeline.vae.config, path)
    if any(name.startswith(AVERAGED) for name in shapes):
        note(f"{path}: it has averaged weights too ({AVERAGED}*); as in diffusers, the others are "
             "used")  # fmt: skip
    scheduler = _scheduler(path, pipeline.scheduler, shapes)
    described = Described(path, pipeline.unet.config, pipeline.vae.config, scheduler, None)
    with tempfile.TemporaryDirectory() as place:
        parts = {"weights": f"{place}/text_encoder", "tokenizer": f"{place}/tokenizer"}
        pipeline.text_encoder.save_pretrained(parts["weights"])
        pipeline.tokenizer.save_pretrained(parts["tokenizer"])
        check_text(Path(place))
        temporary = described.run_config(parts).encoder
        text_encoder = import_object(registry().encoders[temporary.name].build)(
            temporary.config, None
        )
    run = described.run_config({"weights": str(path)})
    assert isinstance(run.settings, LDMConfig)
    generator = LDMGenerator(run.settings, text_encoder.shape, vae=pipeline.vae, unet=pipeline.unet)
    return Model(run, generator, text_encoder)


def _check_parts(path: Path, shapes: Shapes, vae_given: bool) -> None:
    """Raise UserError if the file is of another task, or lacks a part."""
    what = family(shapes).what
    if "input channels" in what:
        raise UserError(f"{path} is {what}; t2i samples from noise and text only")
    lacking = [
        part
        for part in ("text", "vae")
        if not any(name.startswith(PREFIXES[part]) for name in shapes)
        and not (part == "vae" and vae_given)
    ]
    if lacking:
        remedy = (
            "give one with --set vae=FILE_OR_FOLDER"
            if lacking == ["vae"]
            else "get the whole checkpoint"
        )
        missing = " and no ".join(f"{NAMES[part]} ({PREFIXES[part]}*)" for part in lacking)
        raise UserError(f"{path} is a file of Stable Diffusion with no {missing}: {remedy}")


def _scheduler(path: Path, scheduler: Any, shapes: Shapes) -> Any:
    """Return the configuration's scheduler, with what marks in the file say."""
    name, config = type(scheduler).__name__, dict(scheduler.config)
    marks = [mark for mark in (V_PREDICTION, ZERO_SNR) if mark in shapes]
    if V_PREDICTION in marks:
        config["prediction_type"] = "v_prediction"
    if ZERO_SNR in marks:
        if "rescale_betas_zero_snr" not in inspect.signature(type(scheduler).__init__).parameters:
            name = DDIMScheduler.__name__
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    if marks:
        meanings = {V_PREDICTION: "v-prediction", ZERO_SNR: "a schedule of zero terminal SNR"}
        note(f"{path}: marked {', '.join(marks)}: sampled with "
             f"{' and '.join(meanings[mark] for mark in marks)} by {name}")  # fmt: skip
    return known_scheduler(name, config, str(path), **FORCED)


def _check_described(folder: Path, index: Mapping[str, Any], path: Path) -> None:
    """Check the folder of a file's configuration before diffusers reads it, and its sizes."""
    shapes = [*(shapes_of(path) or {}).values()]
    check_pipeline(folder, LAYOUT.parts)
    read_scheduler(folder / "scheduler", classes(index)["scheduler"], **FORCED)
    check_config(folder / "text_encoder", shapes)
    for name, kind in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        check_sizes(network_config(folder / name, kind), folder / name / "config.json", shapes)


def _converted(path: Path, config: Any, vae: Any) -> Any:
    """Return diffusers' pipeline of a single file.

    `config` and `vae` are as in `from_file`, or None.
    """
    given = dict.fromkeys(LAYOUT.left_out) | ({} if vae is None else {"vae": vae})
    known = {} if config is None else {"config": str(config), "local_files_only": True}
    if config is not None:
        folder = Path(str(config))
        index = pipeline_index(folder)
        if index is None or index.get("_class_name") != LAYOUT.pipeline:
            raise UserError(
                f"config = {config}: no folder with the model_index.json of a {LAYOUT.pipeline} in "
                "diffusers' layout"
            )
        LAYOUT.check_index(index, folder)
        LAYOUT.check_files(index, folder)
        _check_described(folder, index, path)
    try:
        with no_bars():
            pipeline = StableDiffusionPipeline.from_single_file(
                str(path), torch_dtype=torch.float32, requires_safety_checker=False, **given,
                **known,
            )  # fmt: skip
    except Exception as error:  # diffusers, transformers and the hub raise errors of any class
        check_whole(path, config, with_vae=vae is None)
        raise UserError(
            f"{path}: diffusers cannot convert it ({in_one_line(error)}); if its "
            "configuration cannot be downloaded, name a folder that has it, such as a copy of "
            "stable-diffusion-v1-5 without weights, with --set config=FOLDER"
        ) from None
    check_text_encoder(path, pipeline.text_encoder)
    return pipeline
