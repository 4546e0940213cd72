"""Seed, save and restore the global random generators of a process."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from t2i.core.interfaces.noise import random_stream, seeded


def seed_all(*key: int | str) -> None:
    """Seed the global generators of torch, Python and NumPy.

    A trainer should not use those of Python and NumPy, but a library that it calls might.

    Args:
        *key: What the seeds depend on. Equal keys give equal seeds on every machine.
    """
    seeded(*key)
    seeds = random_stream("global", *key)
    random.seed(int(seeds.integers(2**63)))
    np.random.seed(int(seeds.integers(2**32)))


def random_state() -> dict[str, Tensor]:
    """Return the states of this process's global random generators.

    Returns:
        Tensors by name, for a safetensors file: torch's CPU state, one for each CUDA device, and
        those of NumPy and Python.
    """
    numpy_state = np.random.get_state(legacy=False)
    words = numpy_state["state"]["key"]
    rest = [numpy_state["state"]["pos"], numpy_state["has_gauss"], numpy_state["gauss"]]
    version, numbers, gauss_next = random.getstate()
    state = {
        "torch": torch.get_rng_state(),
        "numpy.words": torch.from_numpy(words.astype(np.int64)),
        "numpy.rest": torch.tensor(rest, dtype=torch.float64),
        "python": torch.tensor([version, *numbers], dtype=torch.int64),
        "python.gauss": torch.tensor(
            [] if gauss_next is None else [gauss_next], dtype=torch.float64
        ),
    }
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return state | {f"cuda.{i}": tensor for i, tensor in enumerate(cuda)}


def set_random_state(state: Mapping[str, Tensor]) -> None:
    """Put back the states that `random_state` returned.

    Args:
        state: The tensors by name. Those of CUDA devices are ignored where CUDA is not available.
    """
    torch.set_rng_state(state["torch"])
    position, has_gauss, gauss = state["numpy.rest"].tolist()
    words = state["numpy.words"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", words, int(position), int(has_gauss), gauss))
    version, *numbers = state["python"].tolist()
    gauss_next = state["python.gauss"].tolist()
    random.setstate((version, tuple(numbers), gauss_next[0] if gauss_next else None))
    for name, tensor in state.items():
        if name.startswith("cuda.") and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensor, int(name.removeprefix("cuda.")))
