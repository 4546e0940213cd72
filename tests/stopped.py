"""A run as it is on disk when it is killed, for tests of what resuming makes of it."""

import shutil

from t2i.core.runs.folder import Run


def stopped_at(whole, step, folder):
    """Copy a run that has ended, without its summary and the checkpoints after a step."""
    part = Run(folder)
    shutil.copytree(whole.path, part.path)
    part.summary_file.unlink()
    for later in part.checkpoints.glob("step-*"):
        if int(later.name.removeprefix("step-")) > step:
            shutil.rmtree(later)
    return part
