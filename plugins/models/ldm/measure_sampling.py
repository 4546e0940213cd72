"""Measure the speed of sampling against diffusers' own pipeline.

    python -m t2i.plugins.models.ldm.measure_sampling FOLDER

FOLDER holds a Stable Diffusion in diffusers' layout. Both sample in turns, in one process, with the
same prompts, steps, guidance and batch size, from prompts to PIL images. The median of the ratios
of their times is printed.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from t2i.core.models.loading import load

PROMPT = "a photograph of an astronaut riding a horse"


def seconds(function: Callable[[], Any]) -> tuple[float, float]:
    """Time one call.

    Args:
        function: What to call. An accelerator is waited for.

    Returns:
        Seconds of wall-clock time, and of processor time.
    """
    wall, processor = time.perf_counter(), time.process_time()
    function()
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - wall, time.process_time() - processor


def measure(
    folder: str, steps: int, batch: int, guidance: float, turns: int
) -> tuple[float, float, float]:
    """Compare sampling of ours with diffusers', in turns.

    Args:
        folder: A Stable Diffusion in diffusers' layout.
        steps: Sampling steps (DDIM).
        batch: Images per call.
        guidance: Scale of classifier-free guidance.
        turns: How often each is measured, after one call to warm up.

    Returns:
        Our time divided by theirs (the median), of wall-clock time and of processor time; and our
        median wall-clock seconds for one batch.
    """
    model = load(folder)
    pipeline: Any = StableDiffusionPipeline.from_pretrained(
        folder, safety_checker=None, requires_safety_checker=False, use_safetensors=True
    )
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline = pipeline.to(model.device)
    pipeline.set_progress_bar_config(disable=True)
    prompts = [PROMPT] * batch

    def ours() -> None:
        model.sample(prompts, sampler="ddim", steps=steps, guidance=guidance, batch_size=batch)

    def theirs() -> None:
        pipeline(prompts, num_inference_steps=steps, guidance_scale=guidance)

    for draw in (ours, theirs):  # warm up
        draw()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(turns)]
    walls, processors = ([own[i] / other[i] for own, other in pairs] for i in (0, 1))
    return median(walls), median(processors), median(own[0] for own, _ in pairs)


def main() -> None:
    """Run the comparison from the command line and print its result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--guidance", type=float, default=7.5)
    parser.add_argument("--turns", type=int, default=7)
    given = parser.parse_args()
    wall, processor, own = measure(
        given.folder, given.steps, given.batch, given.guidance, given.turns
    )
    print(
        f"ours / diffusers: {wall:.3f} of the time, {processor:.3f} of the processor's; "
        f"{own:.2f} s a batch"
    )


if __name__ == "__main__":
    main()
