"""Several text encoders at once, as in Stable Diffusion XL and 3."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import TextEncoderSpec


@hookimpl
def t2i_text_encoders() -> list[TextEncoderSpec]:
    """Declare the text encoder `joined`.

    Returns:
        Its specification.
    """
    return [
        TextEncoderSpec(
            name="joined",
            summary="Several text encoders that read the same caption (SDXL's two, SD 3's three)",
            config="t2i.plugins.encoders.joined.config:JoinedConfig",
            build="t2i.plugins.encoders.joined.encoder:build",
            export="t2i.plugins.encoders.joined.export:export",
        )
    ]
