"""DAMSM in the training of AttnGAN and DM-GAN: its stage, its loss, and its image encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from t2i.core.interfaces.text import TextEncoder, TextShape
from t2i.core.interfaces.trainer import Batch, Networks, Stage, Trainer
from t2i.plugins.common.gan.losses.cross_entropy import discriminator_of_pairs_and_images
from t2i.plugins.common.gan.remedies.seen import Seen
from t2i.plugins.common.gan.trees.config import MatchedTreeConfig
from t2i.plugins.common.gan.trees.discriminator import Discriminator
from t2i.plugins.common.gan.trees.generator import TreeOutput
from t2i.plugins.common.gan.trees.training import TreeTrainer
from t2i.plugins.common.text.damsm import DamsmTrainer, ImageFeatures, damsm_losses
from t2i.plugins.common.text.image_encoder import check_source, image_encoder, load_image_encoder


def discriminator_loss(d: Discriminator, real: Tensor, fake: Tensor, sentence: Tensor) -> Tensor:
    """Return the loss of one discriminator: (real_u + real)/2 + (fake_u + fake + wrong)/3.

    The index u marks the unconditional output. A wrong pair is an image with the next image's
    sentence; the last image is in no wrong pair. Real, fake and wrong ones go through the network
    separately, so its batch norms see one kind at a time, and its spectral norms move on each time.

    Args:
        d: The discriminator.
        real: Real images, float (B, 3, S, S), B of at least 2.
        fake: Generated images of the same shape, without gradients.
        sentence: Sentence vectors, float (B, D).

    Returns:
        The loss, a scalar.
    """
    x, x_fake = d(real), d(fake)
    right, made = d.conditional(x, sentence), d.conditional(x_fake, sentence)
    wrong = d.conditional(x[:-1], sentence[1:])
    return discriminator_of_pairs_and_images(
        right, made, wrong, d.unconditional(x), d.unconditional(x_fake)
    )


class MatchedTreeTrainer(TreeTrainer):
    """The GAN stage of AttnGAN and DM-GAN: DAMSM's loss of the largest image is part of G's loss.

    Args:
        config: The model's settings.
        networks: The model's networks. Without the helper "image_encoder" L_DAMSM is left out.
        discriminators: D_i of each scale, the smallest images first.
    """

    config: MatchedTreeConfig

    def __init__(
        self, config: MatchedTreeConfig, networks: Networks, discriminators: Sequence[Discriminator]
    ) -> None:
        super().__init__(config, networks, discriminators)
        self.image_encoder = networks.helpers.get("image_encoder")

    def condition(self, drawn: TreeOutput) -> Tensor:
        return drawn.sentence

    def discriminator_loss(self, d: Discriminator, seen: Seen) -> Tensor:
        return discriminator_loss(d, seen.images, seen.generated, seen.condition)

    def further(self, drawn: TreeOutput, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        if self.image_encoder is None or not self.config.damsm_weight:
            return {}
        seen: ImageFeatures = self.image_encoder(drawn.images[-1])
        words, sentence = damsm_losses(
            seen, batch.text.detach(), self.config.damsm.smoothing, batch.extras.get("class_id")
        )
        return {"damsm": (self.config.damsm_weight, words + sentence)}


def helpers(config: MatchedTreeConfig, text: TextShape, fresh: bool) -> Mapping[str, nn.Module]:
    """Build DAMSM's image encoder, which stage `damsm` trains and stage `gan` needs.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        fresh: Whether to load the files of weights that the settings name.

    Returns:
        The network under the name "image_encoder". Empty if `image_encoder.kind` is "none".
    """
    encoder = image_encoder(config.image_encoder, config.image_size, text)
    if encoder is None:
        return {}
    if fresh:
        load_image_encoder(encoder, config.image_encoder)
    return {"image_encoder": encoder}


def matched_stages(
    config: MatchedTreeConfig,
    text_encoder: TextEncoder,
    gan: Callable[[Networks], Trainer],
    where: str,
) -> list[Stage]:
    """Return the stages: DAMSM, then the GAN.

    DAMSM is left out if the text encoder is frozen and the image encoder has weights or is left
    out. In stage `gan` both encoders are frozen: no optimizer holds their parameters.

    Args:
        config: The model's settings.
        text_encoder: The text encoder.
        gan: Function that makes the trainer of stage `gan`.
        where: The model, as errors name it.

    Returns:
        The stages `damsm` and `gan`, or `gan` alone.

    Raises:
        UserError: DAMSM is to be trained, and its image encoder is left out or has no file of
            weights.
    """
    second = Stage("gan", 1 - config.damsm_share, gan)
    if not text_encoder.trainable and (
        config.image_encoder.kind == "none" or config.image_encoder.weights
    ):
        return [second]
    check_source(config.image_encoder, where)

    def pretraining(networks: Networks) -> Trainer:
        return DamsmTrainer(config.damsm, networks.text_encoder, networks.helpers["image_encoder"])

    first = Stage("damsm", config.damsm_share, pretraining, {"batch_size": config.damsm.batch_size})
    return [first, second]
