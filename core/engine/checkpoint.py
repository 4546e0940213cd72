"""Read and write checkpoints, which hold all that a run needs to continue as if never stopped.

They are safetensors and JSON files:

step-N/modules.NAME.safetensors   weights and buffers: generator, text_encoder, helpers (if the
                                  model has some), and the stage's other networks
step-N/ema.safetensors            averaged weights
step-N/optimizers.safetensors     tensors of the optimizers' states
step-N/random-RANK.safetensors    states of the random generators of process RANK
step-N/sums.safetensors           sums of the losses since the last line of the log
step-N/state.json                 numbers: stage, step, clock, counts, the optimizers' settings
step-N/manifest.json              size and SHA-256 of each file
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.optim import Optimizer

from t2i.core.engine.scores import Scored
from t2i.core.errors import UserError
from t2i.core.io.json_files import read_json, write_json
from t2i.core.io.sealed import settle, verify
from t2i.core.io.tensors import load_tensors, save_tensors
from t2i.core.models.moved import UNMOVED, Moved
from t2i.core.models.weights import load_state, saved_tensors

FORMAT = 1
HELPERS = "helpers"
"""Name of the part of a model that holds its helpers (`ModelSpec.helpers`)."""
LATER = ("best", "scored")
"""Fields of `TrainState` that older checkpoints of this format lack."""


@dataclass
class TrainState:
    """How far a run is; stored in state.json.

    Args:
        stage: Index of the stage, from 0.
        step: Steps done in the run.
        images: Images used in the run, over all processes.
        stage_step: Steps done in the stage.
        clock: Seconds of training in the run.
        stage_clock: Seconds of training in the stage.
        wall: Seconds of wall time in the run, in all its sessions.
        skipped: Number of updates that were skipped because they were not finite.
        warm: Progress of the stage when its warm-up ended, 0 to 1.
        begun: Whether the stage has started, so that a checkpoint holds its trainer's state.
        stages: Name, steps and seconds of each finished stage.
        trained: Full names of the parameters of generator, text encoder and helpers that a finished
            stage has trained.
        helpers: Number of parameters of the networks that ended with their stage.
        helpers_trained: How many of those were trained.
        best: Step of the best checkpoint by `keep_best`, and the loss or score. Empty: none.
        scored: The scores so far.
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
    scored: Scored = field(default_factory=Scored)


@dataclass
class Saved:
    """A checkpoint that was read and checked.

    Args:
        folder: Its folder.
        state: How far the run was.
        document: The content of state.json.
        moved: Tensors that have been renamed since the checkpoint was written.
    """

    folder: Path
    state: TrainState
    document: Mapping[str, Any]
    moved: Moved = UNMOVED

    def modules(self, modules: Mapping[str, nn.Module]) -> None:
        """Load the weights of networks.

        Args:
            modules: The networks, by the name of their file.

        Raises:
            UserError: A file is missing or damaged, or its tensors do not fit the network.
        """
        for name, module in modules.items():
            load_state(module, self.part(name), str(self._file(name)))

    def has(self, name: str) -> bool:
        """Tell whether the checkpoint holds a network.

        Args:
            name: Name of the network.

        Returns:
            Whether its file is there.
        """
        return self._file(name).is_file()

    def part(self, name: str) -> dict[str, Tensor]:
        """Read the weights of one network, as far as they are there.

        Args:
            name: Name of the network.

        Returns:
            Its tensors by their names today, on the CPU. Empty if the checkpoint lacks the helpers.

        Raises:
            UserError: The file is missing or damaged.
        """
        return self.moved.part(name, self._part)

    def _file(self, part: str) -> Path:
        return self.folder / f"modules.{part}.safetensors"

    def _part(self, part: str) -> dict[str, Tensor]:
        if part == HELPERS and not self._file(part).exists():
            return {}  # the model had no helpers when the checkpoint was written
        return load_tensors(self._file(part), f"checkpoint {self.folder}")

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Read the tensors of one file.

        Args:
            name: Name of the file, without ".safetensors".

        Returns:
            The tensors by name, on the CPU.

        Raises:
            UserError: The file is missing or damaged.
        """
        return load_tensors(self.folder / f"{name}.safetensors", f"checkpoint {self.folder}")

    def averages(self) -> dict[str, Tensor]:
        """Read the averaged weights.

        Returns:
            The averages by the parameters' present full names.
        """
        return {self.moved.name(name): tensor for name, tensor in self.tensors("ema").items()}

    def optimizers(
        self,
        optimizers: Mapping[str, Optimizer],
        shared_out: Callable[[Mapping[str, Any], Optimizer], dict[str, Any]] | None = None,
    ) -> None:
        """Load the states of the optimizers.

        Args:
            optimizers: The optimizers by name. Errors for states that do not fit are torch's own;
                `fitting` turns them into a UserError.
            shared_out: Returns this process's rows of a state with whole tensors. None: each
                process has all.
        """
        tensors = self.tensors("optimizers")
        for name, optimizer in optimizers.items():
            state = _joined(self.document["optimizers"][name], tensors, name)
            optimizer.load_state_dict(shared_out(state, optimizer) if shared_out else state)
            _like_their_parameters(optimizer)


def write(
    folder: Path,
    state: TrainState,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, Mapping[str, Any]],
    ema: Mapping[str, Tensor],
    more: Mapping[str, Any],
) -> None:
    """Write the files of a checkpoint into a folder that is not sealed yet.

    Args:
        folder: The folder (`t2i.core.io.sealed.sealed`).
        state: How far the run is.
        modules: The networks to save, by the name of their file.
        optimizers: The state dicts of the optimizers to save, by name.
        ema: The averaged weights, by full name.
        more: Further entries of state.json.
    """
    for name, module in modules.items():
        save_tensors(folder / f"modules.{name}.safetensors", saved_tensors(module))
    save_tensors(folder / "ema.safetensors", ema)
    tensors: dict[str, Tensor] = {}
    numbers = {name: _split(state, tensors, name) for name, state in optimizers.items()}
    save_tensors(folder / "optimizers.safetensors", tensors)
    write_json(
        folder / "state.json", {"format": FORMAT, **asdict(state), "optimizers": numbers, **more}
    )


def read(folder: Path, moved: Moved = UNMOVED) -> Saved:
    """Read a checkpoint and check every byte of it.

    Args:
        folder: The checkpoint's folder.
        moved: Tensors that have been renamed since.

    Returns:
        The checkpoint; its tensors are read later.

    Raises:
        UserError: It is damaged, or of another format.
    """
    what = f"checkpoint {folder}"
    verify(folder, what)
    document = read_json(folder / "state.json", what)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UserError(
            f"{what}: state.json is not of format {FORMAT}; "
            "it was written by another version of t2i"
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
    """Turn errors inside the block into a UserError that names the checkpoint.

    Args:
        saved: The checkpoint that is restored inside the block.

    Yields:
        Nothing.

    Raises:
        UserError: The content of the checkpoint does not fit the run.
    """
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


def newest(
    folder: Path, moved: Moved = UNMOVED, before_stage: int | None = None
) -> tuple[Saved | None, list[str]]:
    """Find the newest sound checkpoint of a run.

    Args:
        folder: The run's folder of checkpoints.
        moved: Tensors that have been renamed since they were written.
        before_stage: Only look at checkpoints of stages below this index. None: at all.

    Returns:
        The checkpoint (None if none is sound), and the reason why each newer one was skipped.
    """
    complaints: list[str] = []
    for path in sorted(listed(folder), key=step_of, reverse=True):
        try:
            saved = read(path, moved)
        except UserError as error:
            complaints.append(str(error))
            continue
        if before_stage is None or saved.state.stage < before_stage:
            return saved, complaints
    return None, complaints


def listed(folder: Path) -> list[Path]:
    """List the checkpoints of a run, after undoing a replacement that a crash left half-done.

    Args:
        folder: The run's folder of checkpoints.

    Returns:
        The folders step-N, in no particular order.
    """
    for aside in folder.glob(".step-*.old"):
        settle(folder / aside.name.removeprefix(".").removesuffix(".old"))
    return [
        path
        for path in folder.glob("step-*")
        if path.is_dir() and path.name.removeprefix("step-").isdecimal()
    ]


def step_of(path: Path) -> int:
    """Return the step of a checkpoint.

    Args:
        path: The checkpoint's folder, step-N.

    Returns:
        The step N.
    """
    return int(path.name.removeprefix("step-"))


def prune(folder: Path, keep: int, state: TrainState) -> None:
    """Remove old checkpoints, except the best one.

    Only checkpoints up to the present step are counted and removed. Later ones were skipped as
    damaged when the run was resumed: they are left alone and do not displace a sound one.

    Args:
        folder: The run's folder of checkpoints.
        keep: How many of the newest to keep, at least 1.
        state: How far the run is, and which checkpoint is the best.
    """
    ours = [path for path in sorted(listed(folder), key=step_of) if step_of(path) <= state.step]
    for path in ours[:-keep]:
        if step_of(path) not in state.best[:1]:
            shutil.rmtree(path, ignore_errors=True)


def clear_litter(run: Path) -> None:
    """Remove or undo what a killed process left half-written in a run's folder.

    Only the process that holds the run's lock may call this.

    Args:
        run: The run's folder.
    """
    for model in ("model", "best"):
        settle(run / model)
    listed(run / "checkpoints")
    for folder in (run, run / "checkpoints", run / "samples"):
        for litter in (*folder.glob(".*.tmp"), *folder.glob(".*.old")):
            shutil.rmtree(litter) if litter.is_dir() else litter.unlink()


def _split(state: Mapping[str, Any], tensors: dict[str, Tensor], name: str) -> dict[str, Any]:
    """Convert an optimizer's state dict to JSON; its tensors go to `tensors` as NAME/INDEX/KEY."""
    numbers: dict[str, dict[str, Any]] = {}
    seen: set[int] = set()
    for index, entries in state["state"].items():
        numbers[str(index)] = {}
        for key, value in _flat(entries):
            if isinstance(value, Tensor):  # those of 8 bits share their tables
                tensors[f"{name}/{index}/{key}"] = value.clone() if id(value) in seen else value
                seen.add(id(value))
            else:
                numbers[str(index)][key] = value
    return {"state": numbers, "param_groups": state["param_groups"]}


def _flat(entries: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """List what an optimizer keeps of a parameter; bitsandbytes nests some of it."""
    for key, value in entries.items():
        if isinstance(value, Mapping):
            yield from value.items()
        else:
            yield key, value


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
    """Give each loaded tensor its parameter's memory layout (channels last).

    Every step would be slower otherwise.
    """
    for parameter, entries in optimizer.state.items():
        for key, value in entries.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                entries[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _tuples(group: Mapping[str, Any]) -> dict[str, Any]:
    """Turn lists (betas) back into tuples, which optimizers use and JSON lacks."""
    return {k: tuple(v) if isinstance(v, list) and k != "params" else v for k, v in group.items()}
