"""Set up and tear down what a run needs: device, precision, processes, and its folder's lock."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import AutocastKwargs

from t2i.core.devices import best_device
from t2i.core.engine import checkpoint
from t2i.core.engine.reporting import Reporter, Silent, default_reporter
from t2i.core.errors import UserError
from t2i.core.io.files import refuse_links
from t2i.core.io.locks import LOCK, folder_lock, take_folder
from t2i.core.io.processes import first, leave
from t2i.core.runs.configure import RunConfig
from t2i.core.runs.folder import Run


@contextmanager
def session(config: RunConfig, reporter: Reporter | None) -> Iterator[tuple[Accelerator, Reporter]]:
    """Set up device, precision, threads and processes for a run, and close its reporter at the end.

    Args:
        config: The run's configuration.
        reporter: Where progress is reported. None: a progress bar or lines on stderr. Processes
            other than the first always report to nobody.

    Yields:
        The accelerator, and the reporter of this process.

    Raises:
        UserError: The precision needs a GPU, or inside the block the system raised an OSError.
    """
    if config.settings.threads:
        torch.set_num_threads(config.settings.threads)
    # Accelerate keeps the precision of the first run in a process; ours may differ from it.
    AcceleratorState._reset_state()
    # Autocast's cache of cast weights is off. It would outlive an update within a step; and a
    # weight that was first cast under no_grad would get no gradient from a later use.
    uncached = AutocastKwargs(cache_enabled=False)
    # Without cpu=True, accelerate does not join processes without GPUs into a group.
    alone = best_device().type == "cpu"
    accelerator = Accelerator(
        mixed_precision=config.settings.precision, cpu=alone, kwargs_handlers=[uncached]
    )
    if config.settings.precision == "fp16" and accelerator.device.type == "cpu":
        raise UserError("precision = fp16 needs a GPU: set precision=bf16, or no")
    if accelerator.num_processes > 1:
        atexit.register(leave)  # not at the end of the run: another run may follow in this program
    speaker = (reporter or default_reporter()) if accelerator.is_main_process else Silent()
    try:
        yield accelerator, speaker
    except OSError as error:
        raise UserError(
            f"{error.filename or 'a file'}: {error.strerror or error}; "
            "free some disk space, or check that its folder can be written to"
        ) from None
    finally:
        speaker.close()


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


def check_free(folder: Path) -> None:
    """Check that the folder of a new run holds nothing but its lock.

    Args:
        folder: The run's folder.

    Raises:
        UserError: There is something else in it.
    """
    for litter in folder.glob(".config.json.*.tmp"):  # left by a run that was killed at its start
        litter.unlink()
    if any(path.name != LOCK for path in folder.iterdir()):
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
