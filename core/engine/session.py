"""Set up and tear down what a run needs: device, precision, processes, and its folder's lock."""

from __future__ import annotations

import atexit
import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import AutocastKwargs, InitProcessGroupKwargs, KwargsHandler

from t2i.core.devices import named_device
from t2i.core.engine import checkpoint
from t2i.core.engine.casting import keeps_casts
from t2i.core.engine.reporting import Reporter, Silent, default_reporter
from t2i.core.errors import Crash, Interrupted, T2IError, UserError, of_system
from t2i.core.io import launched
from t2i.core.io.clutter import entries
from t2i.core.io.files import write_bytes
from t2i.core.io.folders import refuse_links
from t2i.core.io.locks import LOCK, folder_lock, take_folder
from t2i.core.io.processes import PATIENCE, first, leave, set_variable
from t2i.core.runs.configure import RunConfig
from t2i.core.runs.folder import Run
from t2i.core.settings.engine import EngineConfig

ERROR = "error.txt"
"""File in a run with the traceback of the error that ended it."""

ACCELERATE_DEVICE = "ACCELERATE_TORCH_DEVICE"
"""Environment variable from which accelerate reads the device of a single process."""


@contextmanager
def session(
    config: RunConfig, reporter: Reporter | None, device: str | None = None
) -> Iterator[tuple[Accelerator, Reporter]]:
    """Set up device, precision, threads and processes for a run, and close its reporter at the end.

    Inside the block, the processor takes denormal numbers for 0 (`flushed`).

    Args:
        config: The run's configuration.
        reporter: Where progress is reported. None: a progress bar or lines on stderr. Processes
            other than the first always report to nobody.
        device: Name of the device, such as "cuda:1". None: the best one.

    Yields:
        The accelerator, and the reporter of this process.

    Raises:
        UserError: This machine has no such device, the precision needs a GPU, or inside the block
            the system raised an OSError.
    """
    if config.settings.threads:
        torch.set_num_threads(config.settings.threads)
    accelerator = _accelerator(config.settings, device)
    if config.settings.precision == "fp16" and accelerator.device.type == "cpu":
        raise UserError("precision = fp16 needs a GPU: set precision=bf16, or no")
    if accelerator.num_processes > 1:
        atexit.register(leave)  # not at the end of the run: another run may follow in this program
    speaker = (reporter or default_reporter()) if accelerator.is_main_process else Silent()
    try:
        with flushed():
            yield accelerator, speaker
    except OSError as error:
        plain = f"{error.filename or 'a file'}: {error.strerror or error}; check the disk"
        raise UserError(of_system(error) or plain) from None
    finally:
        speaker.close()


@contextmanager
def flushed() -> Iterator[None]:
    """Take denormal numbers for 0 inside the block.

    These are numbers nearer to 0 than 1.2e-38, such as gradients behind an ELU far below 0. The
    arithmetic units of a processor take many times as long for them. Threads of a pool that was
    there before keep their own way.

    Yields:
        Nothing.
    """
    before = not (torch.tensor(1e-39) * 1).item()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _accelerator(settings: EngineConfig, name: str | None) -> Accelerator:
    """Make the accelerator of a run. Only a single process may name the number of a device."""
    launched.check_complete()
    device, several = named_device(name), launched.several()
    if several and device.index is not None and name is not None:
        raise UserError(
            f"device '{name}': each of several processes takes a device of its own: "
            f"name {device.type}, or none"
        )
    # Accelerate keeps the precision and the device of the first run in a process; ours may differ
    # from them. The processes of a group stay joined.
    AcceleratorState._reset_state(reset_partial_state=not several)
    # Updates empty the cache of cast weights (`forget_casts`), which outlives them within a step.
    handlers: list[KwargsHandler] = [AutocastKwargs(cache_enabled=keeps_casts(settings))]
    if several:  # the others wait while the first one scores the model, or writes a grid
        handlers.append(InitProcessGroupKwargs(timeout=PATIENCE))
    named = name is not None and not several and device.type != "cpu"
    with set_variable(ACCELERATE_DEVICE, str(device)) if named else nullcontext():
        # Without cpu=True, accelerate does not join processes without GPUs into a group.
        accelerator = Accelerator(
            mixed_precision=settings.precision, cpu=device.type == "cpu", kwargs_handlers=handlers
        )
    if accelerator.device.type == "cuda":
        torch.cuda.set_device(accelerator.device)
    return accelerator


def first_decides(accelerator: Accelerator, check: Callable[[], None]) -> None:
    """Run a check in the first process and raise its error in all processes.

    Args:
        accelerator: The run's processes.
        check: The check; it raises an error to refuse.

    Raises:
        T2IError: The check raised one; a UserError stays a UserError.
    """
    first(check, accelerator.process_index, accelerator.num_processes)


@contextmanager
def locked(run: Run, accelerator: Accelerator, check: Callable[[Path], None]) -> Iterator[None]:
    """Hold the lock of a run's folder inside the block, so that only one training uses it.

    The first process holds the lock for all. The system drops it if that process dies.

    Args:
        run: The run; its folder is created if it does not exist.
        accelerator: The run's processes.
        check: Called with the folder in the first process, once the lock is held.

    Yields:
        Nothing.

    Raises:
        UserError: Another process trains in the folder, the folder cannot be written to, or `check`
            raised an error.
    """
    lock = folder_lock(run.path)

    def take() -> None:
        refusal = (
            f"{run.path} is being trained by another process: wait for it, or choose another --out"
        )
        take_folder(lock, refusal)
        check(run.path)

    try:
        first_decides(accelerator, take)
        yield
    finally:
        lock.release()


@contextmanager
def traced(run: Run, accelerator: Accelerator) -> Iterator[None]:
    """Keep the traceback of an error that nobody foresaw, of a plugin for example, in the run.

    Args:
        run: The run. RUN/error.txt is written, by a further process RUN/error-RANK.txt.
        accelerator: The run's processes.

    Yields:
        Nothing.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or (
            isinstance(error, T2IError) and not isinstance(error, Crash)
        ):
            raise
        rank = accelerator.process_index
        file = run.path / (f"error-{rank}.txt" if rank else ERROR)
        own = "".join(traceback.format_exception(error))
        with suppress(OSError):  # the error itself is reported
            trace = error.trace if isinstance(error, Crash) else own
            write_bytes(file, trace.encode("utf-8", "replace"))
            error.add_note(f"{file} has the traceback")
        raise


class Attempt:
    """The start of a new run. If it fails before the first step, its folder is left as it was.

    As a context manager it surrounds everything that a new run does. A run that was stopped by a
    signal, or by a loss that is not finite, is kept: it can be resumed.

    Args:
        run: The run.

    Attributes:
        taken: Whether the folder is this run's; set it once it is locked and found empty.
        steps: Steps done so far.
    """

    def __init__(self, run: Run) -> None:
        self._folder = run.path
        self._made = [path for path in (run.path, *run.path.parents) if not path.exists()]
        self.taken = False
        self.steps: Callable[[], int] = lambda: 0

    def __enter__(self) -> Attempt:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        resumable = isinstance(error, Interrupted) or (
            isinstance(error, T2IError) and not isinstance(error, (UserError, Crash))
        )
        if error is None or resumable or not self.taken or self.steps():
            return
        with suppress(OSError):  # the failure itself is reported, not what cannot be removed
            for path in entries(self._folder):
                if path.name == ERROR:
                    continue
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            for path in self._made:
                path.rmdir()


def check_free(folder: Path) -> None:
    """Check that the folder of a new run holds nothing but its lock and clutter.

    Args:
        folder: The run's folder.

    Raises:
        UserError: There is something else in it.
    """
    for litter in folder.glob(".config.json.*.tmp"):  # left by a run that was killed at its start
        litter.unlink()
    (folder / ERROR).unlink(missing_ok=True)  # of an attempt that failed before its first step
    if any(path.name != LOCK for path in entries(folder)):
        raise UserError(
            f"{folder} is there already: go on with 't2i train --resume {folder}' "
            "or choose another --out"
        )


def mend(folder: Path) -> None:
    """Prepare a run's folder for resuming: remove what a killed process left half-written.

    Args:
        folder: The run's folder.

    Raises:
        UserError: A link in it leads out of the folder.
    """
    refuse_links(folder)
    checkpoint.clear_litter(folder)
