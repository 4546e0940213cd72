"""The encoder `none`: captions go in, and nothing of them comes out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape
from t2i.core.settings import Config


class NoText(TextEncoder):
    """sentence: (B, 1) zeros. words: (B, 1, 1), the same."""

    def __init__(self) -> None:
        super().__init__()
        self.shape = TextShape(1, 1)
        self.nothing = nn.Parameter(torch.zeros(1), requires_grad=False)  # it says on which device

    def encode(self, captions: Sequence[str]) -> TextFeatures:
        return TextFeatures.of(sentence=self.nothing.expand(len(captions), 1), captions=captions)


def build(config: Config, assets: Path | None) -> NoText:
    return NoText()
