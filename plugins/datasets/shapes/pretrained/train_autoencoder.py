"""Training of the tiny autoencoder that the data set ships: `shapes-autoencoder`.

    python -m t2i.plugins.datasets.shapes.pretrained.train_autoencoder [--minutes T] [--out FOLDER]

It is trained as `ldm` trains its own, for longer. The whitening of the latents is folded into the
last layer of the encoder and the first of the decoder, so that the files are a plain AutoencoderKL
of diffusers, on patches of 4x4 pixels.

It prints how many of its reconstructions an exact reader reads right.
"""

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from t2i.core.engine.ema import Ema
from t2i.core.io.images import to_bytes, to_tensor
from t2i.core.io.sealed import seal
from t2i.plugins.common.gan.conditioning.augmentation import kl_loss
from t2i.plugins.common.latent.autoencoder import Autoencoder
from t2i.plugins.common.latent.config import AutoencoderConfig
from t2i.plugins.datasets.shapes.config import ShapesConfig
from t2i.plugins.datasets.shapes.dataset import Shapes
from t2i.plugins.datasets.shapes.metric import caption_accuracy

FOLDER = Path(__file__).with_name("autoencoder")
SIDE = 32
BATCH = 8
FIRST = 10**6  # index of the first scene: the models' own trainings begin at 0
CONFIG = AutoencoderConfig(
    patch=4, channels=(56,), layers=1, latent_channels=8, attention=False, groups=8,
    kl_weight=1.5e-4, lr=3e-3, betas=(0.9, 0.99), first_logvar=-6.0,
)  # fmt: skip
SETS = {
    "one object": ("val", {"two_objects": 0, "three_objects": 0, "counts": 0}),
    "unseen": ("compositions", {"two_objects": 0, "three_objects": 0, "counts": 0}),
    "all kinds": ("val", {}),
}  # fmt: skip


class Images(IterableDataset[Tensor]):
    """An endless stream of batches of training images, (BATCH, 3, SIDE, SIDE)."""

    def __iter__(self) -> Iterator[Tensor]:
        data, at = Shapes(ShapesConfig(), "train"), FIRST
        while True:
            yield to_tensor(np.stack([data[at + n].image for n in range(BATCH)]))
            at += BATCH


@torch.no_grad()
def accuracies(autoencoder: Autoencoder, count: int = 400) -> dict[str, float]:
    """Measure how many reconstructions show what the caption says.

    Args:
        autoencoder: The autoencoder, after `measure`.
        count: Images of each set.

    Returns:
        Percentages that are all right, by the name of the set.
    """
    shares = {}
    for name, (split, settings) in SETS.items():
        data = Shapes(ShapesConfig(**settings), split)
        examples = [data[n] for n in range(count)]
        real = to_tensor(np.stack([example.image for example in examples]))
        images = autoencoder.decode(autoencoder.encode(real))
        right = caption_accuracy(to_bytes(images), [e.captions[0] for e in examples])["all"]
        shares[name] = round(right, 1)
    return shares


def train(minutes: float) -> Autoencoder:
    """Train an autoencoder (thesis, equation 2.32), and measure the whitening of its latents.

    Args:
        minutes: Minutes of training.

    Returns:
        The autoencoder with its averaged weights.
    """
    torch.manual_seed(0)
    autoencoder = Autoencoder(CONFIG, SIDE).to(memory_format=torch.channels_last)
    parameters = list(autoencoder.parameters())
    optimizer = torch.optim.Adam(parameters, CONFIG.lr, betas=CONFIG.betas, fused=True)
    averages = Ema(dict(autoencoder.named_parameters()), 0.999)
    stream = iter(DataLoader(Images(), batch_size=None, num_workers=1, prefetch_factor=8))
    started, step = time.monotonic(), 0
    while (progress := (time.monotonic() - started) / (60 * minutes)) < 1:
        factor = min(1.0, (step + 1) / 100) * (1 + math.cos(math.pi * progress)) / 2
        optimizer.param_groups[0]["lr"] = CONFIG.lr * factor
        images = next(stream)
        q = autoencoder.posterior(images)
        z = q.mean + q.std * torch.randn_like(q.mean)
        error = (autoencoder.reconstruct(z) - images).square().mean()
        optimizer.zero_grad()
        torch.autograd.backward(error + CONFIG.kl_weight * kl_loss(q.mean, q.logvar))
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        averages.update()
        if step % 1000 == 0:
            print(f"step {step}, {60 * minutes * progress:.0f} s: {error.item():.5f}", flush=True)
        step += 1
    averages.adopt()
    with torch.no_grad():
        raw = [autoencoder.posterior(next(stream)).mode() for _ in range(2048 // BATCH)]
        autoencoder.measure(torch.cat(raw))
    return autoencoder


@torch.no_grad()
def folded(autoencoder: Autoencoder) -> dict[str, Tensor]:
    """Fold the whitening z = W (raw - mean) into the network's 1x1 convolutions.

    The variances of the posterior stay those of the raw latents; only its mean is used.

    Args:
        autoencoder: The autoencoder, after `measure`.

    Returns:
        The tensors of an AutoencoderKL whose latents are z.
    """
    state = {name: tensor.clone() for name, tensor in autoencoder.vae.state_dict().items()}
    count = CONFIG.latent_channels
    whiten, colour = autoencoder.whitening[..., 0, 0], autoencoder.colouring[..., 0, 0]
    mean = autoencoder.mean.flatten()
    rows = state["quant_conv.weight"][:count].flatten(1)
    state["quant_conv.weight"][:count] = (whiten @ rows)[..., None, None]
    state["quant_conv.bias"][:count] = whiten @ (state["quant_conv.bias"][:count] - mean)
    columns = state["post_quant_conv.weight"][..., 0, 0]
    state["post_quant_conv.bias"] += columns @ mean
    state["post_quant_conv.weight"] = (columns @ colour)[..., None, None]
    return state


def write(autoencoder: Autoencoder, folder: Path) -> None:
    """Write the autoencoder in diffusers' layout, in half precision.

    Args:
        autoencoder: The autoencoder, after `measure`.
        folder: The folder.
    """
    vae: Any = autoencoder.vae
    vae.register_to_config(scaling_factor=1.0, shift_factor=None)
    vae.save_config(folder)
    state = {name: tensor.half().contiguous() for name, tensor in folded(autoencoder).items()}
    save_file(state, folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    seal(folder)


def main() -> None:
    """Train the autoencoder and write it, as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    autoencoder = train(arguments.minutes)
    write(autoencoder, arguments.out)
    print(f"{arguments.out}: reconstructions read right (percent): {accuracies(autoencoder)}")


if __name__ == "__main__":
    main()
