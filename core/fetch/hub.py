"""Models from the Hugging Face hub: the files of a pipeline's parts, or of a run of ours.

Only safetensors and text (JSON, vocabularies) are fetched, into the hub's own cache, where the
libraries look for them too. A model that is complete in the cache is used without a network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from t2i.core.errors import UserError, in_one_line
from t2i.core.fetch.downloads import conversion, note_revision, noted_revisions
from t2i.core.io.json_files import json_object
from t2i.core.io.sealed import MANIFEST
from t2i.core.io.terminal import note

INDEX = "model_index.json"
"""File of a pipeline in diffusers' layout: the class of each part."""
TEXT = ("*.json", "*.txt", "*.jsonl", "*.model")
WEIGHTS = "*.safetensors"
OWN = (f"model/{MANIFEST}", MANIFEST)
"""Files of which one shows that a repository is a run of ours, or the model of one."""
UNUSED = ("safety_checker",)
"""Parts of pipelines whose weights no model here uses."""
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model")
PROBE_SECONDS = 10.0
"""Time limit of a request that asks whether the hub has a name."""
_NAME = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
_URL = re.compile(r"https?:/+(www\.)?(huggingface\.co|hf\.co)/|hf:/+")
_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.safetensors")


@dataclass(frozen=True)
class HubName:
    """The name of a model on the hub.

    Args:
        name: OWNER/NAME.
        revision: Branch, tag or commit. None: the main branch.
    """

    name: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubName | None:
        """Read OWNER/NAME, OWNER/NAME@REVISION, or the address of the model's page.

        Args:
            text: The text.

        Returns:
            The name. None if the text is none.
        """
        plain = _URL.sub("", text).rstrip("/")
        if plain != text:
            plain = re.sub(r"^([^/]+/[^/]+)/(tree|blob)/([^/]+).*$", r"\1@\3", plain)
        match = _NAME.fullmatch(plain)
        return cls(match["name"], match["revision"]) if match and ".." not in plain else None

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name


def hub_model(
    hub: HubName, opens: Callable[[Path], bool] = lambda _: True, *, weights: bool = True
) -> Path:
    """Get a model: from the hub's cache if it is complete there, else from the hub.

    Args:
        hub: The model.
        opens: Tells from the folder of its texts alone whether the model can be opened. If not, its
            weights are not fetched.
        weights: Whether to fetch the weights. False: the texts that tell what the model is.

    Returns:
        The folder in the cache.

    Raises:
        UserError: The hub has no such model, it needs a login, or the hub cannot be reached; or the
            model holds no safetensors, or nothing that can be opened.
    """
    found = _cached(hub)
    if found is not None:
        return found
    try:
        return _fetched(hub, opens, weights)
    except UserError:
        raise
    except Exception as error:  # whatever the hub's library and its HTTP client raise
        raise refusal(hub, error) from None


def cached_models() -> list[HubName]:
    """List the models that are complete in the hub's cache. The hub is not contacted.

    Returns:
        Their names, in alphabetical order.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    folders = sorted(Path(HF_HUB_CACHE).glob("models--*--*"))
    names = ("/".join(folder.name.split("--")[1:]) for folder in folders)
    hubs = [hub for name in names if (hub := HubName.parse(name)) is not None]
    return [hub for hub in hubs if is_cached(hub)]


def is_cached(hub: HubName) -> bool:
    """Tell whether a model is complete in the hub's cache. The hub is not contacted.

    Args:
        hub: The model.

    Returns:
        Whether it is there.
    """
    return _cached(hub) is not None


def wanted_files(files: Sequence[str], index: Mapping[str, Any] | None) -> list[str]:
    """Choose the files of a repository that a model needs.

    Args:
        files: Names of all its files.
        index: The content of model_index.json. None: a run of ours, or its model.

    Returns:
        Texts and weights of each part. Of several variants of the same weights the plain one, else
        half precision, else the first. No weights if there are pickles only.
    """
    texts = [name for name in files if any(fnmatch(name, pattern) for pattern in TEXT)]
    weights = [name for name in files if fnmatch(name, WEIGHTS)]
    if index is None:
        return [name for name in texts + weights if OWN[0] not in files or _of_run(name)]
    chosen = [INDEX]
    for part in _parts(index):
        inside = f"{part}/"
        if not any(name.startswith(inside) for name in files):
            inside = ""  # early pipelines of one network keep all parts in one folder
        chosen += [name for name in texts if _within(name, inside)]
        if part not in UNUSED:
            chosen += _variant([name for name in weights if _within(name, inside)])
    return list(dict.fromkeys(chosen))


def _of_run(name: str) -> bool:
    """Whether a file of a run is its model or tells of it: no checkpoints, no images."""
    return name.startswith("model/") or "/" not in name or name == "samples/captions.json"


def _parts(index: Mapping[str, Any]) -> list[str]:
    """Names of the parts of a pipeline that it has."""
    return [
        name
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and value[1] is not None
    ]


def _within(name: str, folder: str) -> bool:
    return name.startswith(folder) and "/" not in name.removeprefix(folder)


def _variant(weights: Sequence[str]) -> list[str]:
    """Choose one variant of the weights in a folder: all its shards."""
    groups: dict[str, list[str]] = {}
    for name in weights:
        shard = _SHARD.fullmatch(name)
        stem = shard["stem"] if shard else name.removesuffix(".safetensors")
        groups.setdefault(stem, []).append(name)
    if not groups:
        return []
    extra = {stem: PurePosixPath(stem).name.partition(".")[2] for stem in groups}
    best = min(groups, key=lambda stem: (extra[stem] != "", extra[stem] != "fp16", stem))
    return groups[best]


# --- the cache ------------------------------------------------------------------------------------


def _cached(hub: HubName) -> Path | None:
    """Find a complete model in the hub's cache, without contacting the hub."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    noted = noted_revisions().get(hub.name) if hub.revision is None else None
    for revision in filter(None, (noted, hub.revision or "main")):
        for mark in (INDEX, *OWN):
            try:
                found = try_to_load_from_cache(hub.name, mark, revision=revision)
            except HFValidationError:
                return None
            folder = Path(found).parents[mark.count("/")] if isinstance(found, str) else None
            if folder is not None and _complete(folder):
                return folder
    return None


def _complete(folder: Path) -> bool:
    """Whether a folder holds everything that `wanted_files` would have chosen."""
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    if INDEX not in files:
        manifest = folder / next(name for name in OWN if name in files)
        listed = json_object(manifest).get("files", {})
        return all((manifest.parent / name).is_file() for name in listed)
    index = json_object(folder / INDEX)
    wanted = wanted_files(files, index)
    return all(_has(part, files, wanted) for part in _parts(index) if part not in UNUSED)


def _has(part: str, files: Sequence[str], wanted: Iterable[str]) -> bool:
    """Whether the files of a part are complete, as far as their names tell."""
    inside = f"{part}/" if any(name.startswith(f"{part}/") for name in files) else ""
    own = [name.removeprefix(inside) for name in wanted if _within(name, inside)]
    if "tokenizer_config.json" in own:
        return any(fnmatch(name, pattern) for name in own for pattern in VOCABULARIES) and (
            "vocab.json" not in own or "merges.txt" in own or "tokenizer.json" in own
        )
    if "config.json" not in own:
        return any(name.endswith(".json") for name in own)
    weights = [name for name in own if fnmatch(name, WEIGHTS)]
    shard = _SHARD.fullmatch(weights[0]) if weights else None
    return len(weights) == int(shard["count"]) if shard else bool(weights)


# --- the hub --------------------------------------------------------------------------------------


def _fetched(hub: HubName, opens: Callable[[Path], bool], weights: bool) -> Path:
    from huggingface_hub import HfApi

    revision = hub.revision or "main"
    files = _listed(HfApi().model_info(hub.name, revision=revision, timeout=PROBE_SECONDS))
    if INDEX in files and not _has_weights(files) and hub.revision is None:
        offered = conversion(hub.name)
        if offered is not None:
            files = _listed(HfApi().model_info(hub.name, revision=offered, timeout=PROBE_SECONDS))
            revision = offered
    if INDEX not in files and not any(name in files for name in OWN):
        raise UserError(f"{hub}: the hub's model is no pipeline of diffusers and no run of t2i: "
                        f"{_contents(files)}")  # fmt: skip
    if not _has_weights(files):
        raise UserError(
            f"{hub}: it has no safetensors, and pickles, which can run code, are not fetched: "
            f"{_contents(files)}; use a conversion of it, or convert it where you trust it"
        )
    folder = _texts(hub, revision, files)
    if not weights:
        return folder
    if INDEX in files and not opens(folder):
        kind = json_object(folder / INDEX).get("_class_name", "?")
        raise UserError(
            f"{hub}: it is a {kind} of diffusers, which no model here opens (its weights were not "
            "fetched); 't2i models' lists the models"
        )
    wanted = wanted_files(files, json_object(folder / INDEX) if INDEX in files else None)
    _download(hub, revision, wanted)
    if revision != (hub.revision or "main"):
        note_revision(hub.name, revision)
    return folder


def _listed(info: Any) -> list[str]:
    return [str(file.rfilename) for file in info.siblings or []]


def _has_weights(files: Sequence[str]) -> bool:
    return any(fnmatch(name, WEIGHTS) for name in files)


def _texts(hub: HubName, revision: str, files: Sequence[str]) -> Path:
    """Fetch the small files that tell what a model is."""
    own = next((name for name in OWN if name in files), None)
    folder = _download(hub, revision, [INDEX if INDEX in files else str(own)])
    if INDEX not in files:
        return folder
    wanted = wanted_files(files, json_object(folder / INDEX))
    return _download(hub, revision, [name for name in wanted if not fnmatch(name, WEIGHTS)])


def _download(hub: HubName, revision: str, files: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    if any(fnmatch(name, WEIGHTS) for name in files):
        note(f"fetching {hub} from the Hugging Face hub")
    return Path(snapshot_download(hub.name, revision=revision, allow_patterns=list(files)))


def _contents(files: Sequence[str]) -> str:
    """Name the first files of a repository that are no papers."""
    telling = [name for name in files if not name.startswith(".") and name != "README.md"]
    more = f" and {len(telling) - 4} more" if len(telling) > 4 else ""
    return f"it holds {', '.join(telling[:4])}{more}" if telling else "it is empty"


def refusal(hub: HubName, error: Exception) -> UserError:
    """Say in one line why a model did not come from the hub, and what would help.

    Args:
        hub: The model.
        error: What the hub's library raised.

    Returns:
        The error to raise instead.
    """
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # it says only that a file is not in the cache
    page = f"https://huggingface.co/{hub.name}"
    if isinstance(error, errors.GatedRepoError):
        return UserError(
            f"{hub}: the model is gated: accept its terms at {page}, then log in with "
            "'hf auth login' or set HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(
            f"{hub}: the hub's model has no revision '{hub.revision or 'main'}'; {page} lists them"
        )
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0
    unknown = isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError)
    if unknown or status == 404:
        return UserError(
            f"{hub}: there is no such folder here, and the hub has no such model (or it is "
            "private: log in with 'hf auth login')"
        )
    if isinstance(error, OSError) and error.errno is not None and error.filename:
        return UserError(f"{hub}: cannot write {error.filename}: {error.strerror}; free some disk "
                         "space, or set HF_HOME to another folder")  # fmt: skip
    return UserError(
        f"{hub}: there is no such folder here, it is not in the hub's cache, and the hub cannot be "
        f"reached ({in_one_line(error)}); check the path, or the network (HF_HUB_OFFLINE, "
        "HF_ENDPOINT)"
    )
