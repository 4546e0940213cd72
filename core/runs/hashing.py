"""The hash of a run: of its settings and its data, wherever its files lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def run_hash(settings: Mapping[str, Any], fingerprint: str | None) -> str:
    """Compute the hash of a run: of its settings and its data, wherever the files lie.

    Args:
        settings: The resolved settings, as config.json has them in "run".
        fingerprint: Hash of the data set's content. None: unknown.

    Returns:
        A SHA-256 in hexadecimal digits. Runs with the same settings on the same data have the same.
    """
    named = {name: value for name, value in settings.items() if name not in ("cache_dir", "track")}
    if isinstance(data := named.get("data"), Mapping):
        named["data"] = {name: value for name, value in data.items() if name != "dir"}
    text = json.dumps([named, fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
