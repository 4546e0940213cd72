"""`t2i info`: what a run is, or what runs here, on what, and where things are kept."""

from __future__ import annotations

import os
import platform
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from t2i.cli.about import show_about
from t2i.cli.command import Command, complete_runs, json_option
from t2i.cli.output import answer_json, answer_table
from t2i.core.errors import UserError
from t2i.core.registry.specs import DownloadSpec
from t2i.core.registry.tables import HOST, registry
from t2i.core.runs.versions import installed, untested


@click.command(cls=Command)
@click.argument("run", required=False, shell_complete=complete_runs, metavar="[RUN]")
@json_option
def info(run: str | None, as_json: bool) -> None:
    """Say what RUN is. Without it: versions, devices, folders, and what is broken or missing.

    RUN is what 't2i sample --run' takes: a run, or another project's folder or file. A version
    that t2i was not tested with is marked.

    \b
    t2i info
    t2i info runs/RUN
    """
    if run is not None:
        show_about(run, as_json)
        return
    document = {
        "versions": _versions(),
        "untested": untested(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "devices": _devices(),
        "threads": _threads(),
        "places": _places(),
        "broken_plugins": {str(plugin.origin): str(plugin.error) for plugin in registry().broken()},
        "downloads": _downloads(),
        "missing": _missing(),
    }
    if as_json:
        answer_json(document)
    else:
        answer_table(["what", "", "value"], _rows(document))


def _versions() -> dict[str, str]:
    found = installed()
    return {"t2i": found.pop(HOST), "python": platform.python_version(), **found}


def _devices() -> list[dict[str, Any]]:
    """What networks can run on; the first one is what t2i chooses."""
    import torch

    found: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found.append(
            {
                "device": f"cuda:{index}",
                "name": properties.name,
                "memory_bytes": properties.total_memory,
            }
        )
    if torch.backends.mps.is_available():
        found.append({"device": "mps", "name": platform.processor()})
    return [
        *found,
        {
            "device": "cpu",
            "name": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
        },
    ]


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _places() -> dict[str, str]:
    """Absolute paths, and for those that are out of reach the reason."""
    from huggingface_hub.constants import HF_HUB_CACHE

    from t2i.core.fetch.paths import cache_dir

    try:
        cache = str(cache_dir())
    except UserError as error:
        cache = str(error)
    here = {name: str(Path(name).absolute()) for name in ("runs", "samples")}
    return {**here, "cache": cache, "hub": str(Path(HF_HUB_CACHE).expanduser())}


def _downloads() -> dict[str, str]:
    """What `t2i fetch` gets: where it is, with its size, or the command that gets it."""
    from t2i.core.fetch.downloads import command, status

    def said(spec: DownloadSpec) -> str:
        try:
            found = status(spec)
        except UserError as error:  # no cache folder
            return str(error)
        where = f"{found.folder} ({found.size / 1e6:.1f} MB)" if found.folder else "missing"
        lacks = f", without {', '.join(found.missing)}" if found.folder and found.missing else ""
        return f"{where}{lacks}: '{command(spec)}' gets it" if found.missing else where

    return {spec.name: said(spec) for spec in registry().downloads}


def _missing() -> dict[str, str]:
    """Optional things that are not there -> how to get them."""
    return {} if find_spec("tensorboard") else {"tensorboard": "pip install 't2i-zoo[tensorboard]'"}


def _rows(document: dict[str, Any]) -> list[list[str]]:
    sections = {
        **document, "versions": _version_words(document), "system": {"": document["system"]},
        "devices": {entry["device"]: _device_words(entry) for entry in document["devices"]},
        "threads": {"": str(document["threads"])},
    }  # fmt: skip
    del sections["untested"]
    return [
        [section if i == 0 else "", name, value]
        for section, values in sections.items()
        for i, (name, value) in enumerate(values.items())
    ]


def _version_words(document: dict[str, Any]) -> dict[str, str]:
    untested = document["untested"]
    return {
        name: f"{version} (untested: {untested[name]})" if name in untested else version
        for name, version in document["versions"].items()
    }


def _device_words(entry: dict[str, Any]) -> str:
    if "memory_bytes" in entry:
        return f"{entry['name']}, {entry['memory_bytes'] / 2**30:.0f} GiB"
    return f"{entry['name']}, {entry['cores']} cores" if "cores" in entry else str(entry["name"])
