"""Files of tensors. Only safetensors are read: they cannot run code."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError
from t2i.core.io.files import check_regular, follow_umask


def save_tensors(path: Path, tensors: Mapping[str, Any]) -> None:
    """Write tensors as a safetensors file, durably but not atomically.

    The file has the permissions that the umask gives, like every other file.

    Args:
        path: The file. Its folder must exist.
        tensors: Tensors by name, on any device. Each is copied to the CPU and made contiguous. No
            two may share memory (`owned_tensors` removes duplicates).

    Raises:
        OSError: The system cannot write the file.
    """
    from safetensors.torch import save_file

    with errors_of_the_system(path):
        save_file(
            {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, path
        )
    follow_umask([path])
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def load_tensors(path: Path, what: str) -> dict[str, Any]:
    """Read a safetensors file.

    Args:
        path: The file.
        what: What the file belongs to; error messages begin with it.

    Returns:
        The tensors by name, on the CPU.

    Raises:
        UserError: The file cannot be read, or is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_regular(path, what)
    try:
        return load_file(path)
    except OSError as error:
        raise UserError(f"{what}: cannot read {path}: {error.strerror or error}") from None
    except (SafetensorError, ValueError, KeyError, MemoryError, OverflowError) as error:
        raise UserError(
            f"{what}: {path} is no sound safetensors file ({str(error)[:80]})"
        ) from None


@contextmanager
def errors_of_the_system(path: Path) -> Iterator[None]:
    """Turn errors of safetensors within the block into OSErrors.

    It gives the system's error as text: "... (os error 28)".

    Args:
        path: The file that the error names.

    Yields:
        Nothing.

    Raises:
        OSError: Safetensors raised an error of the system.
    """
    try:
        yield
    except Exception as error:
        if type(error).__name__ != "SafetensorError":  # which is not imported for this
            raise
        code = re.search(r"os error (\d+)", str(error))
        number = int(code[1]) if code else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from None
