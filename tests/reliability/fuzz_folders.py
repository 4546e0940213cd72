"""Mutations of folders in diffusers' layout: each is opened and sampled from as `t2i sample` does,
and only our own errors may come of it, soon.

Run in a process of the nursery, whose memory is bounded; prints a line for each mutation that does
worse.
"""

import json
import os
import random
import shutil
import signal
import struct
from pathlib import Path

from fuzz import ODD, mutated, scrambled, text

from t2i.core.errors import T2IError
from t2i.core.models.loading import load

SECONDS = 60  # a mutation that takes longer hangs
SIZES = (1, 2, 1000, 10**6, 10**9, 2**31, 2**62, 10**30, -1, [10**9], [10**6] * 3, [[1] * 9] * 9)
WHOLE = (
    b"", b"null", b"[1]", b"{", b"\xff\xfe{\0}\0", b"[" * 100_000, b'{"a":' * 5000, b"9" * 5000,
    b'{"weight_map": {}}', b'{"weight_map": {"a": "../x.safetensors"}, "metadata": {}}',
    b'{"weight_map": {"conv_in.weight": "x.bin"}, "metadata": {}}', b"<html>",
)  # fmt: skip
ENTRIES = (
    ("transformers_weights", "../x.safetensors"), ("auto_map", {"AutoModel": "x.y"}),
    ("_use_default_values", 3), ("quantization_config", {"quant_method": "bitsandbytes"}),
    ("vocab_file", "../x"), ("added_tokens_decoder", {"a": 1}), ("torch_dtype", "evil"),
    ("num_hidden_layers", 10**9), ("layers_per_block", 10**6), ("vocab_size", 10**12),
    ("fast_tokenizer_files", ["../x"]), ("_name_or_path", "../x"), ("_class_name", 3),
    ("num_train_timesteps", 10**9), ("trained_betas", [0.5]), ("attn_implementation", "a/b"),
)  # fmt: skip
"""Entries that some library follows."""


class Late(BaseException):
    """A mutation took too long."""


def late(*_):
    raise Late(f"still at it after {SECONDS} s")


def changed(path, draw):
    """Change a file of a folder in one of many ways."""
    kind = draw.random()
    if kind < 0.04:
        path.unlink()
    elif kind < 0.08:
        other_kind(path, draw)
    elif kind < 0.14:
        path.write_bytes(draw.choice(WHOLE))
    elif path.suffix == ".json":
        path.write_bytes(document(json.loads(path.read_bytes()), draw))
    elif path.suffix == ".safetensors":
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = text(mutated(json.loads(data[8 : 8 + length]), draw), draw)
        path.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length :])
    else:
        path.write_bytes(scrambled(path.read_bytes(), draw, path.stat().st_size))


def document(content, draw):
    """Change a JSON document: an entry, one that a library follows, or anything in it."""
    kind = draw.random()
    if kind < 0.45 and content:
        content[draw.choice(sorted(content))] = draw.choice((*SIZES, *ODD))
    elif kind < 0.6:
        key, value = draw.choice(ENTRIES)
        content[key] = value
    else:
        return text(mutated(content, draw), draw)
    return json.dumps(content).encode()


def other_kind(path, draw):
    """Put something else in the place of a file: a pipe, a folder, a link that leads out."""
    outside = path.parents[2] / f"outside{path.suffix}"
    shutil.copyfile(path, outside)
    path.unlink()
    draw.choice(
        (lambda: os.mkfifo(path), path.mkdir, lambda: path.symlink_to(outside),
         lambda: path.symlink_to("/dev/zero"), lambda: path.symlink_to(path.name))
    )()  # fmt: skip


def opened(folder):
    model = load(folder, "cpu")
    sampler = model.sampler(steps=2)
    for _ in model.stream("a red circle", sampler=sampler):
        pass


def main(folder, place, seed, count):
    signal.signal(signal.SIGALRM, late)
    place, sound = Path(place), 0
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        copy = place / "mutated" / "folder"
        shutil.rmtree(copy.parent, ignore_errors=True)
        shutil.copytree(folder, copy)
        path = draw.choice(sorted(each for each in copy.rglob("*") if each.is_file()))
        changed(path, draw)
        name = f"{number} {path.relative_to(copy)}"
        signal.alarm(SECONDS)
        try:
            opened(copy)
            sound += 1
        except T2IError as error:
            if "\n" in str(error) or not str(error):
                print(f"{name}: not one line: {error!r}")
        except BaseException as error:
            print(f"{name}: {type(error).__name__}: {str(error)[:200]!r}")
        signal.alarm(0)
    print(f"{count} mutations, {sound} of them harmless", flush=True)
