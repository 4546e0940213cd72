"""Write models as folders that diffusers' pipelines open."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.models.model import Model
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.diffusion.flow_files import flow_scheduler_of
from t2i.plugins.common.diffusion.scheduler_files import GUIDANCE, scheduler_of
from t2i.plugins.common.latent.autoencoder import Autoencoder
from t2i.plugins.common.weights.diffusers_folders import (
    save_network,
    write_index,
    write_scheduler,
)
from t2i.plugins.models.ldm import described, pixart, sd3, sdxl
from t2i.plugins.models.ldm.config import LDMConfig
from t2i.plugins.models.ldm.layout import Layout
from t2i.plugins.models.ldm.networks import LatentGenerator, LDMGenerator
from t2i.plugins.models.ldm.transformers import TransformerGenerator

KINDS: Mapping[str, Any] = {"unet": described, "sdxl": sdxl, "sd3": sd3, "pixart": pixart}
"""Modules that describe pipelines, by the setting `network`."""


def export(model: Model, folder: Path) -> None:
    """Write a model as a folder that diffusers' pipeline of its kind opens.

    Args:
        model: The model.
        folder: The folder to write to.

    Raises:
        UserError: The model has settings that the pipeline cannot express. The error names them.
    """
    generator, run = model.generator, model.config
    assert isinstance(generator, LatentGenerator)
    network = generator.config.network
    layout: Layout = KINDS[network].LAYOUT
    encoder = registry().encoders[run.encoder.name]
    _check_expressed(layout.pipeline, run, encoder.export is not None)
    scheduler = _scheduler(run, layout.pipeline)
    parts = import_object(str(encoder.export))(model.text_encoder, folder, network != "unet")
    denoiser = "transformer" if isinstance(generator, TransformerGenerator) else "unet"
    save_network(_denoiser(generator), folder / denoiser)
    save_network(_plain(generator.autoencoder), folder / "vae")
    write_scheduler(folder / "scheduler", scheduler, **{GUIDANCE: run.sampler.config.guidance})
    ours = {name: ("diffusers", layout.parts[name][0]) for name in (denoiser, "vae")}
    left_out = dict.fromkeys((*layout.left_out, *layout.optional), (None, None))
    listed = {**left_out, **parts, **ours, "scheduler": ("diffusers", type(scheduler).__name__)}
    more = sdxl.entries(run) if network == "sdxl" else {}
    more |= {"requires_safety_checker": False} if network == "unet" else {}
    write_index(folder, layout.pipeline, listed, **more)


def _denoiser(generator: LatentGenerator) -> Any:
    """Return diffusers' network that denoises."""
    if isinstance(generator, TransformerGenerator):
        return generator.transformer
    assert isinstance(generator, LDMGenerator)
    return generator.unet.unet


def _scheduler(run: RunConfig, pipeline: str) -> Any:
    """Return diffusers' scheduler for a run, as the pipeline takes it."""
    if pipeline == sd3.LAYOUT.pipeline:
        return flow_scheduler_of(run)
    if pipeline != described.LAYOUT.pipeline:
        return scheduler_of(run)
    scheduler = scheduler_of(run, unused_offset=1)  # the pipeline warns about any other offset
    _check_kept(scheduler.config)
    return scheduler


def _check_expressed(pipeline: str, run: RunConfig, encoder: bool) -> None:
    """Raise UserError if the pipeline cannot express the run.

    Args:
        pipeline: Class of the pipeline.
        run: The run's configuration.
        encoder: Whether the text encoder can be exported.
    """
    config = run.settings
    assert isinstance(config, LDMConfig)
    unlike = {
        f"autoencoder.patch={config.autoencoder.patch}": config.autoencoder.patch != 1,
        f"autoencoder.regularisation={config.autoencoder.regularisation}": (
            config.autoencoder.regularisation != "kl"
        ),
        f"encoder.name={run.encoder.name}": not encoder,
        **KINDS[config.network].unlike(run),
    }
    found = [setting for setting, there in unlike.items() if there]
    if found:
        raise UserError(
            f"diffusers' {pipeline} cannot express {', '.join(found)}: this run cannot be exported"
        )


def _check_kept(scheduler: Mapping[str, Any]) -> None:
    """Raise UserError if the pipeline would change the settings of a scheduler."""
    leading = scheduler.get("timestep_spacing") == "leading"
    for key, value in described.FORCED.items():
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
