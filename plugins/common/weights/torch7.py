"""Files that Torch 7 (Lua) wrote with torch.save, read as plain values.

The format is binary: each value is a type (4 bytes) and its content. Tables and objects have a
number, by which later places refer to them. Nothing is built but dicts, strings, numbers, tensors
and records of objects' fields. Functions are passed over: their code is never run.

Source: the format is that of File.lua, generic/Tensor.c and generic/Storage.c of torch/torch7.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.io.files import check_regular, read_file

NIL, NUMBER, STRING, TABLE, OBJECT, BOOLEAN, FUNCTION, OLD_CLOSURE, CLOSURE = range(9)

DEEPEST = 100
"""Largest depth of values inside values. The released models need about 20."""

TYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Cuda": torch.float32,
    "CudaDouble": torch.float64,
    "CudaHalf": torch.float16,
    "CudaLong": torch.int64,
    "CudaInt": torch.int32,
    "CudaShort": torch.int16,
    "CudaChar": torch.int8,
    "CudaByte": torch.uint8,
}
"""Types of the numbers of torch.NAMETensor and torch.NAMEStorage."""


@dataclass
class TorchObject:
    """An object of a Lua class: the class is a name and nothing more.

    Args:
        kind: Name of the class, such as "nn.Linear".
        fields: Its fields by name.
    """

    kind: str
    fields: dict[Any, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The class without the library, such as "Linear" for nn.Linear and cudnn.Linear."""
        return self.kind.rpartition(".")[2]

    def modules(self) -> list[TorchObject]:
        """Return the modules that a container has, in their order.

        Returns:
            The modules. Empty for a module that is no container.
        """
        inside = self.fields.get("modules")
        if not isinstance(inside, dict):
            return []
        found = (inside.get(i) for i in range(1, len(inside) + 1))
        return [module for module in found if isinstance(module, TorchObject)]

    def leaves(self) -> Iterator[TorchObject]:
        """Walk through the modules that are no containers, in their order.

        Yields:
            The modules, each once.
        """
        waiting, seen = [self], set()
        while waiting:
            module = waiting.pop()
            if id(module) in seen:  # a container that holds itself would never end
                continue
            seen.add(id(module))
            inside = module.modules()
            if not inside:
                yield module
            waiting += reversed(inside)

    def tensor(self, name: str) -> Tensor | None:
        """Return a field that is a tensor.

        Args:
            name: Name of the field.

        Returns:
            The tensor as float32. None if there is no such tensor.
        """
        value = self.fields.get(name)
        return value.float() if isinstance(value, Tensor) else None


def read_torch7(path: Path) -> Any:
    """Read a file of Torch 7.

    Args:
        path: The file, as torch.save writes it by default (binary, 64 bits, little-endian).

    Returns:
        Its content: None, numbers, strings, booleans, tensors, dicts (tables) and `TorchObject`.

    Raises:
        UserError: The file cannot be read, or is not of this format. No code in it is ever run.
    """
    check_regular(path, "weights")
    try:
        content = read_file(path, "weights")
    except OSError as error:
        raise UserError(f"weights {path}: {error.strerror or error}; check the path") from None
    try:
        reader = _Reader(content)
        value = reader.value(0)
    except (ValueError, struct.error, RuntimeError) as error:
        raise UserError(
            f"weights {path}: no file that Torch 7 wrote in its binary format ({error}); download "
            "it again"
        ) from None
    return value


def is_torch7(path: Path) -> bool:
    """Tell whether a file begins as those of Torch 7 do that hold an object.

    Args:
        path: The file.

    Returns:
        Whether it does.
    """
    check_regular(path, "weights")
    try:
        with open(path, "rb") as file:
            begin = file.read(15)
    except OSError as error:
        raise UserError(f"weights {path}: {error.strerror or error}; check the path") from None
    return begin[:4] == struct.pack("<i", OBJECT) and begin[12:14] == b"V "


class _Reader:
    """Reads values one after the other. Every length is checked against what is left of the file.

    Args:
        content: The whole file.
    """

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0
        self._known: dict[int, Any] = {}

    def value(self, depth: int) -> Any:
        """Read the next value.

        Args:
            depth: Number of values that it is inside of.

        Returns:
            The value.

        Raises:
            ValueError: There is none.
        """
        if depth > DEEPEST:
            raise ValueError(f"values inside more than {DEEPEST} others")
        kind = self._int()
        if kind == NIL:
            return None
        if kind == NUMBER:
            return struct.unpack("<d", self._bytes(8))[0]
        if kind == BOOLEAN:
            return self._int() == 1
        if kind == STRING:
            return self._string()
        if kind == FUNCTION:
            return self._function(depth)
        if kind not in (TABLE, OBJECT, OLD_CLOSURE, CLOSURE):
            raise ValueError(f"a value of the unknown type {kind}")
        number = self._int()
        if number in self._known:
            return self._known[number]
        if kind == TABLE:
            return self._table(number, depth)
        if kind == OBJECT:
            return self._object(number, depth)
        self._known[number] = None
        return self._function(depth)

    def _function(self, depth: int) -> None:
        """Pass over a function: its code, and the values that it refers to."""
        self._bytes(self._int())
        self.value(depth + 1)

    def _table(self, number: int, depth: int) -> dict[Any, Any]:
        table: dict[Any, Any] = {}
        self._known[number] = table  # before its content, which may refer to it
        for _ in range(self._int()):
            key = self.value(depth + 1)
            item = self.value(depth + 1)
            if isinstance(key, float) and key.is_integer():
                key = int(key)
            if key is None or not isinstance(key, (str, int, float)):
                continue  # tables by objects hold nothing that is a weight
            table[key] = item
        return table

    def _object(self, number: int, depth: int) -> Any:
        version = self._string()
        kind = self._string() if version.startswith("V ") else version
        library, _, name = kind.partition(".")
        if library == "torch" and name.removesuffix("Storage") in TYPES and "Storage" in name:
            made: Any = self._storage(TYPES[name.removesuffix("Storage")])
            self._known[number] = made
            return made
        if library == "torch" and name.removesuffix("Tensor") in TYPES and "Tensor" in name:
            made = self._tensor(TYPES[name.removesuffix("Tensor")], depth)
            self._known[number] = made
            return made
        if library == "torch":
            raise ValueError(f"an object of the class {kind[:80]}, which is not known here")
        self._known[number] = made = TorchObject(kind)
        fields = self.value(depth + 1)
        if isinstance(fields, dict):
            made.fields = fields
        return made

    def _storage(self, dtype: torch.dtype) -> Tensor:
        length = self._long()
        size = torch.empty((), dtype=dtype).element_size()
        if length < 0 or length * size > len(self._content) - self._at:
            raise ValueError(f"an array of {length} numbers, which are not there")
        if not length:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(bytearray(self._bytes(length * size)), dtype=dtype)

    def _tensor(self, dtype: torch.dtype, depth: int) -> Tensor:
        dimensions = self._int()
        if not 0 <= dimensions <= 16:
            raise ValueError(f"a tensor of {dimensions} dimensions")
        shape = [self._long() for _ in range(dimensions)]
        strides = [self._long() for _ in range(dimensions)]
        offset = self._long() - 1
        storage = self.value(depth + 1)
        if storage is None or not dimensions:
            return torch.empty(0, dtype=dtype)
        if not isinstance(storage, Tensor) or storage.dtype != dtype or storage.dim() != 1:
            raise ValueError("a tensor without its numbers")
        count = last = 1
        for side, stride in zip(shape, strides, strict=True):
            if side < 1 or stride < 0:
                raise ValueError("a tensor with a side or a stride below its least")
            count, last = count * side, last + (side - 1) * stride
        if offset < 0 or offset + last > len(storage) or count > len(storage):
            raise ValueError("a tensor with fewer numbers in the file than its sides say")
        return storage.as_strided(shape, strides, offset)

    def _string(self) -> str:
        return self._bytes(self._int()).decode("latin-1")

    def _int(self) -> int:
        number: int = struct.unpack("<i", self._bytes(4))[0]
        return number

    def _long(self) -> int:
        number: int = struct.unpack("<q", self._bytes(8))[0]
        return number

    def _bytes(self, count: int) -> bytes:
        if count < 0 or count > len(self._content) - self._at:
            raise ValueError(f"it ends {count} bytes too early")
        self._at += count
        return self._content[self._at - count : self._at]
