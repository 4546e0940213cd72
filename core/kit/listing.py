"""`python -m t2i.core.kit.listing`: the installed plugins as one JSON document, for other processes
of ours."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

from t2i.core.registry.tables import Loaded, registry


def described(plugin: Loaded) -> dict[str, Any]:
    """A plugin for a JSON document: where it comes from, what it registers, why it is broken."""
    origin = plugin.origin
    return {
        "name": origin.plugin, "distribution": origin.distribution, "version": origin.version,
        "registers": plugin.names, "error": plugin.error,
    }  # fmt: skip


def main() -> None:
    answer = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        plugins = [described(plugin) for plugin in registry().plugins]
    print(json.dumps(plugins), file=answer)


if __name__ == "__main__":
    main()
