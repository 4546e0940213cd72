"""`python -m t2i.core.kit.conformance.probe NAME VALUE`: loads one plugin in a process of its own, and says
what that cost.

Prints one JSON document: the heavy modules that loading pulled in, the processor time it took, and what went wrong.
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
        "PIL", "accelerate", "cv2", "datasets", "diffusers", "jax", "keras", "matplotlib", "numpy", "pandas",
        "pydantic", "rich", "safetensors", "scipy", "sklearn", "tensorflow", "timm", "torch", "torch_fidelity",
        "torchvision", "transformers", "yaml",
    ]
)  # fmt: skip
"""Packages that take longer to import than a listing of plugins may take."""


def main(name: str, value: str) -> None:
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
