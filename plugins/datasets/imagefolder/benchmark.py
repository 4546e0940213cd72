"""The benchmark `pictures`: models compared on one's own captioned images."""

from __future__ import annotations

from t2i.core.interfaces.scoring import Benchmark, Measure, PromptSet
from t2i.core.settings import Config

FEW = 100
"""Captions of `val` below which captions of training images are scored too."""


class PicturesConfig(Config):
    """Settings of the benchmark. There are none."""


def build(config: PicturesConfig, protocol: str) -> Benchmark:
    """Build the benchmark `pictures`.

    Its one protocol is "own". The user's data set decides the number of captions and, unless it is
    given, the image size. No measure is mandatory that needs a download: distances of the images
    shrunk to 16x16 rank the models where Inception is missing.

    Args:
        config: Ignored; there are no settings.
        protocol: "own".

    Returns:
        The benchmark.
    """
    pixels, inception = {"features": "pixels"}, {"features": "inception/pool"}
    return Benchmark(
        name="pictures",
        protocol=protocol,
        dataset="imagefolder",
        image_size=0,
        prompts=(
            PromptSet(
                "val", "val", 0, headline=True, select="pictures",
                about="Captions of images that no model was trained on.",
            ),
            PromptSet(
                "train", "train", 0, select="pictures", most=64, few=FEW,
                about="Captions of training images.",
            ),
        ),
        measures=(
            Measure("kid", inception, shown={"kid": "KID"}, optional=True),
            Measure("fid", inception, shown={"fid": "FID"}, optional=True),
            Measure("clip-score", shown={"clip_score": "CLIP B/32"}, optional=True),
            Measure("kid", pixels, label="kid-pixels", shown={"kid": "KD, 16x16 pixels"}),
            Measure("fid", pixels, label="fd-pixels", shown={"fid": "FD, 16x16 pixels"}),
            Measure(
                "memorised", pixels,
                shown={"memorised": "memorised %", "train_distance": "distance to training images"},
            ),
            Measure("diversity", pixels, shown={"diversity": "diversity %"}),
        ),
        headline=("kid", "kid"),
        spare_headline=("kid-pixels", "kid"),
        default_models=(("ldm", "dfgan"),),
        minutes=3.5,
        reference="all",
        variety=(12, 4),
        grid=(4, 4),
    )  # fmt: skip
