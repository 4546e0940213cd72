"""The surroundings of a run: device, precision, processes, and its folder's lock."""

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
    """Device, precision and processes of a run, and who reports for it."""
    if config.settings.threads:
        torch.set_num_threads(config.settings.threads)
    # Accelerate remembers the precision of the first run in a process; ours may differ from it.
    AcceleratorState._reset_state()
    # Without autocast's cache of cast weights: it would outlive an update within a step, and forgets gradients that a
    # first use under no_grad did not need.
    uncached = AutocastKwargs(cache_enabled=False)
    # Unless told that there is only the processor, accelerate does not join processes without GPUs into a group.
    alone = best_device().type == "cpu"
    accelerator = Accelerator(
        mixed_precision=config.settings.precision, cpu=alone, kwargs_handlers=[uncached]
    )
    if config.settings.precision == "fp16" and accelerator.device.type == "cpu":
        raise UserError("precision = fp16 needs a GPU: set precision=bf16, or no")
    if accelerator.num_processes > 1:
        atexit.register(leave)  # at the end of the program, not of the run: another run may follow
    speaker = (reporter or default_reporter()) if accelerator.is_main_process else Silent()
    try:
        yield accelerator, speaker
    except OSError as error:
        raise UserError(
            f"{error.filename or 'a file'}: {error.strerror or error}; free some space or mend its place"
        ) from None
    finally:
        speaker.close()


def first_decides(accelerator: Accelerator, check: Callable[[], None]) -> None:
    """The first process checks something; what it refuses, all refuse."""
    first(check, accelerator.process_index, accelerator.num_processes)


@contextmanager
def locked(run: Run, accelerator: Accelerator, check: Callable[[Path], None]) -> Iterator[None]:
    """One training at a time in a run's folder, however either of them dies. The first process holds the lock for all.

    check: done to the folder once it is ours.
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
    """UserError unless nothing but the lock is in the folder of a run that is to begin."""
    for litter in folder.glob(".config.json.*.tmp"):  # of a beginning that was killed
        litter.unlink()
    if any(path.name != LOCK for path in folder.iterdir()):
        raise UserError(
            f"{folder} is there already: go on with 't2i train --resume {folder}' or choose another --out"
        )


def mend(folder: Path) -> None:
    """Makes a run's folder ready for going on."""
    refuse_links(folder)
    checkpoint.clear_litter(folder)
