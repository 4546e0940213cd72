"""The data set of a run that goes on must be the one that it began with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import Dataset
from t2i.core.io.json_files import read_json
from t2i.core.runs.configure import RunConfig, open_dataset
from t2i.core.runs.folder import Run

WRITTEN = "data_written"
"""Key in RUN/config.json: when the files of the data set were written."""


def as_recorded(dataset: Dataset) -> dict[str, str] | None:
    """Say when the files of a data set were written, for the run's record.

    Args:
        dataset: The data set.

    Returns:
        A JSON object; None for a data set without files.
    """
    written = dataset.written()
    return asdict(written) if written else None


def same_data(run: Run, config: RunConfig, say: Callable[[str], None], *, named: bool) -> Dataset:
    """Open the data set of a run that goes on, and compare it with what the run began with.

    Args:
        run: The run.
        config: Its configuration, with the folder where the data set is now.
        say: Receives a warning.
        named: Whether the user named the folder. Files with the same names and sizes are then used
            even if they were written since, as copies are.

    Returns:
        The data set.

    Raises:
        UserError: It is another one, or its files were written since and `named` is not set.
    """
    dataset = open_dataset(config.data)
    document, name = read_json(run.config_file, "run"), config.data.name
    if document.get("data_fingerprint") != dataset.fingerprint():
        raise UserError(f"{run.path}: the data set '{name}' is not the one that the run began with")
    before, now = document.get(WRITTEN), as_recorded(dataset)
    if not isinstance(before, dict) or now is None or before == now:
        return dataset
    told = f"{run.path}: files of the data set '{name}' were written since the run began"
    if named or before.get("times") == now["times"]:
        say(f"warning: {told}, or copied: their names and sizes are the same")
        return dataset
    raise UserError(
        f"{told}: names and sizes are the same, the content may be another; to go on with them as "
        f"they are: --data-dir {config.data.config.dir}"
    )
