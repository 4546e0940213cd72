"""The encoder `none`, whose features do not depend on the captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from t2i.core.interfaces.text import Reading, TextEncoder, TextFeatures, TextShape
from t2i.core.settings import Config


class NoText(TextEncoder):
    """Encode every caption as the number 0.

    `sentence` is (B, 1) and `words` is (B, 1, 1); both hold zeros.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shape = TextShape(1, 1)
        # A frozen parameter moves with the module, so its device is the encoder's device.
        self.nothing = nn.Parameter(torch.zeros(1), requires_grad=False)

    def reading(self, caption: str) -> Reading:
        return Reading("words", len(caption.split()), (), 0)

    def encode(self, captions: Sequence[str]) -> TextFeatures:
        return TextFeatures.of(sentence=self.nothing.expand(len(captions), 1), captions=captions)


def build(config: Config, assets: Path | None) -> NoText:
    """Build the encoder.

    Args:
        config: Ignored; there are no settings.
        assets: Ignored; there are no files.

    Returns:
        The encoder.
    """
    return NoText()
