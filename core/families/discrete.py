"""The family of discrete diffusion generators, such as VQ-Diffusion and MaskGIT.

The noise masks and replaces tokens, and the network predicts all tokens of an image at once.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor

from t2i.core.families.token_schedule import TokenSchedule
from t2i.core.interfaces.generator import Generator, Tolerance
from t2i.core.interfaces.text import TextFeatures


class DiscreteDiffusionGenerator(Generator):
    """A generator that predicts clean tokens: `generator(x_t, t, text)` returns logits of x_0.

    Attributes:
        length: Number of tokens of an image.
        schedule: How tokens are masked and replaced over the timesteps. It also determines what `t`
            is: an index or a real number. Tokens are clean at timestep 0, where the network is
            never called.
    """

    family = "discrete-diffusion"
    tolerance: Tolerance = "statistical"
    length: int
    schedule: TokenSchedule

    @property
    def vocabulary(self) -> int:
        """The number K of different clean tokens. The index K stands for the mask."""
        return self.schedule.vocabulary

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        """Predict the clean tokens.

        Args:
            x_t: Noisy tokens, int64 (B, length), from 0 to K.
            t: Timestep of each image, (B,).
            text: Features of B captions, as `condition` returned them.

        Returns:
            Logits of x_0, (B, length, K).
        """

    @abstractmethod
    def decode(self, tokens: Tensor) -> Tensor:
        """Turn clean tokens into images.

        Args:
            tokens: Tokens, int64 (B, length), from 0 to K - 1.

        Returns:
            Images, (B, 3, H, W) in [-1, 1].
        """

    def encode(self, images: Tensor) -> Tensor:
        """Turn images into clean tokens. Optional: sampling does not need it.

        Args:
            images: Images, (B, 3, H, W) in [-1, 1].

        Returns:
            Tokens, int64 (B, length), from 0 to K - 1.

        Raises:
            NotImplementedError: The generator cannot encode images.
        """
        raise NotImplementedError(f"{type(self).__name__} turns no images into tokens")

    if TYPE_CHECKING:

        def __call__(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor: ...
