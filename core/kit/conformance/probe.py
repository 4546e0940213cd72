"""Load one plugin in a fresh process, and measure that.

`python -m t2i.core.kit.conformance.probe NAME VALUE` prints one JSON document: the heavy modules
that the plugin imported, the processor time in seconds, and its error.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from importlib.metadata import EntryPoint

from t2i.core.registry import hooks
from t2i.core.registry.tables import Registry

HEAVY = frozenset(
    [
        "PIL", "accelerate", "cv2", "datasets", "diffusers", "jax", "keras", "matplotlib", "numpy",
        "pandas", "pydantic", "rich", "safetensors", "scipy", "sklearn", "tensorflow", "timm",
        "torch", "torch_fidelity", "torchvision", "transformers", "yaml",
    ]
)  # fmt: skip
"""Packages that take longer to import than listing all plugins may take."""


def main(name: str, value: str) -> None:
    """Load the plugin and print the document. What the plugin prints itself goes to stderr.

    Args:
        name: Name of the entry point.
        value: Its value: the plugin's module.
    """
    answer, registry = sys.stdout, Registry()
    started = time.process_time()
    with contextlib.redirect_stdout(sys.stderr):
        registry.load([EntryPoint(name, value, hooks.GROUP)])
    seconds = time.process_time() - started
    (loaded,) = registry.plugins
    document = {
        "heavy": sorted(HEAVY & set(sys.modules)),
        "seconds": seconds,
        "error": loaded.error,
    }
    print(json.dumps(document), file=answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
