"""The training engine: everything about training that all models share.

`train(config, out)` starts a run and `resume(path)` continues one. Both return the finished `Run`.
They are imported on first use, so that importing this package stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from t2i.core.engine.training import resume, train

__all__ = ["resume", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 't2i.core.engine' has no attribute '{name}'")
    return getattr(import_module("t2i.core.engine.training"), name)
