"""CLIP's text encoder as a plugin: frozen, from the Hugging Face hub or a local folder."""

from __future__ import annotations

from t2i.core.hooks import hookimpl
from t2i.core.specs import TextEncoderSpec


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
