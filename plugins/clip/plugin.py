"""CLIP's text encoder as a plugin: frozen, from the Hugging Face hub or a local folder."""

from __future__ import annotations

from t2i.core.hooks import hookimpl
from t2i.core.specs import DownloadSpec, HubFiles, TextEncoderSpec


@hookimpl
def t2i_text_encoders() -> list[TextEncoderSpec]:
    return [
        TextEncoderSpec(
            name="clip",
            summary="CLIP's text encoder, frozen; by hub name or from a local folder (encoder.weights)",
            config="t2i.plugins.clip.config:ClipConfig",
            build="t2i.plugins.clip.encoder:build",
            export="t2i.plugins.clip.export:export",
        )
    ]


@hookimpl
def t2i_downloads() -> list[DownloadSpec]:
    return [
        # Its main revision holds pickles only; this one is the hub's own conversion of it.
        _download("clip", "ViT-B/32, GALIP's and the CLIP score's", "openai/clip-vit-base-patch32", "refs/pr/15"),
        _download("clip-vit-l-14", "ViT-L/14, Stable Diffusion 1.x's", "openai/clip-vit-large-patch14", "main"),
    ]


def _download(name: str, what: str, repository: str, revision: str) -> DownloadSpec:
    return DownloadSpec(
        name=name,
        summary=f"CLIP {what}: both encoders and the tokenizer",
        licence="MIT",
        licence_url="https://github.com/openai/CLIP/blob/main/LICENSE",
        hub=(HubFiles(repository=repository, revision=revision),),
    )
