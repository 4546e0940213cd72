"""Upload a run to the Hugging Face hub, in one commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError, in_one_line
from t2i.core.fetch.hub import OWN
from t2i.core.sharing.card import card
from t2i.core.sharing.parcel import CARD, Parcel, check_traces, pack

OURS = ("model/*", "samples/*", "checkpoints/*", ".eval_results/*", "results*.json",
        "config.json", "summary.json", "metrics.jsonl")  # fmt: skip
"""Files of a repository that a push replaces: those that it does not hold any more are deleted."""
NEUTRAL = (".gitattributes", CARD, "LICENSE*", "LICENCE*", ".eval_results/*")
"""Files that any repository may have before a run is pushed to it."""
EVAL_RESULTS = ".eval_results/t2i.yaml"


@dataclass(frozen=True)
class Pushed:
    """What `push` has done.

    Args:
        url: Address of the model's page. "": nothing was uploaded (`dry_run`).
        commit: The commit. "": none.
        files: Bytes of each file by its name in the repository.
        removed: Where paths of this machine were taken out.
        remarks: What else should be known of the files, one line each.
    """

    url: str
    commit: str
    files: dict[str, int]
    removed: Sequence[str] = ()
    remarks: Sequence[str] = ()

    @classmethod
    def of(cls, parcel: Parcel, url: str = "", commit: str = "") -> Pushed:
        """Describe a parcel.

        Args:
            parcel: The files.
            url: Address of the model's page. "": nothing was uploaded.
            commit: The commit. "": none.

        Returns:
            What was uploaded, or would be.
        """
        return cls(url, commit, parcel.sizes(), tuple(parcel.removed), tuple(parcel.remarks))


def prepare(
    run: str | Path,
    repo: str,
    *,
    licence: str | None = None,
    metrics: bool = True,
    checkpoints: bool = False,
    results: Sequence[str | Path] = (),
) -> Parcel:
    """Collect what of a run is published, with its model card. Nothing is sent.

    Args:
        run: The run's folder, or its name under runs/.
        repo: The repository, OWNER/NAME.
        licence: Licence of the weights, as the hub names it, such as "mit". None: unknown.
        metrics: Whether to publish the log.
        checkpoints: Whether to publish the newest checkpoint.
        results: Folders of benchmarks that scored the run, besides the one that trained it.

    Returns:
        The files.

    Raises:
        UserError: The run is incomplete, in training or damaged, or a text holds a path of this
            machine that cannot be taken out.
    """
    import yaml

    parcel = pack(run, repo, metrics=metrics, checkpoints=checkpoints, results=results)
    entries = [entry for shared in parcel.results for entry in shared.eval_results()]
    if entries:
        parcel.files[EVAL_RESULTS] = yaml.safe_dump(entries, sort_keys=False).encode()
    parcel.files[CARD] = card(parcel, licence).encode()
    check_traces(parcel)
    return parcel


def upload(parcel: Parcel, *, private: bool = False) -> Pushed:
    """Upload a parcel. All files appear at once, in one commit, or none does.

    Args:
        parcel: The files.
        private: Whether a new repository is private.

    Returns:
        The page, and the files.

    Raises:
        UserError: There is no token or it is refused, the repository holds something else or is
            public although `private` is set, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise UserError(
            f"{parcel.name}: pushing needs a token of the hub that may write: log in with "
            "'hf auth login' or set HF_TOKEN"
        )
    api = HfApi(library_name="t2i")
    try:
        url = api.create_repo(parcel.name, private=private or None, exist_ok=True)
        info = api.model_info(parcel.name)
        commit = _commit(api, parcel, info, private)
    except UserError:
        raise
    except Exception as error:  # whatever the hub's library and its HTTP client raise
        raise _refusal(parcel.name, error) from None
    return Pushed.of(parcel, str(url), commit)


def push(
    run: str | Path,
    repo: str,
    *,
    private: bool = False,
    licence: str | None = None,
    metrics: bool = True,
    checkpoints: bool = False,
    results: Sequence[str | Path] = (),
    dry_run: bool = False,
) -> Pushed:
    """Publish a run on the hub, with a model card. `t2i push` asks first; this function does not.

    Args:
        run: The run's folder, or its name under runs/.
        repo: The repository, OWNER/NAME. It is created if it does not exist.
        private: Whether a new repository is private.
        licence: Licence of the weights, as the hub names it, such as "mit". None: unknown.
        metrics: Whether to publish the log.
        checkpoints: Whether to publish the newest checkpoint.
        results: Folders of benchmarks that scored the run, besides the one that trained it.
        dry_run: Whether to send nothing, and only say what would be sent.

    Returns:
        The page, and the files.

    Raises:
        UserError: The run is incomplete or damaged, the token is missing or refused, or the hub
            cannot be reached.
    """
    parcel = prepare(
        run, repo, licence=licence, metrics=metrics, checkpoints=checkpoints, results=results
    )
    return Pushed.of(parcel) if dry_run else upload(parcel, private=private)


def _commit(api: Any, parcel: Parcel, info: Any, private: bool) -> str:
    """Send all files in one commit on top of what is there, and return the commit."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    if private and info.private is False:
        raise UserError(
            f"{parcel.name} exists and is public: nothing was uploaded; make it private on its "
            "page, or choose another name"
        )
    here = [str(file.rfilename) for file in info.siblings or []]
    others = [name for name in here if not any(fnmatch(name, pattern) for pattern in NEUTRAL)]
    if others and OWN[0] not in here:
        raise UserError(
            f"{parcel.name} holds something that is no run of t2i ({', '.join(others[:3])}): "
            "nothing was uploaded; choose another name"
        )
    stale = [
        name
        for name in here
        if name not in parcel.files and any(fnmatch(name, pattern) for pattern in OURS)
    ]
    adds = [
        CommitOperationAdd(name, one if isinstance(one, bytes) else str(one))
        for name, one in sorted(parcel.files.items())
    ]
    done = api.create_commit(
        parcel.name, [*adds, *(CommitOperationDelete(name) for name in stale)],
        commit_message="Upload a run with t2i", parent_commit=info.sha,
    )  # fmt: skip
    return str(done.oid)


def _refusal(name: str, error: Exception) -> UserError:
    """Say in one line why an upload failed, and what would help."""
    from huggingface_hub import errors

    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0
    if status in (401, 403) or isinstance(error, errors.RepositoryNotFoundError):
        return UserError(
            f"{name}: the hub refuses the token for this repository: log in with 'hf auth login' "
            "or set HF_TOKEN, with a token that may write there; nothing was uploaded"
        )
    if status in (409, 412):
        return UserError(
            f"{name}: somebody else changed the repository meanwhile; the same command tries again"
        )
    return UserError(
        f"{name}: the upload failed ({in_one_line(error)}) and nothing was published: check the "
        "network (HF_ENDPOINT, HF_HUB_OFFLINE); the same command tries again"
    )
