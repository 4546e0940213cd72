"""CLIP-guided VQGAN: latents of a VQGAN, scored by CLIP.

Source: Crowson et al. 2022.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor
from torch.nn import functional as F

from t2i.core.families.optimised import OptimisedGenerator
from t2i.core.interfaces.noise import Noise
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.clip.vision import ClipVision, build_clip
from t2i.plugins.common.tokens.tokenizer import ImageTokenizer, keep_tokenizer, tokenizer_of
from t2i.plugins.models.clipvqgan.config import ClipVQGANConfig
from t2i.plugins.models.clipvqgan.cutouts import cutouts_of
from t2i.plugins.models.clipvqgan.losses import (
    Bounded,
    nearest,
    prompt_loss,
    regulariser_weight,
    spherical_distance,
    total_variation,
)


class ClipVQGAN(OptimisedGenerator):
    """Images are decoded latents; their score is minus the distance of CLIP's vectors.

    Latents z are (B, D, h, w). They become the nearest vectors of the codebook, straight through,
    then an image, then cutouts, which CLIP compares with the caption.

    Args:
        config: The model's settings.
        tokenizer: The VQGAN.
        clip: CLIP's image encoder.
    """

    def __init__(
        self, config: ClipVQGANConfig, tokenizer: ImageTokenizer, clip: ClipVision
    ) -> None:
        super().__init__()
        self.config, self.tokenizer, self.clip = config, tokenizer, clip
        self.image_size = config.image_size

    @property
    def codes(self) -> Tensor:
        """The vectors of the codebook, (K, D)."""
        return self.tokenizer.quantizer.codes.detach()

    def condition(self, text: TextFeatures) -> TextFeatures:
        """Scale the sentence to length 1: the point that cutouts are drawn to.

        Args:
            text: Text features.

        Returns:
            The same features with `aim`, (B, D), in `extras`.
        """
        extras = {**text.extras, "aim": F.normalize(text.sentence, dim=1)}
        return TextFeatures(text.sentence, text.words, text.mask, text.captions, extras)

    def start(self, noise: Noise) -> Tensor:
        """Make random latents.

        Args:
            noise: Source of random numbers.

        Returns:
            Latents (B, D, h, w).
        """
        side, codes = self.tokenizer.side, self.codes
        if self.config.start == "uniform":
            return 2 * noise.uniform("start", 0, (codes.shape[1], side, side))
        drawn = (1, 1) if self.config.start == "flat" else (side, side)
        tokens = noise.integers("start", 0, len(codes), drawn).expand(-1, side, side)
        return codes[tokens.to(codes.device)].movedim(-1, 1).contiguous()

    def score(self, latents: Tensor, text: TextFeatures, noise: Noise, step: int) -> Tensor:
        config = self.config
        images = Bounded.apply((self.image(latents) + 1) / 2)
        cutouts = cutouts_of(images, self.clip.image_size, config.cutouts, noise, step)
        seen = self.clip.embedding(2 * cutouts - 1)
        seen = seen.view(len(latents), -1, seen.shape[1])
        distances = spherical_distance(seen, text.extras["aim"].unsqueeze(1))
        loss = prompt_loss(distances, config.weight, config.stop)
        if config.smooth:
            loss = loss + config.smooth * total_variation(images)
        return -loss - self.regulariser(latents, noise, step)

    def regulariser(self, latents: Tensor, noise: Noise, step: int) -> Tensor:
        """Compute half the weighted mean square of the latents, or of their way from the start.

        Args:
            latents: Latents (B, D, h, w).
            noise: The source that `start` was called with.
            step: Number of the step.

        Returns:
            The term of each image, (B,).
        """
        weight = regulariser_weight(self.config.regulariser, step)
        if not weight:
            return latents.new_zeros(len(latents))
        off = latents
        if self.config.regulariser.towards == "start":
            off = latents - self.start(noise)
        return weight / 2 * off.square().mean((1, 2, 3))

    def constrain(self, latents: Tensor) -> Tensor:
        """Clamp each channel to its range over the codebook.

        Args:
            latents: Latents (B, D, h, w).

        Returns:
            Latents within the range.
        """
        if not self.config.constrained:
            return latents
        low, high = self.codes.aminmax(dim=0)
        return latents.clamp(low.view(-1, 1, 1), high.view(-1, 1, 1))

    def image(self, latents: Tensor) -> Tensor:
        """Quantise latents straight through, and decode them.

        Args:
            latents: Latents (B, D, h, w).

        Returns:
            Images (B, 3, H, H), not clamped.
        """
        return self.tokenizer.reconstruct(nearest(latents, self.codes))

    def decode(self, latents: Tensor) -> Tensor:
        images = self.image(latents).clamp(-1, 1)
        for _ in range(self.config.snaps):
            images = self.tokenizer.decode(self.tokenizer.encode(images)).clamp(-1, 1)
        return images

    def save_assets(self, folder: Path) -> None:
        keep_tokenizer(self.tokenizer, folder)
        (folder / "clip").mkdir(exist_ok=True)
        self.clip.save_assets(folder / "clip")


def build(config: ClipVQGANConfig, text: TextShape, assets: Path | None) -> ClipVQGAN:
    """Build the generator.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of `save_assets`. None: a new model.

    Returns:
        The generator.

    Raises:
        UserError: Weights of a part cannot be loaded, or CLIP's images and the sentences differ in
            width.
    """
    described = None if assets is None else assets / "clip"
    clip = build_clip(config.clip, text.sentence, described, "model 'clipvqgan'")
    return ClipVQGAN(config, tokenizer_of(config.tokenizer, config.image_size, assets), clip)
