"""Training of the tiny autoencoder that the data set ships: `shapes-autoencoder`.

    python -m t2i.plugins.datasets.shapes.pretrained.train_autoencoder [--minutes T] [--out FOLDER]

It is trained as `ldm` trains its own, for longer. The whitening of the latents is folded into the
last layer of the encoder and the first of the decoder, so that the files are a plain AutoencoderKL
of diffusers, on patches of 4x4 pixels.

It prints how many of its reconstructions an exact reader reads right.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader

from t2i.core.engine.ema import Ema
from t2i.core.io.sealed import seal
from t2i.plugins.common.gan.conditioning.augmentation import kl_loss
from t2i.plugins.common.latent.autoencoder import Autoencoder
from t2i.plugins.common.latent.config import AutoencoderConfig
from t2i.plugins.datasets.shapes.pretrained.training import (
    BATCH,
    SIDE,
    Images,
    arguments,
    read_right,
    sets_to_read,
    steps_of,
    update,
)

FOLDER = Path(__file__).with_name("autoencoder")
CONFIG = AutoencoderConfig(
    patch=4, channels=(56,), layers=1, latent_channels=8, attention=False, groups=8,
    kl_weight=1.5e-4, lr=3e-3, betas=(0.9, 0.99), first_logvar=-6.0,
)  # fmt: skip


@torch.no_grad()
def accuracies(autoencoder: Autoencoder, count: int = 400) -> dict[str, float]:
    """Measure how many reconstructions show what the caption says.

    Args:
        autoencoder: The autoencoder, after `measure`.
        count: Images of each set.

    Returns:
        Percentages that are all right, by the name of the set.
    """
    return {
        name: read_right(autoencoder.decode(autoencoder.encode(images)), captions)
        for name, images, captions in sets_to_read(count)
    }


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
    for step, seconds in steps_of(minutes, optimizer, CONFIG.lr, warmup=100):
        images = next(stream)
        q = autoencoder.posterior(images)
        z = q.mean + q.std * torch.randn_like(q.mean)
        error = (autoencoder.reconstruct(z) - images).square().mean()
        update(optimizer, error + CONFIG.kl_weight * kl_loss(q.mean, q.logvar))
        averages.update()
        if step % 1000 == 0:
            print(f"step {step}, {seconds:.0f} s: {error.item():.5f}", flush=True)
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
    minutes, folder = arguments(__doc__, 20.0, FOLDER)
    autoencoder = train(minutes)
    write(autoencoder, folder)
    print(f"{folder}: reconstructions read right (percent): {accuracies(autoencoder)}")


if __name__ == "__main__":
    main()
