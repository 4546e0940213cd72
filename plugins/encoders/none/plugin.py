"""No text, for models that draw without: as a text encoder, so that nothing else need know."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import TextEncoderSpec


@hookimpl
def t2i_text_encoders() -> list[TextEncoderSpec]:
    return [
        TextEncoderSpec(
            name="none",
            summary="No text: every caption is the same one number",
            config="t2i.core.settings:Config",
            build="t2i.plugins.encoders.none.encoder:build",
        )
    ]
