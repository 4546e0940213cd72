"""The text encoder `none`, for models that sample without text.

It is an ordinary text encoder, so that no other code needs a special case for models without text.
"""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import TextEncoderSpec


@hookimpl
def t2i_text_encoders() -> list[TextEncoderSpec]:
    """Declare the text encoder `none`.

    Returns:
        Its specification.
    """
    return [
        TextEncoderSpec(
            name="none",
            summary="No text: every caption is the same one number",
            config="t2i.core.settings:Config",
            build="t2i.plugins.encoders.none.encoder:build",
        )
    ]
