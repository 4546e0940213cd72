"""Training of the weights of `features.py`.

    python -m t2i.plugins.datasets.shapes.train_features [--steps N] [--out FILE]

It takes a few minutes on two CPU cores. It prints the accuracies that it reached, and the SHA-256
that features.py must name.
"""

import argparse
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.plugins.datasets.shapes.config import ShapesConfig
from t2i.plugins.datasets.shapes.dataset import Shapes
from t2i.plugins.datasets.shapes.draws import Draws
from t2i.plugins.datasets.shapes.features import DIM, INPUT_SIZE, WEIGHTS, ShapesFeatures
from t2i.plugins.datasets.shapes.grammar import (
    BACKGROUNDS,
    COLOURS,
    KINDS,
    POSITIONS,
    SHAPES,
    SIZES,
    Scene,
    draw_scene,
)
from t2i.plugins.datasets.shapes.grammar import FULL as GRAMMAR
from t2i.plugins.datasets.shapes.render import render

CELLS = len(POSITIONS)
CLASSES = (len(SHAPES) + 1, len(COLOURS) + 1, len(SIZES) + 1)  # of a cell; class 0 is "nothing"
MAX_BLUR = 2.0  # standard deviation in pixels
MAX_NOISE = 0.1  # standard deviation, as a fraction of the full range
STREAM = 1000  # a random stream that no split of the data set uses


@dataclass(frozen=True)
class SceneBatch:
    """Images and their labels.

    Args:
        images: uint8 (B, 3, 32, 32).
        cells: Classes of shape, colour and size in each of the nine cells, int64 (B, 3, 9).
        background: Index into BACKGROUNDS, int64 (B,).
        quality: Blur and noise as fractions of their maxima, float (B, 2).
    """

    images: Tensor
    cells: Tensor
    background: Tensor
    quality: Tensor


class Classifier(nn.Module):
    """The features, and linear heads that are discarded after training."""

    def __init__(self) -> None:
        super().__init__()
        self.features = ShapesFeatures()
        self.cells = nn.ModuleList(nn.Linear(DIM, count * CELLS) for count in CLASSES)
        self.background = nn.Linear(DIM, len(BACKGROUNDS))
        self.quality = nn.Linear(DIM, 2)

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Classify images.

        Args:
            images: uint8 (B, 3, H, W).

        Returns:
            Logits of the cells, three of (B, classes, 9); logits of the background (B, 3); and the
            estimated quality (B, 2).
        """
        hidden = F.silu(self.features(images))
        cells = [head(hidden).unflatten(1, (-1, CELLS)) for head in self.cells]
        return cells, self.background(hidden), self.quality(hidden)


def labels(scene: Scene) -> np.ndarray:
    """Return the classes of the cells of a scene.

    Args:
        scene: The scene.

    Returns:
        Shape, colour and size in each of the nine cells, counted from 1, and 0 where a cell is
        empty; int64 (3, 9).
    """
    found = np.zeros((3, CELLS), np.int64)
    for obj in scene.objects:
        column = (SHAPES.index(obj.shape), COLOURS.index(obj.colour), SIZES.index(str(obj.size)))
        found[:, POSITIONS.index(str(obj.position))] = np.array(column) + 1
    return found


def draw_batch(size: int, first: int) -> SceneBatch:
    """Render a batch of scenes, half of them blurred and half of them noisy.

    Some scenes have held-out combinations, because the features are used on images of these too.

    Args:
        size: Number of scenes.
        first: Index of the first scene; the same index gives the same scene.

    Returns:
        The batch.
    """
    images, cells, backgrounds, quality = [], [], [], []
    for index in range(first, first + size):
        draws = Draws(0, STREAM, index)
        kind = KINDS[0] if draws.uniform() < 0.4 else draws.choice(KINDS[1:])
        scene = draw_scene(draws, GRAMMAR, kind, held_out=draws.uniform() < 0.3)
        image = render(scene, draws, INPUT_SIZE).astype(np.float32)
        # Half of the images have no blur, and half of them no noise.
        blur, noise = (max(0.0, draws.uniform(-1, 1)) for _ in range(2))
        image = (
            ndimage.gaussian_filter(image, (MAX_BLUR * blur, MAX_BLUR * blur, 0)) if blur else image
        )
        rng = np.random.default_rng(index)
        image += rng.normal(0, 255 * MAX_NOISE * noise, image.shape) if noise else 0
        images.append(image.clip(0, 255).round().astype(np.uint8))
        cells.append(labels(scene))
        backgrounds.append(BACKGROUNDS.index(scene.background))
        quality.append((blur, noise))
    return SceneBatch(
        torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
        torch.from_numpy(np.stack(cells)),
        torch.tensor(backgrounds),
        torch.tensor(quality),
    )


def loss_of(model: Classifier, batch: SceneBatch) -> Tensor:
    """Compute the training loss: cross entropies of cells and background, squared error of quality.

    Args:
        model: The classifier.
        batch: Images and labels.

    Returns:
        The loss, a scalar.
    """
    cells, background, quality = model(batch.images)
    loss = F.cross_entropy(background, batch.background) + 4 * F.mse_loss(quality, batch.quality)
    return loss + sum(
        CELLS * F.cross_entropy(logits, batch.cells[:, n]) for n, logits in enumerate(cells)
    )


@torch.no_grad()
def accuracies(model: Classifier) -> dict[str, float]:
    """Measure the classifier on clean images of val.

    Args:
        model: The classifier.

    Returns:
        Percentages that are right: of each attribute, over the cells that hold an object; and of
        whole images ("image"), over all cells.
    """
    data = Shapes(ShapesConfig(), "val")
    images = torch.from_numpy(np.stack([data[n].image for n in range(1000)])).permute(0, 3, 1, 2)
    truth = torch.from_numpy(np.stack([labels(data.scene(n)) for n in range(1000)]))
    right = torch.stack([logits.argmax(1) for logits in model(images)[0]], 1) == truth
    filled = truth[:, 0] > 0
    by_name = {name: right[:, n][filled] for n, name in enumerate(("shape", "colour", "size"))}
    by_name["image"] = right.flatten(1).all(1)
    return {name: round(100 * float(values.float().mean()), 1) for name, values in by_name.items()}


def train(steps: int, batch_size: int = 96) -> Classifier:
    """Train a classifier.

    Args:
        steps: Number of optimizer steps.
        batch_size: Number of images of each step.

    Returns:
        The trained classifier. Its features are not standardised yet (see `standardise`).
    """
    torch.manual_seed(0)
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    started = time.monotonic()
    for step in range(steps):
        loss = loss_of(model, draw_batch(batch_size, step * batch_size))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(
                f"step {step}: loss {loss.item():.3f}, {time.monotonic() - started:.0f} s",
                flush=True,
            )
    return model


@torch.no_grad()
def standardise(features: ShapesFeatures) -> None:
    """Scale features to zero mean and unit variance over images of train.

    The scale is folded into the weights of the last layer, in place.

    Args:
        features: The network.
    """
    data = Shapes(ShapesConfig(), "train")
    images = torch.from_numpy(np.stack([data[n].image for n in range(4000)])).permute(0, 3, 1, 2)
    std, mean = torch.std_mean(features(images), 0)
    last = features.body[-1]
    assert isinstance(last, nn.Linear)
    last.weight.div_(std[:, None])
    last.bias.sub_(mean).div_(std)


def main() -> None:
    """Train, standardise and write the weights, as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    model = train(arguments.steps)
    print("clean val images, percent right:", accuracies(model))
    standardise(model.features)
    data = save(
        {name: tensor.half().contiguous() for name, tensor in model.features.state_dict().items()}
    )
    arguments.out.write_bytes(data)
    print(f"{arguments.out}: {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
