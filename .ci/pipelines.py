"""Compare the CPU time of sampling with that of diffusers' pipelines, in turns.

    OMP_NUM_THREADS=1 python .ci/pipelines.py [ROUNDS]

Small networks of random weights; both sides read the captions, and sample the same images.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
import tests  # noqa: E402

tests.__path__ = [str(ROOT / "tests")]  # some distributions install a package of this name
from diffusers import DDPMScheduler, IFPipeline, UNet2DConditionModel  # noqa: E402

from t2i.core.interfaces.noise import PromptNoise  # noqa: E402
from t2i.core.models.loading import load  # noqa: E402
from tests.plugins.models import test_dalle2_karlo as karlo  # noqa: E402
from tests.plugins.models import test_deepfloyd as deepfloyd  # noqa: E402
from tests.plugins.models.pipelines import CAPTIONS, KEYS, ours, saved, t5  # noqa: E402

STEPS = 20


def first_stage(folder: Path) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Sample DeepFloyd IF's first stage, guided, with 16 x 16 pixels.

    Args:
        folder: Where the networks are written.

    Returns:
        Our call and diffusers'.
    """
    text, words = t5(32)
    unet = deepfloyd.gentle(
        UNet2DConditionModel(**{**deepfloyd.NETWORK, "block_out_channels": (64, 128)})
    )
    scheduler = DDPMScheduler(**deepfloyd.BOUNDED)
    pipe, path = saved(IFPipeline(words, text, unet, scheduler, **deepfloyd.PARTS), folder)
    model = load(path, "cpu")

    def theirs() -> Any:
        return pipe(
            prompt=list(CAPTIONS), num_inference_steps=STEPS, output_type="pt", clean_caption=False,
            generator=PromptNoise(3, KEYS).generators("chain", 0),
        )  # fmt: skip

    return lambda: ours(model, STEPS, 7.0), theirs


def unclip(folder: Path) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Sample Karlo's prior, decoder and upsampler, the first two guided, to 16 x 16 pixels.

    Args:
        folder: Where the networks are written.

    Returns:
        Our call and diffusers'.
    """
    karlo.STEPS.update(prior=25, decoder=25, upsampler=7)  # the pipeline's own
    pipe, path = karlo.pipeline(folder, channels=(64, 128))
    model = load(path, "cpu")
    return lambda: karlo.ours(model), lambda: karlo.theirs(pipe)


def main(rounds: int) -> None:
    """Print the medians of both, and of their ratios.

    Args:
        rounds: How often each is called, after once for warming up.
    """
    torch.manual_seed(0)
    for name, build in (("IFPipeline", first_stage), ("UnCLIPPipeline", unclip)):
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            calls = build(Path(folder))
            pairs = [tuple(map(_seconds, calls)) for _ in range(rounds + 1)][1:]
        own, other = (median(column) for column in zip(*pairs, strict=True))
        ratio = median(a / b for a, b in pairs)
        print(f"{name}: ours {own:.2f} s, diffusers {other:.2f} s, ratio {ratio:.3f}", flush=True)


def _seconds(call: Callable[[], Any]) -> float:
    """Return the CPU time of a call."""
    before = time.process_time()
    call()
    return time.process_time() - before


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
