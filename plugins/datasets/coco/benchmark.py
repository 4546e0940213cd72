"""The benchmark `coco`: photographs, under three protocols.

The protocols are that of the field ("coco-30k-256"), that of the thesis ("thesis-5k-128"), and a
small one for trials ("coco-tiny").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from t2i.core.interfaces.scoring import Benchmark, Measure, PromptSet, Published
from t2i.core.settings import Config

THESIS_CAPTIONS = (
    "a village in the mountains in spring",
    "red and yellow flowers",
    "a large number of cows in the field",
    "girl with dog",
    "only one horse in the forest",
    "small blue bird",
)

_INCEPTION = (
    Measure("fid", {"features": "inception/pool"}, shown={"fid": "FID"}),
    Measure("kid", {"features": "inception/pool"}, shown={"kid": "KID"}),
    Measure("isc", {"features": "inception/logits"}, shown={"isc": "IS"}),
    Measure("diversity", {"features": "inception/pool"}, shown={"diversity": "diversity %"}),
)
"""Metrics that every result on COCO has. Their network must be there."""

_CLIP_B32 = Measure(
    "clip-score",
    {"features": "clip"},
    label="clip-b-32",
    shown={"clip_score": "CLIP B/32"},
    optional=True,
)

_OTHERS = (
    Measure(
        "prc", {"features": "vgg16"},
        shown={"precision": "precision %", "recall": "recall %"}, optional=True,
    ),
    Measure(
        "fid", {"features": "dinov2"}, label="fd-dinov2", shown={"fid": "FD, DINOv2"},
        optional=True,
    ),
    _CLIP_B32,
    Measure(
        "clip-score", {"features": "clip-vit-l-14"}, label="clip-l-14",
        shown={"clip_score": "CLIP L/14"}, optional=True,
    ),
    Measure(
        "r-precision", {"features": "clip-vit-l-14"}, shown={"r_precision": "R-precision %"},
        optional=True,
    ),
)  # fmt: skip
"""Further metrics. Each needs a network of its own, and is left out if that is not there.

CLIP scores use two backbones, because some models were trained with one of them.
"""

_FIELD = "FID on 30,000 captions of val2014, 256 px"
_PAPERS: Mapping[str, tuple[float, str]] = MappingProxyType({
    "StackGAN": (74.05, "Zhang et al. 2017, as later papers print it"),
    "AttnGAN": (35.49, "Xu et al. 2018, as later papers print it"),
    "DM-GAN": (32.64, "Zhu et al. 2019"),
    "DALL-E (zero-shot, about)": (27.5, "Ramesh et al. 2021"),
    "DF-GAN": (19.32, "Tao et al. 2022"),
    "DF-GAN, released weights": (15.41, "its authors' repository"),
    "VQ-Diffusion": (13.86, "Gu et al. 2022"),
    "LDM (zero-shot)": (12.63, "Rombach et al. 2022"),
    "GLIDE (zero-shot)": (12.24, "Nichol et al. 2021"),
    "Imagen (zero-shot)": (7.27, "Saharia et al. 2022"),
    "Parti (zero-shot)": (7.23, "Yu et al. 2022"),
    "GALIP": (5.85, "Tao et al. 2023"),
})  # fmt: skip


class CocoBenchmarkConfig(Config):
    """Settings of the benchmark. There are none."""


def build(config: CocoBenchmarkConfig, protocol: str) -> Benchmark:
    """Build the benchmark `coco`.

    Args:
        config: Ignored; there are no settings.
        protocol: One of PROTOCOLS.

    Returns:
        The benchmark.
    """
    return PROTOCOLS[protocol](protocol)


_COMMON: Mapping[str, Any] = MappingProxyType({
    "name": "coco",
    "dataset": "coco",
    "fetch": "coco",
    "real": "train",
})  # fmt: skip
"""Fields that all protocols share."""

_WHOLE: Mapping[str, Any] = MappingProxyType({
    **_COMMON,
    "data": {"year": 2014},
    "measures": (*_INCEPTION, *_OTHERS),
    "headline": ("fid", "fid"),
    "default_models": (("ldm", "galip"), ("ldm", "dfgan")),
    "whole": 40_504,
})  # fmt: skip
"""Fields that the protocols on val2014 share."""


def _val2014(count: int, key: str) -> tuple[PromptSet]:
    """Return a set of `count` captions of val2014, chosen by a hash with a key."""
    about = f"{count:,} of the 40,504 images, and one caption of each, by a hash of the captions."
    return (PromptSet("val2014", "val", count, headline=True, select=key, about=about),)


def _field(protocol: str) -> Benchmark:
    """Build the protocol of the field: 30,000 captions, FID against all of val2014, 256 px.

    Each caption is of another image.
    """
    return Benchmark(
        **_WHOLE,
        protocol=protocol,
        image_size=256,
        prompts=_val2014(30_000, "coco-30k-256"),
        reference="all",
        presets=("coco", "coco64", "tiny"),
        minutes=1440,
        grid=(8, 4),
        published=[
            Published(name, {"FID": fid}, _FIELD, source) for name, (fid, source) in _PAPERS.items()
        ],
    )


def _thesis(protocol: str) -> Benchmark:
    """Build the protocol of the thesis: 5,000 captions, FID against their own images, 128 px.

    The report also shows images of six captions of the thesis.
    """
    claim = (
        "5,000 captions of COCO, FID against their images; trained on 300,000 images of "
        "LAION-Aesthetic"
    )
    found = {"real images": (6.09, 34.88), "LDM": (157.49, 2.42), "GALIP": (170.84, 1.97)}
    return Benchmark(
        **_WHOLE,
        protocol=protocol,
        image_size=128,
        prompts=_val2014(5000, "thesis-5k-128"),
        reference="captions",
        presets=("thesis", "coco", "coco64", "tiny"),
        minutes=240,
        grid=(4, 8),
        grid_captions=THESIS_CAPTIONS,
        published=[
            Published(name, {"FID": fid, "IS": score}, claim, "the thesis, table of results")
            for name, (fid, score) in found.items()
        ],
    )


def _tiny(protocol: str) -> Benchmark:
    """Build the protocol for trials: few captions, of either year, 64 px.

    Its mandatory metrics need no download of weights.
    """
    about = "48 images, and one caption of each, by a hash of the captions: too few to mean much."
    return Benchmark(
        **_COMMON,
        protocol=protocol,
        image_size=64,
        prompts=(PromptSet("val", "val", 48, headline=True, select="coco-tiny", about=about),),
        reference="captions",
        measures=(
            Measure("fid", {"features": "pixels"}, label="fd-pixels", shown={"fid": "FD, pixels"}),
            Measure(
                "kid", {"features": "pixels"}, label="kid-pixels", shown={"kid": "KID, pixels"}
            ),
            Measure("diversity", {"features": "pixels"}, shown={"diversity": "diversity %"}),
            Measure("fid", {"features": "inception/pool"}, shown={"fid": "FID"}, optional=True),
            _CLIP_B32,
        ),
        headline=("fd-pixels", "fid"),
        default_models=(("ldm", "dfgan"),),
        minutes=2,
        variety=(6, 4),
        grid=(4, 4),
        grid_captions=THESIS_CAPTIONS[:2],
    )


PROTOCOLS: Mapping[str, Callable[[str], Benchmark]] = MappingProxyType({
    "coco-30k-256": _field,
    "thesis-5k-128": _thesis,
    "coco-tiny": _tiny,
})  # fmt: skip
