"""ADM's U-Net for captions: the sentence, or a class, joins the timestep embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.adm.config import AdmConfig
from t2i.plugins.common.diffusion.adm.unet import AdmUNet
from t2i.plugins.common.diffusion.text_map import conditioned

EMBEDDING = "sentence embedding"  # name of the projected sentence or class in the text's extras


class AdmNetwork(nn.Module):
    """ADM's U-Net, called like the other U-Nets: `unet(x_t, t, text)`, after `condition(text)`.

    The sentence takes the place of the paper's class. With `encoder_kv` above 0, all words join the
    keys and values of every attention (GLIDE).

    Args:
        config: Settings of the network.
        channels: Channels of the images.
        out_channels: Channels of the output.
        size: Height of the images in pixels.
        text: Widths of the text features. A sentence of width 1 (encoder `none`) is not read.
        classes: Names of the classes, of which captions are then one. (): captions are text.

    Raises:
        UserError: `encoder_kv` is not the width of a word.
    """

    def __init__(
        self, config: AdmConfig, channels: int, out_channels: int, size: int, text: TextShape,
        classes: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        if config.encoder_kv not in (0, text.words):
            raise UserError(
                f"adm.encoder_kv = {config.encoder_kv}: words of the text encoder have "
                f"{text.words} values; set it to that"
            )
        self.classes, self.step, self.kv = classes, config.step, config.encoder_kv > 0
        self.unet = AdmUNet(config, channels, out_channels, size)
        width = config.embedding_width
        self.label_emb = nn.Embedding(len(classes), width) if classes else None
        read = text.sentence > 1 and not classes
        self.sentence = nn.Linear(text.sentence, width) if read else None

    def condition(self, text: TextFeatures) -> TextFeatures:
        """Project the sentences, or look up the classes that the captions name.

        Args:
            text: Features of B captions.

        Returns:
            The text, with the projection among its extras.

        Raises:
            UserError: The network reads classes, and a caption is no name of one.
        """
        if self.label_emb is not None:
            numbers = class_numbers(text.captions, self.classes)
            emb = self.label_emb(torch.tensor(numbers, device=self.label_emb.weight.device))
        elif self.sentence is not None:
            emb = self.sentence(text.sentence)
        else:
            return text
        return replace(text, extras={**text.extras, EMBEDDING: emb})

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        """Compute the network's output.

        Args:
            x_t: Noisy images, float (B, channels, h, w).
            t: Timesteps, (B,).
            text: Conditioned captions.

        Returns:
            The output, float (B, out_channels, h, w).
        """
        reads = self.label_emb is not None or self.sentence is not None
        emb = conditioned(text, EMBEDDING) if reads else None
        words, mask = (text.words.mT, text.mask) if self.kv else (None, None)
        output: Tensor = self.unet(x_t, t, emb, words, mask)
        return output


def class_numbers(captions: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Return the numbers of the classes that captions name.

    Args:
        captions: The captions.
        classes: Names of all classes.

    Returns:
        A number from 0 for each caption.

    Raises:
        UserError: A caption is no name of a class.
    """
    numbers = {name: i for i, name in enumerate(classes)}
    for caption in captions:
        if caption not in numbers:
            raise UserError(
                f"caption '{caption[:80]}': these weights know classes only, by name: "
                f"{', '.join(classes[:10])}{' ..' if len(classes) > 10 else ''}"
            )
    return [numbers[caption] for caption in captions]
