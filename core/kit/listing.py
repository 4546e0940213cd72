"""List the installed plugins as one JSON document: `python -m t2i.core.kit.listing`.

Other processes of t2i run it after they have installed or removed a package.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

from t2i.core.registry.tables import Loaded, registry


def described(plugin: Loaded) -> dict[str, Any]:
    """Describe a plugin as a JSON document.

    Args:
        plugin: The plugin.

    Returns:
        Its name, distribution and version, the names that it registers by kind, and its error.
    """
    origin = plugin.origin
    return {
        "name": origin.plugin, "distribution": origin.distribution, "version": origin.version,
        "registers": plugin.names, "error": plugin.error,
    }  # fmt: skip


def main() -> None:
    """Print the document. What plugins print while they are loaded goes to stderr."""
    answer = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        plugins = [described(plugin) for plugin in registry().plugins]
    print(json.dumps(plugins), file=answer)


if __name__ == "__main__":
    main()
