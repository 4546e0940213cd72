"""Writes files as Torch 7's torch.save does, in its binary format, for tests."""

import struct

import torch

NAMES = {
    torch.float64: "Double", torch.float32: "Float", torch.int64: "Long", torch.uint8: "Byte",
}  # fmt: skip


class Lua:
    """An object of a Lua class: its name and its fields. With `version` None, as old files have
    it."""

    def __init__(self, kind, fields=None, version="V 1"):
        self.kind, self.fields, self.version = kind, fields or {}, version


class Function:
    """A Lua function: its code, and what it refers to. Type 8 has a number, type 6 has none."""

    def __init__(self, code, upvalues, kind=8):
        self.code, self.upvalues, self.kind = code, upvalues, kind


class Writer:
    """Collects the bytes. Tables, objects and storages that were written get their number again."""

    def __init__(self, cuda=False):
        self.bytes, self.cuda, self.numbers, self.alive = b"", cuda, {}, []

    def int(self, *values):
        for value in values:
            self.bytes += struct.pack("<i", value)

    def long(self, *values):
        for value in values:
            self.bytes += struct.pack("<q", value)

    def text(self, value):
        raw = value if isinstance(value, bytes) else value.encode("latin-1")
        self.int(len(raw))
        self.bytes += raw

    def number_of(self, key, value):
        """Write a number, and return whether the content is to follow."""
        known = key in self.numbers
        self.numbers.setdefault(key, len(self.numbers) + 1)
        self.alive.append(value)
        self.int(self.numbers[key])
        return not known

    def name_of(self, dtype, what):
        if self.cuda and dtype == torch.float32:
            return f"torch.Cuda{what}"
        return f"torch.{NAMES[dtype]}{what}"

    def write(self, value):
        if value is None:
            self.int(0)
        elif isinstance(value, bool):
            self.int(5, int(value))
        elif isinstance(value, (int, float)):
            self.int(1)
            self.bytes += struct.pack("<d", value)
        elif isinstance(value, str):
            self.int(2)
            self.text(value)
        elif isinstance(value, (dict, list)):
            self.table(value)
        elif isinstance(value, torch.Tensor):
            self.tensor(value)
        elif isinstance(value, Function):
            self.int(value.kind)
            if value.kind == 6 or self.number_of(id(value), value):
                self.text(value.code)
                self.write(value.upvalues)
        elif isinstance(value, Lua):
            self.int(4)
            if self.number_of(id(value), value):
                if value.version:
                    self.text(value.version)
                self.text(value.kind)
                self.write(value.fields)
        return self

    def table(self, value):
        self.int(3)
        if self.number_of(id(value), value):
            rows = value.items() if isinstance(value, dict) else enumerate(value, 1)
            self.int(len(value))
            for key, item in rows:
                self.write(key)
                self.write(item)

    def tensor(self, value):
        self.int(4)
        if not self.number_of(id(value), value):
            return
        self.text("V 1")
        self.text(self.name_of(value.dtype, "Tensor"))
        self.int(value.dim())
        self.long(*value.shape, *value.stride(), value.storage_offset() + 1)
        storage = value.untyped_storage()
        if not len(storage):
            self.int(0)
            return
        self.int(4)
        if self.number_of(("storage", storage.data_ptr()), storage):
            self.text("V 1")
            self.text(self.name_of(value.dtype, "Storage"))
            self.long(len(storage) // value.element_size())
            self.bytes += bytes(storage)


def torch7(path, value, cuda=False):
    """Write a value to a file.

    Args:
        path: The file.
        value: The value.
        cuda: Whether tensors of float32 are those of a GPU (torch.CudaTensor).

    Returns:
        The file.
    """
    path.write_bytes(Writer(cuda).write(value).bytes)
    return path
