"""Mutations of what a run holds: each is read as a command would, and only our own errors may come
of it.

Run in a process of the nursery, whose memory is bounded; prints a line for each mutation that does
worse.
"""

import copy
import json
import random
import shutil
import struct
from pathlib import Path

import torch

from t2i.core.engine import checkpoint
from t2i.core.errors import T2IError
from t2i.core.io.sealed import MANIFEST, seal, verify
from t2i.core.io.tensors import load_tensors
from t2i.core.models.loading import load_model
from t2i.core.models.weights import load_state
from t2i.core.runs.configure import RunConfig
from t2i.core.runs.folder import Run

ODD = (
    None, True, False, 0, -1, 1, 3, 2**31, 2**63, -(2**70), 10**400, 0.5, -0.0, 1e308, float("nan"),
    float("inf"), "",
    "x", "os:system", "../../x", "\ud800", "\0",
    "\x1b[2J", "[red]", "x" * 10_000, [], {}, [[]], [None], {"": {}},
    {"name": "words"}, {"name": "../x"}, [1, 2, 3], "NaN", "1e9",
)  # fmt: skip


def places(document, path=()):
    """The paths of everything inside a JSON document."""
    items = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document)
        if type(document) is list
        else ()
    )
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def mutated(document, draw):
    """A JSON document with a few things replaced, removed or added."""
    document = copy.deepcopy(document)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        found = list(places(document))
        if not found:
            return draw.choice(ODD)
        *way, last = draw.choice(found)
        inside = document
        for key in way:
            inside = inside[key]
        kind = draw.random()
        if kind < 0.7:
            inside[last] = copy.deepcopy(draw.choice(ODD))
        elif kind < 0.9:
            del inside[last]
        elif isinstance(inside, dict):
            inside[draw.choice(("x", "name", "", "\ud800", "model"))] = copy.deepcopy(
                draw.choice(ODD)
            )
        else:
            inside.append(copy.deepcopy(draw.choice(ODD)))
    return document if draw.random() < 0.99 else draw.choice(ODD)


def scrambled(data, draw, end):
    """Bytes with a few of the first `end` changed, removed, doubled or cut off."""
    data = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8))):
        at = draw.randrange(max(1, min(end, len(data))))
        kind = draw.randrange(5)
        if kind == 0:
            data[at : at + 1] = bytes([draw.randrange(256)])
        elif kind == 1:
            del data[at : at + draw.choice((1, 4, 100))]
        elif kind == 2:
            data[at:at] = data[at : at + draw.choice((1, 8, 64))]
        elif kind == 3:
            data[at : at + 8] = struct.pack(
                "<Q", draw.choice((0, 1, 2**16, 2**32, 2**63, 2**64 - 1))
            )
        else:
            del data[at:]
    return bytes(data)


def text(document, draw):
    """JSON as bytes, with NaN and lone surrogates as they come; now and then scrambled as well."""
    data = json.dumps(document).encode()
    return scrambled(data, draw, len(data)) if draw.random() < 0.2 else data


class Fuzz:
    """The files of a run in a folder of their own, and one way to read each kind of them,
    mutated."""

    def __init__(self, run, place):
        self.run, self.place = Run(Path(run)), Path(place)
        self.place.mkdir()
        self.model = load_model(self.run.model)

    def tensors(self, draw):
        """The header of a safetensors file: bytes, or names, types, shapes and places in it."""
        data = (self.run.model / "generator.safetensors").read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        if draw.random() < 0.5:
            changed = scrambled(data, draw, length + 8)
        else:
            header = text(mutated(json.loads(data[8 : 8 + length]), draw), draw)
            changed = struct.pack("<Q", len(header)) + header + data[8 + length :]
        path = self.place / "w.safetensors"
        path.write_bytes(changed)
        load_state(self.model.generator, load_tensors(path, "weights"), "weights")

    def manifest(self, draw):
        folder = self._copy(self.run.model, "manifest")
        path = folder / MANIFEST
        path.write_bytes(text(mutated(json.loads(path.read_bytes()), draw), draw))
        verify(folder, "model")

    def config(self, draw):
        """The configuration: of a run, and of a model that is then built and loaded."""
        document = mutated(json.loads((self.run.model / "config.json").read_bytes()), draw)
        run = document.get("run") if isinstance(document, dict) else None
        RunConfig.parse(run if isinstance(run, dict) else {}, "config.json")
        folder = self._copy(self.run.model, "config")
        (folder / "config.json").write_bytes(text(document, draw))
        (folder / MANIFEST).unlink()
        seal(folder)
        load_model(folder)

    def state(self, draw):
        """The numbers of a checkpoint, and its optimizers'."""
        folder = self._copy(self.run.checkpoints / "step-4", "state")
        path = folder / "state.json"
        path.write_bytes(text(mutated(json.loads(path.read_bytes()), draw), draw))
        (folder / MANIFEST).unlink()
        seal(folder)
        saved = checkpoint.read(folder)
        weights = load_tensors(folder / "modules.generator.safetensors", "x").values()
        with checkpoint.fitting(saved):
            saved.optimizers(
                {"generator": torch.optim.Adam([torch.nn.Parameter(x) for x in weights])}
            )

    def _copy(self, folder, name):
        shutil.rmtree(self.place / name, ignore_errors=True)
        shutil.copytree(folder, self.place / name)
        return self.place / name


def main(run, place, kind, seed, count):
    fuzz, sound = Fuzz(run, place), 0
    read = getattr(fuzz, kind)
    for number in range(count):
        try:
            read(random.Random(f"{kind} {seed} {number}"))
            sound += 1
        except T2IError as error:
            if "\n" in str(error) or not str(error):
                print(f"{kind} {number}: not one line: {error!r}")
        except BaseException as error:
            print(f"{kind} {number}: {type(error).__name__}: {str(error)[:200]!r}")
    print(f"{count} mutations of {kind}, {sound} of them harmless", flush=True)
