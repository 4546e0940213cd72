"""Arrays in .npz and .npy files, read a part at a time.

Nothing in a file is run, and a header cannot ask for more memory than the file has bytes.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from t2i.core.errors import UserError
from t2i.core.io.files import check_regular

SUFFIX = ".npy"
LARGEST = 2**31
"""Largest size of an array that is read whole, in bytes."""


@dataclass(frozen=True)
class StoredArray:
    """An array in a file.

    Args:
        path: The .npz or .npy file.
        name: Name of the array in a .npz file. "": the file is a .npy file.
        shape: Its shape.
        dtype: Its type.
        fortran: Whether its first axis varies fastest.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool

    def read(self) -> np.ndarray:
        """Read the whole array.

        Returns:
            The array.

        Raises:
            UserError: It is larger than `LARGEST`, or the file is damaged.
        """
        size = math.prod(self.shape) * self.dtype.itemsize
        if size > LARGEST:
            raise UserError(f"{self}: {size} bytes, more than {LARGEST}")
        with self._data() as file:
            flat = self._numbers(file, math.prod(self.shape))
        return flat.reshape(self.shape, order="F" if self.fortran else "C")

    def rows(self) -> Iterator[np.ndarray]:
        """Read the array row by row, along its first axis.

        Yields:
            The rows, each of shape `shape[1:]`.

        Raises:
            UserError: The file is damaged.
        """
        with self._data() as file:
            for _ in range(self.shape[0]):
                yield self._numbers(file, math.prod(self.shape[1:])).reshape(self.shape[1:])

    def _numbers(self, file: IO[bytes], count: int) -> np.ndarray:
        wanted = count * self.dtype.itemsize
        data = file.read(wanted)
        if len(data) != wanted:
            raise UserError(f"{self}: the file ends too early; get it again")
        return np.frombuffer(data, self.dtype)

    @contextmanager
    def _data(self) -> Iterator[IO[bytes]]:
        """Open the file behind the header of the array."""
        with _damage(str(self.path)), _opened(self.path, self.name) as file:
            _header(file)
            yield file

    def __str__(self) -> str:
        return f"{self.path}[{self.name}]" if self.name else str(self.path)


def stored_arrays(path: Path) -> dict[str, StoredArray]:
    """List the arrays in a file without reading them.

    Args:
        path: A .npz or .npy file.

    Returns:
        The arrays by name; the one of a .npy file has the name "". Arrays of objects are left out.

    Raises:
        UserError: The file cannot be read, or is of another kind.
    """
    if path.suffix == SUFFIX:
        return _with_headers(path, [""])
    with _damage(str(path)), zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(SUFFIX)]
    return _with_headers(path, [name.removesuffix(SUFFIX) for name in names])


def _with_headers(path: Path, names: list[str]) -> dict[str, StoredArray]:
    found = {}
    for name in names:
        with _damage(str(path)), _opened(path, name) as file:
            shape, fortran, dtype = _header(file)
        if not dtype.hasobject:
            found[name] = StoredArray(path, name, shape, dtype, fortran)
    return found


@contextmanager
def _opened(path: Path, name: str) -> Iterator[IO[bytes]]:
    check_regular(path, "")
    if not name:
        with open(path, "rb") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive, archive.open(name + SUFFIX) as member:
        yield member


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the header of an array: shape, Fortran's order, type."""
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read(file)
    if any(side < 0 for side in shape):
        raise ValueError("a negative shape")
    return shape, fortran, dtype


@contextmanager
def _damage(where: str) -> Iterator[None]:
    """Turn what NumPy and zipfile raise on damaged files into errors of one line."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{where}: {error.strerror}") from None
    except (OSError, ValueError, TypeError, SyntaxError, EOFError, RuntimeError,
            NotImplementedError, zipfile.BadZipFile, OverflowError, KeyError) as error:  # fmt: skip
        reason = str(error).partition("\n")[0][:80] or type(error).__name__
        raise UserError(f"{where}: no sound file of arrays ({reason}); get it again") from None


def kinds(arrays: Mapping[str, StoredArray]) -> str:
    """Describe arrays for an error.

    Args:
        arrays: The arrays by name.

    Returns:
        Name, type and shape of each, such as "arr_0 (uint8, 10x32x32x3)"; "nothing" if there are
        none.
    """
    told = (
        f"{name or 'an array'} ({array.dtype}, {'x'.join(map(str, array.shape)) or 'one number'})"
        for name, array in list(arrays.items())[:8]
    )
    return ", ".join(told) or "nothing"
