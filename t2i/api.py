"""Training and scores from Python: `train`, `resume`, `bench`, `score` and `votes` of `t2i`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from t2i.benchmarks.results import Results
    from t2i.benchmarks.score.images.result import ImageScores
    from t2i.benchmarks.votes.judgement import Judgements
    from t2i.core.engine.reporting import Reporter
    from t2i.core.models.model import Model


def train(
    model: str | None = None,
    *,
    data: str | None = None,
    data_dir: str | Path | None = None,
    preset: str | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int | None = None,
    image_size: int | None = None,
    batch_size: int | Literal["auto"] | None = None,
    accumulate: int | Literal["auto"] | None = None,
    precision: Literal["no", "bf16", "fp16", "auto"] | None = None,
    device: str | None = None,
    start: str | Path | None = None,
    track: Sequence[str] | str | None = None,
    low_memory: bool = False,
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Model:
    """Train a model, and load it. `t2i train` does the same on the command line.

    Args:
        model: Registry name of the model (`t2i models` lists them). None: that of `start`.
        data: Registry name of the data set. None: the preset's.
        data_dir: Folder of the data set. None: where `t2i fetch` put it, if the data set has one.
        preset: Named settings of the model, or "auto" for settings by image size and machine. None:
            "tiny", or the settings of `start`.
        minutes: Training time. None: the preset's budget.
        steps: Training budget in optimizer steps, instead of `minutes`. None: the preset's budget.
        seed: Seed of weights, order and noise. None: the preset's.
        image_size: Height and width of the images in pixels. None: the preset's.
        batch_size: Images in each step, or "auto" for as many as fit a GPU's memory. None: the
            preset's.
        accumulate: Parts of a batch, or "auto" for as few as fit. None: the preset's.
        precision: Mixed precision, or "auto" for what suits the device. None: the preset's.
        device: Device, such as "cpu" or "cuda:1". None: the best one.
        start: Weights that training starts from, as far as they fit: a run, a folder that `load`
            opens, a hub name, or, with `model`, a safetensors file. Without another model or a
            preset the settings are theirs too. None: fresh weights.
        track: Trackers that receive the log too, such as "tensorboard,trackio". None: the preset's,
            which is none.
        low_memory: Whether to choose the settings that fit a small card.
        settings: Further settings by name, such as {"batch_size": 64, "encoder.width": 128}.
        out: New folder for the run. None: a new one under runs/.
        reporter: Receives progress. None: lines on the terminal.

    Returns:
        The trained model, ready to sample.

    Raises:
        UserError: A name or a setting is wrong, both budgets are given, or `out` is not empty.
        Interrupted: A signal stopped training. Everything is saved; `t2i.resume` goes on.
    """
    from t2i.benchmarks.run.in_training import training_scores
    from t2i.core.engine import train as begin
    from t2i.core.engine.automatic import Training, resolve
    from t2i.core.engine.reporting import default_reporter
    from t2i.core.errors import UserError
    from t2i.core.models.loading import load
    from t2i.core.models.origin import find_origin
    from t2i.core.runs.configure import nested
    from t2i.core.runs.folder import new_run
    from t2i.core.settings.layers import option_layer

    if model is None and start is None:
        raise UserError("say what to train: a model, or start=RUN")
    engine = {
        "minutes": minutes, "steps": steps, "seed": seed, "image_size": image_size,
        "batch_size": batch_size, "accumulate": accumulate, "precision": precision,
        "track": track,
    }  # fmt: skip
    origin = find_origin(start, model) if start else None
    options = option_layer(engine, data=data, data_dir=data_dir)
    more = nested(settings or {})
    wanted = Training(
        model, preset, options, more=more, device=device, start=origin, low_memory=low_memory
    )
    config = resolve(wanted, (reporter or default_reporter()).say)
    with new_run(config, Path(out) if out else None) as folder:
        run = begin(
            config, folder, reporter=reporter, device=device, start=origin,
            examining=training_scores,
        )  # fmt: skip
    return load(run.path, device)


def resume(
    run: str | Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    device: str | None = None,
    reporter: Reporter | None = None,
) -> Model:
    """Finish an interrupted run, or train a run for longer, and load its model.

    Without a new budget a complete run is only loaded.

    Args:
        run: The run's folder, its name under runs/, or "latest".
        minutes: New budget in minutes of training, counted from the beginning of the run. None:
            unchanged.
        steps: New budget in steps, counted likewise. None: unchanged.
        device: Device. None: the one that was chosen when the run began, else the best one.
        reporter: Receives progress. None: lines on the terminal.

    Returns:
        The trained model, ready to sample.

    Raises:
        UserError: The folder is not a run, has no sound checkpoint, its data set has changed, or
            the new budget is spent already.
        Interrupted: A signal stopped training again.
    """
    from t2i.benchmarks.run.in_training import training_scores
    from t2i.core.engine import resume as go_on
    from t2i.core.models.loading import load
    from t2i.core.models.locating import located_run

    path = located_run(run).path
    done = go_on(
        path, reporter=reporter, steps=steps, minutes=minutes, device=device,
        examining=training_scores,
    )  # fmt: skip
    return load(done.path, device)


def bench(
    name: str = "shapes",
    *,
    models: Sequence[str] | str | None = None,
    runs: Mapping[str, str | Path] | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    samples: int | None = None,
    seeds: int = 1,
    preset: str | None = None,
    protocol: str | None = None,
    data: str | None = None,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    votes: Sequence[str | Path] = (),
    out: str | Path | None = None,
) -> Results:
    """Train, sample and score models side by side. `t2i bench` does the same on the command line.

    Args:
        name: Registry name of the benchmark (`t2i benchmarks` lists them).
        models: Models to train and score, or "all" but upsamplers. None: the benchmark's, unless
            `runs` is given.
        runs: Runs to score, by the name that their row is to have: whatever `load` takes.
        minutes: Training time of each model. None: the benchmark's.
        steps: Training budget of each model in steps, instead of `minutes`.
        samples: Captions to score, at least 2. None: the protocol's.
        seeds: How often each model is trained, with seeds 0, 1, ...
        preset: Preset of the models that are trained. None: the benchmark's.
        protocol: Protocol of the benchmark. None: its first.
        data: Data set, for benchmarks of your own images. None: the benchmark's.
        data_dir: Folder of the benchmark's data set. None: where `t2i fetch` put it.
        image_size: Image size, for benchmarks of your own images. None: by the size of the images.
        votes: Files of people's votes on images of these models: a column of the table.
        out: Folder for runs, scores and report. None: runs/bench-NAME. What is there already is
            not done again.

    Returns:
        The rows, scores and intervals. A notebook shows them as a table.

    Raises:
        UserError: Something is unknown, missing or contradictory. Nothing has been trained then.
    """
    from t2i.benchmarks.runner import run_benchmark

    return run_benchmark(
        name, protocol=protocol, models=models,
        runs={row: str(path) for row, path in (runs or {}).items()},
        minutes=minutes, steps=steps, samples=samples, seeds=seeds, preset=preset,
        data=data, data_dir=Path(data_dir) if data_dir else None, image_size=image_size,
        votes=[Path(file) for file in votes], out=Path(out) if out else None,
    )  # fmt: skip


def score(
    images: str | Path | Sequence[Any],
    reference: str | Path | Sequence[Any] | None = None,
    *,
    measures: Sequence[str] | None = None,
    protocol: str | None = None,
    features: str | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    captions: str | Path | Sequence[str] | None = None,
    recursive: bool | None = None,
    on_white: bool = False,
    save_statistics: str | Path | None = None,
    device: str | None = None,
) -> ImageScores:
    """Score images of any program. `t2i score` does the same on the command line.

    Args:
        images: A folder, a .zip, a .npz or .npy file, or images of Pillow.
        reference: The real images, likewise; or a .npz of statistics. None: nothing is compared.
        measures: Measures, such as "fid" or "fid:dinov2". None: those of the protocol.
        protocol: Program whose numbers are reproduced: "torch-fidelity", "clean-fid" or
            "pytorch-fid". None: the first.
        features: Features of the measures that compare two sets. None: the protocol's.
        settings: Settings of features by name, such as {"inception": {"weights": "FILE"}}.
        captions: A file of captions, or a caption for each image. None: those beside the images.
        recursive: Whether subfolders are read. None: as the protocol's program does.
        on_white: Whether transparent images are laid on white.
        save_statistics: File in .npz to write mean and covariance of `images` to. None: none.
        device: Device, such as "cpu". None: the best.

    Returns:
        The scores; `scores["fid"]` is a number. A notebook shows them as a table.

    Raises:
        UserError: Something is missing, unknown or unreadable.
    """
    from t2i.benchmarks.score.images.score import ScoreRequest, score_images
    from t2i.core.devices import named_device

    return score_images(
        ScoreRequest(
            images, reference, protocol=protocol, measures=measures, features=features,
            settings=settings or {}, captions=captions, recursive=recursive, on_white=on_white,
            save=Path(save_statistics) if save_statistics else None, device=named_device(device),
        )
    )  # fmt: skip


def votes(*files: str | Path, question: str | None = None) -> Judgements:
    """Rank models by people's votes on their images. `t2i votes` does the same.

    Args:
        *files: Files of votes, as `t2i web` writes them.
        question: The only question to take. None: each, and all together.

    Returns:
        A table for each question: models with values, intervals and ranks.

    Raises:
        UserError: A file is wrong, holds no vote, or none on the question.
    """
    from t2i.benchmarks.votes.judging import judge

    return judge([Path(file) for file in files], question)
