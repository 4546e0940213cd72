"""The hash of weights: results keep it, so it must never change."""

import hashlib

import torch

from t2i.core.models.weights import weights_hash

STATE = {
    "b": torch.tensor(
        [[1.0, 2.0], [3.0, 4.0]]
    ).T,  # not contiguous: its numbers are read row by row
    "a": torch.tensor(7, dtype=torch.int64),
    "c": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
}


def test_the_hash_is_that_of_names_types_shapes_and_numbers():
    digest = hashlib.sha256()
    digest.update(b"a torch.int64 ()\n" + (7).to_bytes(8, "little"))
    digest.update(
        b"b torch.float32 (2, 2)\n" + bytes.fromhex("0000803f 00004040 00000040 00008040")
    )
    digest.update(b"c torch.bfloat16 (2,)\n" + bytes.fromhex("c03f 00c0"))
    assert weights_hash(STATE) == digest.hexdigest()


def test_the_hash_is_of_what_is_used_not_of_how_it_lies():
    packed = {name: tensor.contiguous() for name, tensor in sorted(STATE.items())}
    assert weights_hash(packed) == weights_hash(STATE)
    assert weights_hash({**STATE, "b": STATE["b"].T}) != weights_hash(STATE)
    assert weights_hash({**STATE, "c": STATE["c"].float()}) != weights_hash(STATE)
