"""The models `ddpm` and `ddim`: one network, with one sampler or the other."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec

PRESETS = ("tiny", "cifar", "coco64", "shapes", "adm64", "adm128", "adm256", "adm512")


@hookimpl
def t2i_models() -> list[ModelSpec]:
    """Declare the models `ddpm` and `ddim`.

    Returns:
        Their specifications.
    """
    return [
        ModelSpec(
            name="ddpm",
            summary="Diffusion on pixels: a text-conditional U-Net",
            family="diffusion",
            paper="Ho et al. 2020, arXiv:2006.11239",
            config="t2i.plugins.models.ddpm.config:DDPMConfig",
            presets=PRESETS,
            generator="t2i.plugins.models.ddpm.networks:DDPMGenerator",
            stages="t2i.plugins.models.ddpm.training:stages",
            weights="t2i.plugins.models.ddpm.weights:load_weights",
            open_pretrained="t2i.plugins.models.ddpm.folders:open_pretrained",
            opens="folders of diffusers' DDPMPipeline and DDIMPipeline",
            export="t2i.plugins.models.ddpm.folders:export",
            likelihood="t2i.plugins.common.diffusion.likelihood:flow_likelihood",
        ),
        ModelSpec(
            name="ddim",
            summary="ddpm's network, sampled in a few steps with DDIM",
            family="diffusion",
            paper="Song et al. 2021, arXiv:2010.02502",
            config="t2i.plugins.models.ddpm.config:DDIMModelConfig",
            presets=PRESETS,
            generator="t2i.plugins.models.ddpm.networks:DDPMGenerator",
            stages="t2i.plugins.models.ddpm.training:stages",
            export="t2i.plugins.models.ddpm.folders:export",
            likelihood="t2i.plugins.common.diffusion.likelihood:flow_likelihood",
        ),
    ]
