"""Read Stable Diffusion's folders and single files as models, and write models as such folders."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.models.identify import identify
from t2i.core.models.model import Model
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.diffusion.scheduler_files import GUIDANCE, scheduler_of
from t2i.plugins.common.diffusion.time_grid import PREDICTION_TYPES
from t2i.plugins.common.latent.autoencoder import Autoencoder
from t2i.plugins.common.weights.diffusers_folders import (
    pipeline_index,
    save_network,
    write_index,
    write_scheduler,
)
from t2i.plugins.models.ldm.config import LDMConfig
from t2i.plugins.models.ldm.described import FORCED, LEFT_OUT, PARTS, PIPELINE, from_folder
from t2i.plugins.models.ldm.networks import LDMGenerator
from t2i.plugins.models.ldm.single_files import from_file, is_single_file

FILE_SETTINGS = ("config", "vae")


def open_pretrained(path: Path, settings: Mapping[str, Any]) -> Model | None:
    """Open a Stable Diffusion (1.x, 2.x): a folder in diffusers' layout, or a safetensors file.

    The safety checker is not loaded.

    Args:
        path: The folder or the file.
        settings: `config` names a folder with the configuration of a single file. Without it
            diffusers downloads the configuration. `vae` names the file or folder of an autoencoder
            to use instead of the single file's own.

    Returns:
        The model; None if `path` is neither.

    Raises:
        UserError: Something is missing or damaged, a setting of the pipeline cannot be followed, or
            `config` or `vae` does not fit.
    """
    if not path.is_dir():
        return from_file(path.resolve(), settings) if is_single_file(path) else None
    index = pipeline_index(path)
    if index is None or index.get("_class_name") != PIPELINE:
        return None
    for name in FILE_SETTINGS:
        if name in settings:
            raise UserError(
                f"{name} = {settings[name]}: {path} is a folder with a configuration and an "
                f"autoencoder of its own: leave out --set {name}=..."
            )
    return from_folder(path.resolve(), index)


def weights(config: RunConfig, files: Sequence[Path]) -> Model:
    """Open what `open_pretrained` opens (`t2i import`).

    Args:
        config: Not used: the files have their own configuration.
        files: FOLDER, FILE, or FILE and the FOLDER of its configuration.

    Returns:
        The model.

    Raises:
        UserError: The files are none of these, or cannot be opened.
    """
    model = (
        open_pretrained(files[0], {"config": str(files[1])} if len(files) == 2 else {})
        if len(files) <= 2
        else None
    )
    if model is None:
        raise UserError(
            f"{files[0]}: no Stable Diffusion folder in diffusers' layout, nor a single "
            ".safetensors file of it (which may be followed by a folder with its configuration): "
            f"it is {identify(files[0]).sentence}"
        )
    return model


def export(model: Model, folder: Path) -> None:
    """Write a model as a folder that diffusers' StableDiffusionPipeline opens.

    Args:
        model: The model.
        folder: The folder to write to.

    Raises:
        UserError: The model has settings that the pipeline cannot express. The error names them.
    """
    generator, config = model.generator, model.config
    assert isinstance(generator, LDMGenerator)
    encoder = registry().encoders[config.encoder.name]
    _check_plain(config, encoder.export is not None)
    parts = import_object(str(encoder.export))(model.text_encoder, folder)
    save_network(generator.unet.unet, folder / "unet")
    save_network(_plain(generator.autoencoder), folder / "vae")
    scheduler = scheduler_of(config, unused_offset=1)  # the pipeline warns about any other offset
    _check_kept(scheduler.config)
    write_scheduler(folder / "scheduler", scheduler, **{GUIDANCE: config.sampler.config.guidance})
    ours = {"unet": ("diffusers", PARTS["unet"]), "vae": ("diffusers", PARTS["vae"])}
    left_out = dict.fromkeys(LEFT_OUT, (None, None))
    listed = {**parts, **ours, **left_out, "scheduler": ("diffusers", type(scheduler).__name__)}
    write_index(folder, "StableDiffusionPipeline", listed, requires_safety_checker=False)


def _check_plain(run: RunConfig, encoder: bool) -> None:
    """Raise UserError if the pipeline cannot express the run.

    Args:
        run: The run's configuration.
        encoder: Whether the text encoder can be exported.
    """
    config, sampler = run.settings, run.sampler.config.model_dump()
    assert isinstance(config, LDMConfig)
    foreign_to_it = {
        f"autoencoder.patch={config.autoencoder.patch}": config.autoencoder.patch != 1,
        f"unet.middle={config.unet.middle}": not config.unet.words,
        f"unet.text_map={config.unet.text_map}": config.unet.text_map > 0,
        "unet.sentence=true": config.unet.sentence,
        "unet.context=sentence": config.unet.context == "sentence",
        "schedule=mixing": config.schedule == "mixing",
        f"prediction={config.prediction}": config.prediction not in PREDICTION_TYPES,
        f"encoder.name={run.encoder.name}": not encoder,
        "sampler.spacing=leading but with sampler.steps_offset=1": (
            sampler.get("spacing") == "leading" and sampler["steps_offset"] != 1
        ),
    }
    found = [setting for setting, there in foreign_to_it.items() if there]
    if found:
        raise UserError(
            f"diffusers' StableDiffusionPipeline cannot express {', '.join(found)}: "
            "this run cannot be exported"
        )


def _check_kept(scheduler: Mapping[str, Any]) -> None:
    """Raise UserError if the pipeline would change the settings of a scheduler."""
    leading = scheduler.get("timestep_spacing") == "leading"
    for key, value in FORCED.items():
        used = leading if key == "steps_offset" else True
        if used and scheduler.get(key, value) != value:
            raise UserError(
                f"diffusers' StableDiffusionPipeline changes {key} of schedulers to {value}: this "
                f"run has {scheduler[key]}, and cannot be exported"
            )


def _plain(autoencoder: Autoencoder) -> Any:
    """Return a network of diffusers whose latents, times its scaling_factor, are ours.

    An autoencoder that came with its weights is one already. In ours, whitening z = W (m - mean)
    and its inverse are linear maps of the channels at each position, like the 1x1 convolutions
    before and behind the latents. They are folded into these convolutions, exactly.
    """
    vae = autoencoder.vae
    if autoencoder.pretrained:
        return vae
    vae = copy.deepcopy(vae)
    W, C, mean = (
        x.flatten(1).double().cpu()
        for x in (autoencoder.whitening, autoencoder.colouring, autoencoder.mean)
    )
    channels = len(W)
    quant, post = vae.quant_conv, vae.post_quant_conv
    weight, bias = quant.weight.flatten(1).double().cpu(), quant.bias.double().cpu()
    # We do not use the posterior's variances. This diagonal is exact if all channels' are equal.
    spread = W.square().sum(1).log()
    means = W @ weight[:channels], W @ (bias[:channels] - mean[:, 0])
    _set(
        quant,
        torch.cat([means[0], weight[channels:]]),
        torch.cat([means[1], bias[channels:] + spread]),
    )
    weight, bias = post.weight.flatten(1).double().cpu(), post.bias.double().cpu()
    _set(post, weight @ C, weight @ mean[:, 0] + bias)
    vae.register_to_config(scaling_factor=1.0)
    return vae


@torch.no_grad()
def _set(convolution: Any, weight: Tensor, bias: Tensor) -> None:
    """Set weight (C_out, C_in) and bias (C_out,) of a 1x1 convolution."""
    convolution.weight.copy_(weight[..., None, None])
    convolution.bias.copy_(bias)
