"""Measure what each remedy for mode collapse does, on a ring of 25 Gaussians.

    python .ci/collapse.py                          # print the table of the ring (some ten minutes)
    python .ci/collapse.py --write                  # write it to docs/collapse.{md,json,png}
    python .ci/collapse.py --steps 5000 --seeds 3   # train longer, and more often
    python .ci/collapse.py --shapes RESULTS --write # take scores on shapes from a bench's results

The GANs of points are small perceptrons. Their losses, penalties, packs and unrolled updates are
the code of `plugins/common/gan` that every GAN of images uses.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from t2i.benchmarks.report.markdown import filled, markdown_table
from t2i.benchmarks.results import VARIETY, Results, Row
from t2i.core.engine.local import LocalEngine
from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.text import TextFeatures
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Trainer
from t2i.plugins.common.gan.config import GANConfig
from t2i.plugins.common.gan.losses.cross_entropy import cross_entropy
from t2i.plugins.common.gan.optimizers import adam_pair
from t2i.plugins.common.gan.remedies.critic import Critic
from t2i.plugins.common.gan.remedies.seam import Remedies
from t2i.plugins.common.gan.remedies.seen import Seen

ROOT = Path(__file__).parents[1]
PAGE, DATA, PICTURE = (ROOT / "docs" / f"collapse.{end}" for end in ("md", "json", "png"))
MODES, RADIUS, SIGMA = 25, 2.0, 0.05
"""The ring: its Gaussians, its radius, and their standard deviation; neighbours are 0.5 apart."""

SAMPLES = 2500
FAIR = SAMPLES / MODES
STEPS, SEEDS = 2000, 2
"""Steps of the generator, and number of seeds, unless the command says others."""

Z, HIDDEN = 16, 64

SETTINGS: Mapping[str, Any] = {"batch_size": 128, "lr_g": 4e-3, "lr_d": 1e-3}
REMEDIES: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "wasserstein, penalty": {"loss": "wasserstein", "lipschitz_weight": 1.0, "critic_steps": 2},
    "wasserstein, clip": {
        "loss": "wasserstein", "lipschitz": "clip", "clip_weights": 0.1, "critic_steps": 2,
    },
    "relativistic": {"loss": "relativistic", "r1_r2": 0.1},
    "pack 2": {"pack": 2},
    "pack 4": {"pack": 4},
    "unroll 3": {"unroll": 3, "unroll_lr": 0.1},
}  # fmt: skip
"""The settings of each row, over `SETTINGS`."""


def perceptron(*widths: int) -> nn.Sequential:
    """Build a perceptron with leaky ReLUs.

    Args:
        *widths: Widths of its layers, from the input to the output.

    Returns:
        The network.
    """
    layers: list[nn.Module] = []
    for c_in, c_out in pairwise(widths):
        layers += [nn.Linear(c_in, c_out), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])


def centres() -> Tensor:
    """Return the means of the Gaussians.

    Returns:
        The means, float (MODES, 2).
    """
    angles = torch.arange(MODES) * (2 * math.pi / MODES)
    return RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1)


class PointsTrainer(Trainer):
    """A GAN of points in the plane, with the non-saturating loss of Goodfellow et al. 2014.

    Args:
        config: The settings.
    """

    def __init__(self, config: GANConfig) -> None:
        self.generator = perceptron(Z, HIDDEN, HIDDEN, 2)
        self.discriminator = perceptron(2 * config.pack, HIDDEN, HIDDEN, 1)
        self.critic = Critic(
            "discriminator",
            {"discriminator": self.discriminator},
            features=lambda points: points,
            realism=self.score,
            own=self.own,
            own_generator=lambda seen: cross_entropy(self.score(seen.generated), real=True),
        )
        self.remedies = Remedies(config, [self.critic])
        self.modules = {"generator": self.generator, "discriminator": self.discriminator}
        self.optimizers = adam_pair(config, self.generator.parameters(), self.critic.parameters())

    def score(self, points: Tensor) -> Tensor:
        """Score points, or packs of them.

        Args:
            points: The points, float (P, 2 m).

        Returns:
            Logits, float (P,).
        """
        logits: Tensor = self.discriminator(points).flatten()
        return logits

    def own(self, seen: Seen, penalised: bool) -> tuple[Tensor, Losses]:
        """Compute the discriminator's loss: cross entropy of real and generated points.

        Args:
            seen: What the discriminator sees.
            penalised: Not used: there is no penalty.

        Returns:
            The loss, a scalar, and the same for the log.
        """
        real = cross_entropy(self.score(seen.images), real=True)
        loss = real + cross_entropy(self.score(seen.generated), real=False)
        return loss, {"discriminator": loss}

    def step(self, batch: Batch, engine: Engine) -> Losses:
        fake = self.generator(batch.noise.normal("z", 0, (Z,)))
        seen = self.remedies.seen(self.critic, batch, engine, batch.images, fake, None)
        losses = self.remedies.update(seen)
        losses["generator"] = loss = self.remedies.adversarial(seen)
        self.remedies.update_generator("generator", loss, batch, engine)
        return losses


def no_text(captions: Sequence[str]) -> TextFeatures:
    """Return empty features: these GANs take no text.

    Args:
        captions: The captions.

    Returns:
        Features of width 1.
    """
    return TextFeatures.of(sentence=torch.zeros(len(captions), 1), captions=captions)


def trained(settings: Mapping[str, Any], seed: int, steps: int = STEPS) -> Tensor:
    """Train a GAN of points and sample it.

    Args:
        settings: The remedy's settings.
        seed: Seed of weights, data and noise.
        steps: Steps of the generator. The discriminator takes `critic_steps` times as many.

    Returns:
        The samples, float (SAMPLES, 2).
    """
    torch.manual_seed(seed)
    config = GANConfig.of({**SETTINGS, **settings}, "collapse")
    trainer, means, n = PointsTrainer(config), centres(), config.batch_size
    engine = LocalEngine(trainer, config)
    captions = ("",) * n
    for at in range(steps * config.critic_steps):
        noise = StepNoise(seed, at, 0, n, n)
        points = means[noise.integers("mode", 0, MODES)] + SIGMA * noise.normal("data", 0, (2,))
        engine.begin_step(at)
        trainer.step(Batch(points, captions, captions, noise, no_text), engine)
    with torch.no_grad():
        samples: Tensor = trainer.generator(
            StepNoise(seed, -1, 0, SAMPLES, SAMPLES).normal("z", 0, (Z,))
        )
    return samples


def measured(samples: Tensor) -> dict[str, float]:
    """Count the modes that samples find, and those samples that are near one.

    A sample is of high quality within 3 standard deviations of the nearest mean. A mode is found
    if it has a fifth of its fair share of such samples.

    Args:
        samples: Samples, float (N, 2).

    Returns:
        "modes", from 0 to `MODES`, and "quality", the share of samples of high quality in percent.
    """
    distance, nearest = torch.cdist(samples, centres()).min(1)
    good = distance <= 3 * SIGMA
    counts = torch.bincount(nearest[good], minlength=MODES)
    return {
        "modes": float((counts >= len(samples) / MODES / 5).sum()),
        "quality": 100 * float(good.float().mean()),
    }


def measure(steps: int, seeds: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Train each row of the table with each seed.

    Args:
        steps: Steps of the generator.
        seeds: Number of seeds, from 0 on.

    Returns:
        The document of the ring (steps, and the measures of each row, one for each seed), and the
        samples of the first seed.
    """
    rows: dict[str, list[dict[str, float]]] = {}
    first: dict[str, Tensor] = {}
    for name, settings in REMEDIES.items():
        samples = [trained(settings, seed, steps) for seed in range(seeds)]
        rows[name], first[name] = [measured(each) for each in samples], samples[0]
        sys.stderr.write(f"{name}: {rows[name]}\n")
    return {"steps": steps, "rows": rows}, first


def ring_table(ring: Mapping[str, Any]) -> str:
    """Write the table of the ring.

    Args:
        ring: Its document: "steps", and "rows", the measures of each row, one for each seed.

    Returns:
        Markdown.
    """
    lines = [["remedy", "settings", f"modes found, of {MODES}", "high quality"]]
    for name, settings in REMEDIES.items():
        chosen = " ".join(f"{key}={value}" for key, value in settings.items())
        measures = ring["rows"].get(name, [])
        modes = ", ".join(f"{measure['modes']:.0f}" for measure in measures)
        quality = ", ".join(f"{measure['quality']:.0f} %" for measure in measures)
        lines.append([name, chosen and f"`{chosen}`", modes or "not measured yet", quality])
    return f"After {ring['steps']:,} steps of the generator:\n\n{markdown_table(lines)}"


def shapes_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Write the table of shapes.

    Args:
        rows: Scores of each run, by its name and the score's.

    Returns:
        Markdown.
    """
    if not rows:
        return "Not measured yet."
    lines = [["setting", "all right", "FD, shapes network", "diversity", "arithmetic"]]
    for run, score in sorted(rows.items(), key=lambda item: -item[1]["accuracy"]):
        lines.append([
            run if run in ("none", "real images") else f"`{run.replace('-', '=', 1)}`",
            f"{score['accuracy']:.1f} % ({score['low']:.1f} to {score['high']:.1f})",
            f"{score['fd']:.2f}", f"{score['diversity']:.1f} %",
            f"{score['operations'] / 1e12:.1f} TFLOP" if score["operations"] else "",
        ])  # fmt: skip
    return markdown_table(lines)


def draw(samples: Mapping[str, Tensor]) -> None:
    """Draw the samples of each row into `PICTURE`.

    Args:
        samples: Samples by row.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 4, figsize=(10, 5.4), dpi=80)
    truth = centres()[torch.arange(SAMPLES) % MODES]
    panels = {"data": truth + SIGMA * torch.randn(SAMPLES, 2), **samples}
    for ax, (name, points) in zip(axes.flat, panels.items(), strict=False):
        ax.scatter(*points.T.numpy(), s=2, linewidths=0, alpha=0.5)
        ax.scatter(*centres().T.numpy(), s=60, facecolors="none", edgecolors="0.75", linewidths=0.5)
        ax.set(title=name, xlim=(-2.8, 2.8), ylim=(-2.8, 2.8), aspect="equal", xticks=[], yticks=[])
    for ax in list(axes.flat)[len(panels) :]:
        ax.axis("off")
    figure.tight_layout()
    figure.savefig(PICTURE, metadata={"Software": None})


def scores_of(results: Path) -> dict[str, dict[str, float]]:
    """Read the scores of `t2i bench shapes`.

    Args:
        results: Its file `results.json`.

    Returns:
        The scores of each run, by its name and the score's.
    """
    return {row.name: _scores(row) for row in Results.load(results).rows if row.kind != "floor"}


def _scores(row: Row) -> dict[str, float]:
    """Return what the table shows of a row."""
    one = row.scores["one object"]
    low, high = row.intervals["one object"]["caption-accuracy"]["all"]
    return {
        "accuracy": one["caption-accuracy"]["all"],
        "low": low,
        "high": high,
        "fd": one["fid"]["fid"],
        "diversity": row.scores[VARIETY]["diversity"]["diversity"],
        "operations": row.training.get("operations", {}).get("total", 0),
    }


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/collapse.*")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of the generator")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="number of seeds")
    parser.add_argument("--shapes", type=Path, help="results.json of 't2i bench shapes'")
    chosen = parser.parse_args()
    known = json.loads(DATA.read_text("utf-8"))
    if chosen.shapes:
        known["shapes"] = scores_of(chosen.shapes)
    else:
        torch.set_num_threads(1)
        known["ring"], samples = measure(chosen.steps, chosen.seeds)
        if chosen.write:
            draw(samples)
    tables = {"ring": ring_table(known["ring"]), "shapes": shapes_table(known["shapes"])}
    if not chosen.write:
        print(tables["shapes" if chosen.shapes else "ring"])
        return
    DATA.write_text(json.dumps(known, indent=1) + "\n", "utf-8")
    page = PAGE.read_text("utf-8")
    for name, table in tables.items():
        page = filled(page, name, table, str(PAGE))
    PAGE.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
