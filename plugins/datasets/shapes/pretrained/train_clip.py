"""Training of the tiny CLIP that the data set ships: `shapes-clip`.

    python -m t2i.plugins.datasets.shapes.pretrained.train_clip [--minutes T] [--out FOLDER]

Both halves learn together (Radford et al. 2021): each caption must find its image among images and
captions of which many differ from its own in one attribute. Words and sentence, each alone, must
also predict the image with small networks that are discarded. So they keep what a generator needs:
which object has which colour, and where it is.

It prints how often the right caption is found.
"""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape
from t2i.core.io.json_files import write_json
from t2i.core.io.sealed import seal
from t2i.core.io.tensors import save_tensors
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.plugins.common.clip.config import ClipVisionConfig
from t2i.plugins.common.clip.vision import ClipVision, build_clip
from t2i.plugins.common.diffusion.text_map import WordMap
from t2i.plugins.common.text.contrastive import Contrast
from t2i.plugins.datasets.shapes.config import ShapesConfig
from t2i.plugins.datasets.shapes.dataset import Shapes
from t2i.plugins.datasets.shapes.pretrained.contrasts import ContrastBatch, Contrasts
from t2i.plugins.datasets.shapes.pretrained.training import arguments, steps_of, update

FOLDER = Path(__file__).with_name("clip")
PATCH = 4  # pixels: the side of the vision transformer's patches
GROUPS, SIZE, SEEN = 32, 4, 2
PLACE_WEIGHT = 10.0
TEST_GROUPS, TEST_BATCH = 64, 10**7
HIGHEST_SCALE = math.log(100.0)

VISION = ClipVisionConfig(
    weights=None, image_size=32, patch=PATCH, width=64, layers=3, heads=4, normalise="once"
)
TEXT = {"layers": 1, "positions": 0.3, "neighbours": 5}


class Places(nn.Module):
    """Predicts an image from its caption alone: once from the words, once from the sentence.

    Args:
        text: Widths of the text features.
    """

    def __init__(self, text: TextShape) -> None:
        super().__init__()
        grid, values = VISION.image_size // PATCH, 3 * PATCH**2
        self.map = WordMap(text.words, channels=64, size=grid, heads=4, hops=2)
        self.out = nn.Conv2d(64, values, 1)
        self.sentence = nn.Sequential(
            nn.Linear(text.sentence, 512),
            nn.SiLU(),
            nn.Linear(512, values * grid**2),
            nn.Unflatten(1, (values, grid, grid)),
        )

    def forward(self, text: TextFeatures) -> tuple[Tensor, Tensor]:
        """Predict images.

        Args:
            text: Features of B captions.

        Returns:
            The mean images by the words and by the sentence, each float (B, 3, 32, 32).
        """
        words, sentence = self.out(self.map(text)), self.sentence(text.sentence)
        return F.pixel_shuffle(words, PATCH), F.pixel_shuffle(sentence, PATCH)


@dataclass
class Clip:
    """Both halves of CLIP, and what is discarded after their training.

    Args:
        text: The text half.
        vision: The image half.
        contrast: Compares images with sentences.
        places: Predicts images from words.
    """

    text: TextEncoder
    vision: ClipVision
    contrast: Contrast
    places: Places

    @classmethod
    def new(cls) -> "Clip":
        """Build both halves with random weights.

        Returns:
            The networks.
        """
        spec = registry().encoders["words"]
        assert spec.fit is not None
        config = registry().encoders.choose("words", TEXT, "text encoder").config
        config = import_object(spec.fit)(config, Shapes(ShapesConfig(), "train").vocabulary())
        text: TextEncoder = import_object(spec.build)(config, None)
        vision = build_clip(VISION, text.shape.sentence, None, "shapes-clip").requires_grad_(True)
        return cls(text, vision, Contrast(), Places(text.shape))

    def parameters(self) -> list[nn.Parameter]:
        """List what is trained.

        Returns:
            The parameters of all parts.
        """
        parts: tuple[nn.Module, ...] = (self.text, self.vision, self.contrast, self.places)
        return [p for part in parts for p in part.parameters()]

    def loss(self, batch: ContrastBatch) -> Tensor:
        """Compute the training loss.

        It is the mean of the two cross entropies of CLIP, where images have more captions to choose
        from than captions have images, plus the squared errors of `places`.

        Args:
            batch: The batch.

        Returns:
            The loss, a scalar.
        """
        text = self.text.encode(batch.captions)
        logits = self.contrast.logits(self.vision.embedding(batch.images), text.sentence)
        own = torch.arange(len(batch.images))
        contrastive = F.cross_entropy(logits, batch.place) + F.cross_entropy(
            logits[:, batch.place].T, own
        )
        seen = replace(
            text, sentence=text.sentence[batch.place], words=text.words[batch.place],
            mask=text.mask[batch.place],
        )  # fmt: skip
        by_words, by_sentence = self.places(seen)
        error = (by_words - batch.images).square().mean()
        error = error + (by_sentence - batch.images).square().mean()
        loss: Tensor = contrastive / 2 + PLACE_WEIGHT * error
        return loss


@torch.no_grad()
def accuracies(clip: Clip) -> dict[str, float]:
    """Measure how often the right caption is found for scenes that were not trained on.

    Args:
        clip: The networks.

    Returns:
        Percentages: the caption of an image among those of its group of 4, which differ in one
        attribute ("of 4"), and among all 256 ("of 256").
    """
    batch = Contrasts(TEST_GROUPS, SIZE, SIZE).batch(TEST_BATCH)
    text = clip.text.encode(batch.captions)
    logits = clip.contrast.logits(clip.vision.embedding(batch.images), text.sentence)
    number = torch.arange(len(logits))
    group = number // SIZE
    inside = logits.masked_fill(group[:, None] != group[None], -torch.inf)
    shares = {
        f"of {SIZE}": inside.argmax(1) == number,
        f"of {len(logits)}": logits.argmax(1) == number,
    }
    return {name: round(100 * float(right.float().mean()), 1) for name, right in shares.items()}


def train(minutes: float, lr: float = 1.5e-3) -> Clip:
    """Train both halves.

    Args:
        minutes: Minutes of training.
        lr: Largest learning rate of AdamW.

    Returns:
        The trained networks.
    """
    torch.manual_seed(0)
    clip = Clip.new()
    parameters = clip.parameters()
    optimizer = torch.optim.AdamW(parameters, lr, betas=(0.9, 0.98), weight_decay=0.02, fused=True)
    data = Contrasts(GROUPS, SIZE, SEEN)
    stream = iter(DataLoader(data, batch_size=None, num_workers=1, prefetch_factor=4))
    for step, seconds in steps_of(minutes, optimizer, lr, warmup=50):
        loss = clip.loss(next(stream))
        update(optimizer, loss)
        with torch.no_grad():
            clip.contrast.log_scale.clamp_(max=HIGHEST_SCALE)
        if step % 200 == 0:
            print(
                f"step {step}, {seconds:.0f} s: loss {loss.item():.3f}, {accuracies(clip)}",
                flush=True,
            )
    return clip


def write(clip: Clip, folder: Path) -> None:
    """Write both halves in half precision.

    Args:
        clip: The networks.
        folder: The image half goes there in transformers' layout, the text half into its folder
            text_encoder.
    """
    network = clip.vision.network
    network.config.save_pretrained(folder)
    save_tensors(folder / "model.safetensors", _halves(network))
    config: Any = clip.text.config
    write_json(folder / "text_encoder" / "config.json", json.loads(config.model_dump_json()))
    save_tensors(folder / "text_encoder" / "model.safetensors", _halves(clip.text))
    seal(folder)


def _halves(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.half().contiguous() for name, tensor in module.state_dict().items()}


def main() -> None:
    """Train CLIP and write it, as the command line says."""
    minutes, folder = arguments(__doc__, 20.0, FOLDER)
    clip = train(minutes)
    write(clip, folder)
    print(f"{folder}: the right caption is found (percent): {accuracies(clip)}")


if __name__ == "__main__":
    main()
