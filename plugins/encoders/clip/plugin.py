"""CLIP, frozen, from the Hugging Face hub or a local folder.

Its text half is a text encoder. Both halves are features that images and captions are scored with.
"""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import DownloadSpec, FeatureSpec, HubFiles, TextEncoderSpec


@hookimpl
def t2i_text_encoders() -> list[TextEncoderSpec]:
    """Declare the text encoder `clip`.

    Returns:
        Its specification.
    """
    return [
        TextEncoderSpec(
            name="clip",
            summary=(
                "CLIP's text encoder, frozen; by hub name or from a local folder (encoder.weights)"
            ),
            config="t2i.plugins.encoders.clip.config:ClipConfig",
            build="t2i.plugins.encoders.clip.encoder:build",
            export="t2i.plugins.encoders.clip.export:export",
        )
    ]


@hookimpl
def t2i_downloads() -> list[DownloadSpec]:
    """Declare the downloads of three CLIPs, under the names of their features.

    Returns:
        Their specifications.
    """
    return [
        # The main revision holds pickles only; this one is the conversion by the hub's own bot.
        _download(
            "clip",
            "ViT-B/32, GALIP's and the CLIP score's",
            "openai/clip-vit-base-patch32",
            "refs/pr/66",
        ),
        _download(
            "clip-vit-b-16", "ViT-B/16, a second judge", "openai/clip-vit-base-patch16", "main"
        ),
        _download(
            "clip-vit-l-14",
            "ViT-L/14, Stable Diffusion 1.x's",
            "openai/clip-vit-large-patch14",
            "main",
        ),
    ]


def _download(name: str, what: str, repository: str, revision: str) -> DownloadSpec:
    return DownloadSpec(
        name=name,
        summary=f"CLIP {what}: both encoders and the tokenizer",
        licence="MIT",
        licence_url="https://github.com/openai/CLIP/blob/main/LICENSE",
        hub=(HubFiles(repository=repository, revision=revision),),
    )


@hookimpl
def t2i_features() -> list[FeatureSpec]:
    """Declare the features `clip`, `clip-vit-b-16` and `clip-vit-l-14`.

    Returns:
        Their specifications.
    """
    return [
        _features(
            "clip",
            "CLIP ViT-B/32: images and captions in one space (GALIP trains with it)",
            "common.clip.config:ClipFeatures",
        ),
        _features(
            "clip-vit-b-16",
            "CLIP ViT-B/16: a second judge beside `clip`",
            "encoders.clip.config:ClipB16",
        ),
        _features(
            "clip-vit-l-14",
            "CLIP ViT-L/14: a larger second judge (Stable Diffusion reads with it)",
            "encoders.clip.config:ClipL14",
        ),
    ]


def _features(name: str, summary: str, config: str) -> FeatureSpec:
    return FeatureSpec(
        name=name, summary=summary, config=f"t2i.plugins.{config}Config",
        build="t2i.plugins.common.clip.features:build", text=True,
    )  # fmt: skip
