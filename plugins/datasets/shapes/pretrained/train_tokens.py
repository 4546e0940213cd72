"""Training of the tiny tokenizer that the data set ships: `shapes-tokens`.

    python -m t2i.plugins.datasets.shapes.pretrained.train_tokens [--minutes T] [--out FOLDER]

It begins with the networks of `shapes-autoencoder`, which have the same layers, and is trained on
with a quantizer between them: images of 32x32 pixels become 8x8 tokens.

It prints how many of its reconstructions an exact reader reads right.
"""

from pathlib import Path

import torch
from torch.utils.data import DataLoader

from t2i.core.engine.ema import Ema
from t2i.core.io.tensors import load_tensors
from t2i.plugins.common.tokens.losses import reconstruction_error
from t2i.plugins.common.tokens.quantizers import perplexity
from t2i.plugins.common.tokens.tokenizer import ImageTokenizer, save_tokenizer
from t2i.plugins.common.tokens.tokenizer_config import TokenizerConfig
from t2i.plugins.common.weights.legacy import renamed
from t2i.plugins.datasets.shapes.pretrained.train_autoencoder import FOLDER as AUTOENCODER
from t2i.plugins.datasets.shapes.pretrained.training import (
    SIDE,
    Images,
    arguments,
    read_right,
    sets_to_read,
    steps_of,
    update,
)

FOLDER = Path(__file__).with_name("tokens")
CONFIG = TokenizerConfig.of(
    {
        "vocabulary": 512, "code_width": 8, "lr": 1e-3, "betas": (0.9, 0.99),
        "vqgan": {
            "patch": 4, "channels": 56, "multiples": (1,), "blocks": 1, "attention": (),
            "middle_attention": False, "latent_channels": 16, "groups": 8,
        },
        "quantizer": {"kind": "ema", "restart": 0.03},
        "losses": {"reconstruction": "l2", "variance": 0.1},
    },
    "shapes-tokens",
)  # fmt: skip


NAMES = (
    (r"(down|up)_blocks\.(\d+)\.resnets\.", r"\1.\2.block."),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    ("conv_norm_out", "norm_out"),
)
"""Names of diffusers' tensors and of ours."""


@torch.no_grad()
def begin(tokenizer: ImageTokenizer, folder: Path = AUTOENCODER) -> None:
    """Give a tokenizer the weights of `shapes-autoencoder`.

    Args:
        tokenizer: The tokenizer. Without its quantizer, it then reconstructs what the autoencoder
            does.
        folder: Folder of the autoencoder.
    """
    state = load_tensors(folder / "diffusion_pytorch_model.safetensors", "shapes-autoencoder")
    given = renamed({name: tensor.float() for name, tensor in state.items()}, NAMES)
    for name, own in tokenizer.named_parameters():
        if name.startswith("quantizer."):
            continue
        tensor = given[name]
        # Fewer tensors are the rows of the mean; more are channels that the decoder ignores.
        own.zero_()
        places = tuple(slice(min(a, b)) for a, b in zip(own.shape, tensor.shape, strict=True))
        own[places] = tensor[places]


@torch.no_grad()
def accuracies(tokenizer: ImageTokenizer, count: int = 400) -> dict[str, float]:
    """Measure how many reconstructions show what the caption says.

    Args:
        tokenizer: The tokenizer.
        count: Images of each set.

    Returns:
        Percentages that are all right, by the name of the set, and how many tokens are in use.
    """
    shares = {}
    for name, images, captions in sets_to_read(count):
        tokens = tokenizer.encode(images)
        shares[name] = read_right(tokenizer.decode(tokens), captions)
        shares[f"perplexity, {name}"] = round(perplexity(tokens, tokenizer.vocabulary).item(), 1)
    return shares


def train(minutes: float, config: TokenizerConfig = CONFIG) -> ImageTokenizer:
    """Train a tokenizer.

    Args:
        minutes: Minutes of training.
        config: Its settings.

    Returns:
        The tokenizer with its averaged weights.
    """
    torch.manual_seed(0)
    tokenizer = ImageTokenizer(config, SIDE).to(memory_format=torch.channels_last)
    begin(tokenizer)
    parameters = [p for p in tokenizer.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, config.lr, betas=config.betas, fused=True)
    averages = Ema(dict(tokenizer.named_parameters()), 0.999)
    stream = iter(DataLoader(Images(), batch_size=None, num_workers=1, prefetch_factor=8))
    for step, seconds in steps_of(minutes, optimizer, config.lr, warmup=100):
        images = next(stream)
        z = tokenizer.features(images)
        quantised = tokenizer.quantise(z)
        error = reconstruction_error(tokenizer.decoded(quantised.vectors), images, config.losses)
        update(optimizer, error + quantised.loss)
        tokenizer.quantizer.observe(z.detach(), quantised.tokens, torch.rand(config.vocabulary))
        averages.update()
        if step % 1000 == 0:
            used = perplexity(quantised.tokens, config.vocabulary).item()
            print(
                f"step {step}, {seconds:.0f} s: {error.item():.5f}, "
                f"{quantised.loss.item():.5f}, perplexity {used:.0f}",
                flush=True,
            )
    averages.adopt()
    return tokenizer.eval()


def main() -> None:
    """Train the tokenizer and write it, as the command line says."""
    minutes, folder = arguments(__doc__, 15.0, FOLDER)
    tokenizer = train(minutes)
    save_tokenizer(tokenizer, folder, torch.float16)
    print(f"{folder}: reconstructions read right (percent): {accuracies(tokenizer)}")


if __name__ == "__main__":
    main()
