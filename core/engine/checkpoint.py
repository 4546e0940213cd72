"""Checkpoints: all that a run needs to go on as if it had never stopped, in safetensors and JSON.

step-N/modules.NAME.safetensors   weights and buffers: generator, text_encoder, and the stage's other networks
step-N/ema.safetensors            averaged weights
step-N/optimizers.safetensors     tensors of the optimizers' states
step-N/random-RANK.safetensors    states of the process's random generators
step-N/sums.safetensors           losses since the last line of the log
step-N/state.json                 numbers: stage, step, clock, counts, the optimizers' settings
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.optim import Optimizer

from t2i.core.errors import UserError
from t2i.core.io.files import load_tensors, read_json, save_tensors, settle, verify, write_json
from t2i.core.models.weights import load_state, owned_tensors

FORMAT = 1
LATER = ("best",)  # what checkpoints of this format did not have from the beginning


@dataclass
class Position:
    """Where a run is. stage: index of the stage; step, images: steps and images over the run; stage_step, stage_clock:
    of the stage; clock: seconds of training over the run; wall: of everything. skipped: updates left out. warm: the
    stage's progress when its warm-up ended. begun: the stage has a trainer, whose state is in the checkpoint. stages:
    what the stages before it took. trained: names of the parameters of generator and text encoder that any stage has
    trained. helpers, helpers_trained: parameters of the stages' other networks. best: step and value of the checkpoint
    where the loss `keep_best` was lowest, if there is one."""

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
    """A checkpoint that was read."""

    folder: Path
    position: Position
    state: Mapping[str, Any]

    def modules(self, modules: Mapping[str, nn.Module]) -> None:
        for name, module in modules.items():
            path = self.folder / f"modules.{name}.safetensors"
            load_state(module, load_tensors(path, f"checkpoint {self.folder}"), str(path))

    def tensors(self, name: str) -> dict[str, Tensor]:
        return load_tensors(self.folder / f"{name}.safetensors", f"checkpoint {self.folder}")

    def optimizers(self, optimizers: Mapping[str, Optimizer]) -> None:
        tensors = self.tensors("optimizers")
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(_joined(self.state["optimizers"][name], tensors, name))
            _like_their_parameters(optimizer)


def write(
    folder: Path,
    position: Position,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer],
    ema: Mapping[str, Tensor],
    more: Mapping[str, Any],
) -> None:
    """Fills an unsealed folder."""
    for name, module in modules.items():
        save_tensors(folder / f"modules.{name}.safetensors", owned_tensors(module))
    save_tensors(folder / "ema.safetensors", ema)
    tensors: dict[str, Tensor] = {}
    numbers = {name: _split(optimizer.state_dict(), tensors, name) for name, optimizer in optimizers.items()}
    save_tensors(folder / "optimizers.safetensors", tensors)
    write_json(folder / "state.json", {"format": FORMAT, **asdict(position), "optimizers": numbers, **more})


def read(folder: Path) -> Saved:
    """A checkpoint, every byte of it checked. UserError if it is damaged or of another format."""
    what = f"checkpoint {folder}"
    verify(folder, what)
    state = read_json(folder / "state.json", what)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"{what}: state.json is not of format {FORMAT}; it was written by another version of t2i")
    names = [f.name for f in fields(Position) if f.name in state or f.name not in LATER]
    try:
        return Saved(folder, TypeAdapter(Position).validate_python({name: state[name] for name in names}), state)
    except KeyError as error:
        raise UserError(f"{what}: state.json lacks {error}") from None
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError(f"{what}: state.json has a wrong '{key}'") from None


@contextmanager
def fitting(saved: Saved) -> Iterator[None]:
    """Inside the block what a checkpoint holds is put to use; UserError, naming it, if it does not fit the run."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError, OverflowError) as error:
        reason = f"{type(error).__name__}: {str(error)[:120]}"
        raise UserError(f"checkpoint {saved.folder} does not fit this run ({' '.join(reason.split())})") from error


def newest(folder: Path) -> tuple[Saved | None, list[str]]:
    """The newest sound checkpoint in a run's `checkpoints`, and why newer ones were passed over."""
    complaints: list[str] = []
    for path in sorted(listed(folder), key=step_of, reverse=True):
        try:
            return read(path), complaints
        except UserError as error:
            complaints.append(str(error))
    return None, complaints


def listed(folder: Path) -> list[Path]:
    """The checkpoints in a run's `checkpoints`, half a replacement of one undone."""
    for aside in folder.glob(".step-*.old"):
        settle(folder / aside.name.removeprefix(".").removesuffix(".old"))
    return [path for path in folder.glob("step-*") if path.is_dir() and path.name.removeprefix("step-").isdecimal()]


def step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def prune(folder: Path, keep: int, position: Position) -> None:
    """Removes all but the best and the newest `keep` checkpoints of those up to `position`. Later ones were passed over
    as damaged: they are not ours to remove, and no reason to remove a sound one."""
    ours = [path for path in sorted(listed(folder), key=step_of) if step_of(path) <= position.step]
    for path in ours[:-keep]:
        if step_of(path) not in position.best[:1]:
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
    state: dict[int, dict[str, Any]] = {int(index): dict(entries) for index, entries in numbers["state"].items()}
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


def random_state() -> dict[str, Tensor]:
    """The states of this process's global random generators."""
    numpy_state = np.random.get_state(legacy=False)
    words = numpy_state["state"]["key"]
    rest = [numpy_state["state"]["pos"], numpy_state["has_gauss"], numpy_state["gauss"]]
    version, numbers, gauss_next = random.getstate()
    state = {
        "torch": torch.get_rng_state(),
        "numpy.words": torch.from_numpy(words.astype(np.int64)),
        "numpy.rest": torch.tensor(rest, dtype=torch.float64),
        "python": torch.tensor([version, *numbers], dtype=torch.int64),
        "python.gauss": torch.tensor([] if gauss_next is None else [gauss_next], dtype=torch.float64),
    }
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return state | {f"cuda.{i}": tensor for i, tensor in enumerate(cuda)}


def set_random_state(state: Mapping[str, Tensor]) -> None:
    """The inverse of `random_state`."""
    torch.set_rng_state(state["torch"])
    position, has_gauss, gauss = state["numpy.rest"].tolist()
    words = state["numpy.words"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", words, int(position), int(has_gauss), gauss))
    version, *numbers = state["python"].tolist()
    gauss_next = state["python.gauss"].tolist()
    random.setstate((version, tuple(numbers), gauss_next[0] if gauss_next else None))
    for name, tensor in state.items():
        if name.startswith("cuda.") and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensor, int(name.removeprefix("cuda.")))
