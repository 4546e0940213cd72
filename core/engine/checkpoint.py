"""Checkpoints: all that a run needs to go on as if it had never stopped, in safetensors and JSON.

step-N/modules.NAME.safetensors   weights and buffers: generator, text_encoder, helpers where the model has some, and
                                  the stage's other networks
step-N/ema.safetensors            averaged weights
step-N/optimizers.safetensors     tensors of the optimizers' states
step-N/random-RANK.safetensors    states of the process's random generators
step-N/sums.safetensors           losses since the last line of the log
step-N/state.json                 numbers: stage, step, clock, counts, the optimizers' settings
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.optim import Optimizer

from t2i.core.errors import UserError
from t2i.core.io.files import load_tensors, read_json, save_tensors, settle, verify, write_json
from t2i.core.models.moved import UNMOVED, Moved
from t2i.core.models.weights import load_state, owned_tensors

FORMAT = 1
HELPERS = "helpers"
"""Part of a model that holds its helpers, by their names (`ModelSpec.helpers`)."""
LATER = ("best",)
"""What checkpoints of this format did not have from the beginning."""


@dataclass
class TrainState:
    """Where a run is.

    Attributes:
        stage: index of the stage.
        step, images: steps and images over the run.
        stage_step, stage_clock: of the stage.
        clock: seconds of training over the run.
        wall: seconds of everything.
        skipped: updates that were left out.
        warm: the stage's progress when its warm-up ended.
        begun: whether the stage has a trainer, whose state is in the checkpoint.
        stages: what the stages before it took.
        trained: full names of the parameters of generator, text encoder and helpers that any stage has trained.
        helpers, helpers_trained: numbers of parameters of networks that ended with their stage.
        best: step and value of the checkpoint where the loss `keep_best` was lowest, if there is one.
    """

    stage: int = 0
    step: int = 0
    images: int = 0
    stage_step: int = 0
    clock: float = 0.0
    stage_clock: float = 0.0
    wall: float = 0.0
    skipped: int = 0
    warm: float = 0.0
    begun: bool = False
    stages: list[dict[str, Any]] = field(default_factory=list)
    trained: list[str] = field(default_factory=list)
    helpers: int = 0
    helpers_trained: int = 0
    best: list[float] = field(default_factory=list)


@dataclass
class Saved:
    """A checkpoint that was read. moved: tensors that have other names now."""

    folder: Path
    state: TrainState
    document: Mapping[str, Any]
    moved: Moved = UNMOVED

    def modules(self, modules: Mapping[str, nn.Module]) -> None:
        """Loads the weights of networks by their part's name."""
        for name, module in modules.items():
            load_state(module, self.moved.part(name, self._part), str(self._file(name)))

    def _file(self, part: str) -> Path:
        return self.folder / f"modules.{part}.safetensors"

    def _part(self, part: str) -> dict[str, Tensor]:
        if part == HELPERS and not self._file(part).exists():
            return {}  # written before there were any
        return load_tensors(self._file(part), f"checkpoint {self.folder}")

    def tensors(self, name: str) -> dict[str, Tensor]:
        return load_tensors(self.folder / f"{name}.safetensors", f"checkpoint {self.folder}")

    def averages(self) -> dict[str, Tensor]:
        return {self.moved.name(name): tensor for name, tensor in self.tensors("ema").items()}

    def optimizers(self, optimizers: Mapping[str, Optimizer]) -> None:
        tensors = self.tensors("optimizers")
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(_joined(self.document["optimizers"][name], tensors, name))
            _like_their_parameters(optimizer)


def write(
    folder: Path,
    state: TrainState,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer],
    ema: Mapping[str, Tensor],
    more: Mapping[str, Any],
) -> None:
    """Fills an unsealed folder. more: what else state.json is to say."""
    for name, module in modules.items():
        save_tensors(folder / f"modules.{name}.safetensors", owned_tensors(module))
    save_tensors(folder / "ema.safetensors", ema)
    tensors: dict[str, Tensor] = {}
    numbers = {
        name: _split(optimizer.state_dict(), tensors, name)
        for name, optimizer in optimizers.items()
    }
    save_tensors(folder / "optimizers.safetensors", tensors)
    write_json(
        folder / "state.json", {"format": FORMAT, **asdict(state), "optimizers": numbers, **more}
    )


def read(folder: Path, moved: Moved = UNMOVED) -> Saved:
    """A checkpoint, every byte of it checked. UserError if it is damaged or of another format."""
    what = f"checkpoint {folder}"
    verify(folder, what)
    document = read_json(folder / "state.json", what)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UserError(
            f"{what}: state.json is not of format {FORMAT}; it was written by another version of t2i"
        )
    names = [f.name for f in fields(TrainState) if f.name in document or f.name not in LATER]
    try:
        state = TypeAdapter(TrainState).validate_python({name: document[name] for name in names})
    except KeyError as error:
        raise UserError(f"{what}: state.json lacks {error}") from None
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError(f"{what}: state.json has a wrong '{key}'") from None
    state.trained = [moved.name(name) for name in state.trained]
    return Saved(folder, state, document, moved)


@contextmanager
def fitting(saved: Saved) -> Iterator[None]:
    """Inside the block what a checkpoint holds is put to use; UserError, naming it, if it does not fit the run."""
    try:
        yield
    except (
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        AttributeError,
        RuntimeError,
        OverflowError,
    ) as error:
        reason = f"{type(error).__name__}: {str(error)[:120]}"
        raise UserError(
            f"checkpoint {saved.folder} does not fit this run ({' '.join(reason.split())})"
        ) from error


def newest(folder: Path, moved: Moved = UNMOVED) -> tuple[Saved | None, list[str]]:
    """The newest sound checkpoint in a run's `checkpoints`, and why newer ones were passed over."""
    complaints: list[str] = []
    for path in sorted(listed(folder), key=step_of, reverse=True):
        try:
            return read(path, moved), complaints
        except UserError as error:
            complaints.append(str(error))
    return None, complaints


def listed(folder: Path) -> list[Path]:
    """The checkpoints in a run's `checkpoints`, half a replacement of one undone."""
    for aside in folder.glob(".step-*.old"):
        settle(folder / aside.name.removeprefix(".").removesuffix(".old"))
    return [
        path
        for path in folder.glob("step-*")
        if path.is_dir() and path.name.removeprefix("step-").isdecimal()
    ]


def step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def prune(folder: Path, keep: int, state: TrainState) -> None:
    """Removes all but the best and the newest `keep` checkpoints of those up to the present step. Later ones were
    passed over as damaged: they are not ours to remove, and no reason to remove a sound one."""
    ours = [path for path in sorted(listed(folder), key=step_of) if step_of(path) <= state.step]
    for path in ours[:-keep]:
        if step_of(path) not in state.best[:1]:
            shutil.rmtree(path, ignore_errors=True)


def clear_litter(run: Path) -> None:
    """Mends what a writer that was killed left half-written. Only for the process that holds the run's lock."""
    for model in ("model", "best"):
        settle(run / model)
    listed(run / "checkpoints")
    for folder in (run, run / "checkpoints", run / "samples"):
        for litter in (*folder.glob(".*.tmp"), *folder.glob(".*.old")):
            shutil.rmtree(litter) if litter.is_dir() else litter.unlink()


def _split(state: Mapping[str, Any], tensors: dict[str, Tensor], name: str) -> dict[str, Any]:
    """An optimizer's state dict as JSON; its tensors go to `tensors` under NAME/INDEX/KEY."""
    numbers: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        numbers[str(index)] = {}
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{name}/{index}/{key}"] = value
            else:
                numbers[str(index)][key] = value
    return {"state": numbers, "param_groups": state["param_groups"]}


def _joined(numbers: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {
        int(index): dict(entries) for index, entries in numbers["state"].items()
    }
    for path, tensor in tensors.items():
        owner, index, key = path.rsplit("/", 2)
        if owner == name:
            state[int(index)][key] = tensor
    return {"state": state, "param_groups": [_tuples(group) for group in numbers["param_groups"]]}


def _like_their_parameters(optimizer: Optimizer) -> None:
    """Lays out each loaded tensor in memory as its parameter is (channels last): else every step would be slower."""
    for parameter, entries in optimizer.state.items():
        for key, value in entries.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                entries[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _tuples(group: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no tuples; optimizers write theirs (betas) as such."""
    return {k: tuple(v) if isinstance(v, list) and k != "params" else v for k, v in group.items()}
