"""Networks of CVAE-GAN: encoder, generator, discriminator and matcher.

Source: Bao et al. 2017, section 3 and figure 2.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.families.one_shot import OneShotGenerator
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.gan.blocks.upsampling import UpConv3x3
from t2i.plugins.common.gan.conditioning.fusion import UpBlock
from t2i.plugins.common.variational.gaussian import Gaussian, split
from t2i.plugins.models.cvaegan.config import START, CVAEGANConfig

JOINT = 256
"""Width of the layer that the features f_D and f_C are taken from, and of the matcher's vectors."""


def widths(base: int, image_size: int, most: int) -> list[int]:
    """Return the channels at each size, from the image's size down to 4x4.

    Args:
        base: Channels at the image's size.
        image_size: Side of the images in pixels, a power of two.
        most: Largest multiple of the base.

    Returns:
        One width for each size.
    """
    return [base * min(2**i, most) for i in range((image_size // START).bit_length())]


class Trunk(nn.Module):
    """Convolutions that halve an image down to 4x4 places, as DCGAN's discriminator.

    Args:
        width: Channels after the first convolution. Each further one has twice as many, up to eight
            times.
        image_size: Side of the images in pixels.
        norm: Whether batch norm follows all convolutions but the first.

    Attributes:
        out: Number of the result's values for an image.
    """

    def __init__(self, width: int, image_size: int, norm: bool) -> None:
        super().__init__()
        channels = widths(width, image_size // 2, 8)
        self.first = nn.Conv2d(3, channels[0], 4, stride=2, padding=1)
        self.convs = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 4, stride=2, padding=1, bias=not norm)
            for c_in, c_out in pairwise(channels)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(c) if norm else nn.Identity() for c in channels[1:]
        )
        self.out = channels[-1] * START**2

    def forward(self, images: Tensor) -> Tensor:
        """Compute features.

        Args:
            images: Images in [-1, 1], float (B, 3, H, H).

        Returns:
            Features, float (B, out).
        """
        h = F.leaky_relu(self.first(images), 0.2)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = F.leaky_relu(norm(conv(h)), 0.2)
        return h.flatten(1)


class Encoder(nn.Module):
    """E: q(z | x, t). The sentence joins at the last linear layer.

    Args:
        config: The model's settings.
        sentence: Width of sentence vectors.
    """

    def __init__(self, config: CVAEGANConfig, sentence: int) -> None:
        super().__init__()
        self.bound = config.posterior_bound
        self.trunk = Trunk(config.width, config.image_size, norm=True)
        self.last = nn.Linear(self.trunk.out + sentence, 2 * config.z_dim)

    def forward(self, images: Tensor, sentence: Tensor) -> Gaussian:
        """Compute the posterior.

        Args:
            images: Images in [-1, 1], float (B, 3, H, H).
            sentence: Sentence vectors, float (B, D).

        Returns:
            A Gaussian of shape (B, z_dim).
        """
        q = split(self.last(torch.cat([self.trunk(images), sentence], dim=1)))
        if not self.bound:
            return q
        bounds = (self.bound, self.bound / 2)
        return Gaussian(*(most * (t / most).tanh() for t, most in zip(q, bounds, strict=True)))


class CVAEGANGenerator(OneShotGenerator):
    """G: two linear layers of [z; e], then convolutions that double 4x4 places.

    Args:
        config: The model's settings.
        text: Widths of the text features. Only the sentence is used.
    """

    def __init__(self, config: CVAEGANConfig, text: TextShape) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.noise_shape = (config.z_dim,)
        channels = widths(config.gf, config.image_size, 4)[::-1]
        condition = config.z_dim + text.sentence
        self.first = nn.Linear(condition, JOINT)
        self.start = nn.Linear(JOINT, channels[0] * START**2)
        pairs = list(pairwise(channels))
        self.fused = nn.ModuleList(
            UpBlock(condition, c_in, c_out, gain=1.0) for c_in, c_out in pairs if config.fused
        )
        self.ups = nn.ModuleList(
            UpConv3x3(c_in, c_out) for c_in, c_out in pairs if not config.fused
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(c_out) for _, c_out in pairs if not config.fused)
        self.to_rgb = nn.Conv2d(channels[-1], 3, 3, padding=1)

    def forward(self, noise: Tensor, text: TextFeatures) -> Tensor:
        return self.decode(noise, text.sentence)

    def decode(self, z: Tensor, sentence: Tensor) -> Tensor:
        """Generate images from latents.

        Args:
            z: Latents, float (B, z_dim).
            sentence: Sentence vectors, float (B, D).

        Returns:
            Images in [-1, 1], float (B, 3, H, H).
        """
        c = torch.cat([z, sentence], dim=1)
        h = F.leaky_relu(self.first(c), 0.2)
        h = self.start(h).view(len(z), -1, START, START)
        for block in self.fused:
            h = block(h, c, 2 * h.shape[-1])
        for up, norm in zip(self.ups, self.norms, strict=True):
            h = norm(up(F.leaky_relu(h, 0.2)))
        return torch.tanh(self.to_rgb(F.leaky_relu(h, 0.2)))


class Discriminator(nn.Module):
    """D: whether an image is real. It reads no text.

    Args:
        config: The model's settings.
    """

    def __init__(self, config: CVAEGANConfig) -> None:
        super().__init__()
        self.trunk = Trunk(config.width, config.image_size, norm=False)
        self.joint = nn.Linear(self.trunk.out, JOINT)
        self.score = nn.Linear(JOINT, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Score images.

        Args:
            images: Images in [-1, 1], float (B, 3, H, H).

        Returns:
            Logits, float (B,), high for real images; and the features f_D, float (B, JOINT).
        """
        f = F.leaky_relu(self.joint(self.trunk(images)), 0.2)
        return self.score(f).flatten(), f


class Matcher(nn.Module):
    """C: which caption an image belongs to. It takes the place of the paper's classifier.

    Args:
        config: The model's settings.
        sentence: Width of sentence vectors.
    """

    def __init__(self, config: CVAEGANConfig, sentence: int) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.trunk = Trunk(config.width, config.image_size, norm=False)
        self.joint = nn.Linear(self.trunk.out, JOINT)
        self.image = nn.Linear(JOINT, JOINT)
        self.text = nn.Linear(sentence, JOINT)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the features f_C.

        Args:
            images: Images in [-1, 1], float (B, 3, H, H).

        Returns:
            Features, float (B, JOINT).
        """
        return F.leaky_relu(self.joint(self.trunk(images)), 0.2)

    def embedded(self, features: Tensor, sentence: Tensor) -> tuple[Tensor, Tensor]:
        """Embed images and captions where they are compared.

        Args:
            features: Features f_C of images, float (B, JOINT).
            sentence: Sentence vectors, float (B, D).

        Returns:
            Vectors of unit length of images and of captions, float (B, JOINT) each.
        """
        return F.normalize(self.image(features), dim=1), F.normalize(self.text(sentence), dim=1)

    def loss(self, images: Tensor, captions: Tensor) -> Tensor:
        """Compute the cross entropy of the right captions, and of the right images.

        Args:
            images: Vectors of images, float (B, JOINT), as `embedded` returns them.
            captions: Vectors of their captions.

        Returns:
            The mean of both, a scalar.
        """
        logits = self.temperature * images @ captions.T
        right = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


class Centres(nn.Module):
    """Moving means of features: f_D of all images, and f_C of the images that a word describes.

    The buffers hold sums that decay, and how much has been summed, so that means of few images are
    not biased towards 0.

    Args:
        words: Number of centres of f_C.
    """

    def __init__(self, words: int) -> None:
        super().__init__()
        self.words = words
        for kind in ("real", "generated"):
            self.register_buffer(f"{kind}_sums", torch.zeros(1 + words, JOINT))
            self.register_buffer(f"{kind}_counts", torch.zeros(1 + words))

    def moved(
        self, kind: str, f_d: Tensor, f_c: Tensor, said: Tensor, decay: float
    ) -> tuple[Tensor, Tensor]:
        """Move the centres by a batch, and return them.

        Gradients are those of the batch's own means, whatever their share in a moving mean is: the
        value of a centre is the moving mean.

        Args:
            kind: "real" or "generated".
            f_d: Features of D of the whole batch, float (B, JOINT).
            f_c: Features of C, float (B, JOINT).
            said: How many of each centre's words are in a caption, float (B, words).
            decay: Decay of the moving means.

        Returns:
            The centre of f_D, float (1, JOINT), and those of f_C, float (words, JOINT).
        """
        sums, counts = self.get_buffer(f"{kind}_sums"), self.get_buffer(f"{kind}_counts")
        batch_sums = torch.cat([f_d.sum(0, keepdim=True), said.T @ f_c]).to(sums.dtype)
        batch_counts = torch.cat([said.new_full((1,), len(f_d)), said.sum(0)]).to(sums.dtype)
        with torch.no_grad():
            # A centre without a new image keeps its mean.
            kept = torch.where(batch_counts > 0, decay, 1.0)
            sums.mul_(kept[:, None]).add_(batch_sums.detach())
            counts.mul_(kept).add_(batch_counts)
        means = batch_sums / batch_counts.clamp_min(1)[:, None]
        moving = sums / counts.clamp_min(1e-6)[:, None]
        centres = moving + (means - means.detach())
        return centres[:1], centres[1:]


def mean_gap(real: Tensor, generated: Tensor, present: Tensor | None = None) -> Tensor:
    """Compute half the squared distance of centres, summed over them.

    Source: Bao et al. 2017, equations 6 and 7.

    Args:
        real: Centres of real images, float (N, F).
        generated: Centres of generated images, of the same shape.
        present: Which centres count, bool (N,). None: all.

    Returns:
        The sum, a scalar.
    """
    gaps = 0.5 * (real - generated).square().sum(1)
    return gaps.sum() if present is None else torch.where(present, gaps, 0.0).sum()


def half_square(a: Tensor, b: Tensor) -> Tensor:
    """Compute half the squared distance of each pair, averaged over the batch.

    Args:
        a: Values, float (B, ...).
        b: Values of the same shape.

    Returns:
        The mean over images of sums over values, a scalar.
    """
    return 0.5 * (a - b).square().sum() / len(a)


def build(config: CVAEGANConfig, text: TextShape, assets: Path | None) -> CVAEGANGenerator:
    """Build the generator.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Not used: the generator has no assets.

    Returns:
        The generator.
    """
    return CVAEGANGenerator(config, text)
