"""Read Stable Diffusion's folders and single files as models, and write models as such folders."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from safetensors import SafetensorError, safe_open
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.io.files import read_json
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.diffusion.scheduler_files import (
    GUIDANCE,
    known_scheduler,
    noise_settings,
    read_scheduler,
    sampler_section,
    scheduler_of,
)
from t2i.plugins.common.diffusion.time_grid import PREDICTION_TYPES
from t2i.plugins.common.latent.autoencoder import Autoencoder
from t2i.plugins.common.weights.diffusers_folders import (
    classes,
    part_of,
    pipeline_index,
    refuse_foreign_classes,
    save_network,
    square_size,
    unet_settings,
    write_index,
    write_scheduler,
)
from t2i.plugins.models.ldm.config import LDMConfig
from t2i.plugins.models.ldm.networks import LDMGenerator

PARTS = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")
STEPS, SCALE = 50, 7.5  # StableDiffusionPipeline's defaults: steps and guidance
SINGLE = "model.diffusion_model."  # prefix of the U-Net's tensors in a single file


def open_pretrained(path: Path, settings: Mapping[str, Any]) -> Model | None:
    """Open a Stable Diffusion (1.x, 2.x): a folder in diffusers' layout, or a safetensors file.

    The safety checker is not loaded.

    Args:
        path: The folder or the file.
        settings: `config` names a folder with the configuration of a single file. Without it
            diffusers downloads the configuration.

    Returns:
        The model; None if `path` is neither.

    Raises:
        UserError: The file is a pickle or damaged, cannot be converted, or `config` does not fit.
    """
    if path.is_dir():
        index = pipeline_index(path)
        if index is None or any(classes(index).get(name) != kind for name, kind in PARTS.items()):
            return None
        if "config" in settings:
            raise UserError(
                f"config = {settings['config']}: {path} is a folder with a configuration of its own"
            )
        return _from_folder(path.resolve())
    return _from_file(path.resolve(), settings.get("config")) if _is_single_file(path) else None


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
            ".safetensors file of it (which may be followed by a folder with its configuration)"
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
            sampler["spacing"] == "leading" and sampler["steps_offset"] != 1
        ),
    }
    found = [setting for setting, there in foreign_to_it.items() if there]
    if found:
        raise UserError(
            f"diffusers' StableDiffusionPipeline cannot express {', '.join(found)}: "
            "this run cannot be exported"
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


@dataclass(frozen=True)
class Described:
    """The configuration of a Stable Diffusion pipeline.

    Args:
        source: The pipeline's folder or its single file.
        unet: Configuration of the U-Net.
        vae: Configuration of the autoencoder.
        scheduler: diffusers' scheduler.
        guidance: Guidance scale. None: the pipeline's default.
    """

    source: Path
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    scheduler: Any
    guidance: float | None

    def run_config(self, encoder: Mapping[str, Any]) -> RunConfig:
        """Translate the configuration to our settings.

        Args:
            encoder: Settings of the text encoder `clip`, which all these pipelines have.

        Returns:
            The configuration of a run.

        Raises:
            UserError: Our settings cannot express the configuration.
        """
        vae, sampler = self.vae, sampler_section(self.scheduler, STEPS, self.guidance or SCALE)
        # As the pipeline does, whatever the folder says. Old folders omit these, but mean them.
        sampler |= {"steps_offset": 1, **({"clip": None} if "clip" in sampler else {})}
        autoencoder = {
            "weights": str(self.source / "vae") if self.source.is_dir() else str(self.source),
            "channels": vae["block_out_channels"],
            "layers": vae["layers_per_block"],
            "latent_channels": vae["latent_channels"],
            "attention": vae.get("mid_block_add_attention", True),
            "groups": vae["norm_num_groups"],
        }
        size = square_size(self.unet, self.source) * 2 ** (len(vae["block_out_channels"]) - 1)
        document = {
            "model": "ldm",
            "preset": "diffusers",
            "image_size": size,
            **noise_settings(self.scheduler),
            "autoencoder": autoencoder,
            "unet": unet_settings(
                self.unet, self.source / "unet" if self.source.is_dir() else self.source
            ),
            "data": {"name": "none"},
            "encoder": {"name": "clip", "sentence": "pooled", "attend_padding": True, **encoder},
            "sampler": sampler,
        }
        return RunConfig.parse(document, str(self.source))


def _from_folder(path: Path) -> Model:
    """Open a folder in diffusers' layout."""
    unet, vae = (
        read_json(path / name / "config.json", f"folder {path}") for name in ("unet", "vae")
    )
    described = Described(path, unet, vae, *read_scheduler(part_of(path, "scheduler")))
    return build(
        described.run_config(
            {"weights": str(path / "text_encoder"), "tokenizer": str(path / "tokenizer")}
        )
    )


def _is_single_file(path: Path) -> bool:
    """Return whether a path is a safetensors file of Stable Diffusion. A pickle is refused."""
    if path.suffix == ".ckpt" and path.is_file():
        raise UserError(
            f"{path} is a pickle, which can run code: only safetensors are read; "
            "get the .safetensors file"
        )
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        with safe_open(path, "pt") as file:
            # The file is no mapping.
            return any(name.startswith(SINGLE) for name in file.keys())  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{path} is no sound safetensors file ({str(error)[:80]})") from None


def _from_file(path: Path, config: Any) -> Model:
    """Open a single file, whose networks diffusers builds.

    The text encoder is another plugin's, which reads folders. So its part is written to a temporary
    folder.
    """
    pipeline = _converted(path, config)
    scheduler = known_scheduler(type(pipeline.scheduler).__name__, pipeline.scheduler.config)
    described = Described(path, pipeline.unet.config, pipeline.vae.config, scheduler, None)
    with tempfile.TemporaryDirectory() as place:
        parts = {"weights": f"{place}/text_encoder", "tokenizer": f"{place}/tokenizer"}
        pipeline.text_encoder.save_pretrained(parts["weights"])
        pipeline.tokenizer.save_pretrained(parts["tokenizer"])
        temporary = described.run_config(parts).encoder
        text_encoder = import_object(registry().encoders[temporary.name].build)(
            temporary.config, None
        )
    run = described.run_config({"weights": str(path)})
    assert isinstance(run.settings, LDMConfig)
    generator = LDMGenerator(run.settings, text_encoder.shape, vae=pipeline.vae, unet=pipeline.unet)
    return Model(run, generator, text_encoder)


def _converted(path: Path, config: Any) -> Any:
    """Return diffusers' pipeline of a single file. `config` as in `open_pretrained`, or None."""
    left_out = dict.fromkeys(LEFT_OUT)
    known = {} if config is None else {"config": str(config), "local_files_only": True}
    if config is not None:
        index = pipeline_index(Path(str(config)))
        if index is None:
            raise UserError(
                f"config = {config}: no folder with model_index.json in diffusers' layout"
            )
        refuse_foreign_classes(index, Path(str(config)))
    try:
        return StableDiffusionPipeline.from_single_file(
            str(path), torch_dtype=torch.float32, requires_safety_checker=False, **left_out, **known
        )
    except Exception as error:  # diffusers, transformers and the hub raise errors of any class
        reason = str(error).partition("\n")[0][:200]
        raise UserError(
            f"{path}: diffusers cannot convert it ({type(error).__name__}: {reason}); if its "
            "configuration cannot be downloaded, name a folder that has it, such as a copy of "
            "stable-diffusion-v1-5 without weights, with --set config=FOLDER"
        ) from None
