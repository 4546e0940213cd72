"""Files of Torch 7: what is in them is read, nothing is run, and damaged ones are refused."""

import struct
import sys
from pathlib import Path

import pytest
import torch

from t2i.core.errors import UserError
from t2i.plugins.common.weights.torch7 import TorchObject, is_torch7, read_torch7

sys.path.insert(0, str(Path(__file__).parent))
from torch7_writer import Function, Lua, Writer, torch7


def again(tmp_path, value, cuda=False):
    return read_torch7(torch7(tmp_path / "x.t7", value, cuda))


def test_bytes_of_a_tensor_are_those_of_the_format(tmp_path):
    """Written out by hand after File.lua and Tensor.c: type 4, number, version, class, dimensions,
    sizes, strides, offset from 1, then its storage, which is an object too."""
    by_hand = b"".join([
        struct.pack("<ii", 4, 1), struct.pack("<i3s", 3, b"V 1"),
        struct.pack("<i17s", 17, b"torch.FloatTensor"), struct.pack("<i", 2),
        struct.pack("<qqqqq", 1, 2, 2, 1, 1),
        struct.pack("<ii", 4, 2), struct.pack("<i3s", 3, b"V 1"),
        struct.pack("<i18s", 18, b"torch.FloatStorage"), struct.pack("<qff", 2, 1.5, -2),
    ])  # fmt: skip
    tensor = torch.tensor([[1.5, -2]])
    assert Writer().write(tensor).bytes == by_hand
    (tmp_path / "x.t7").write_bytes(by_hand)
    assert torch.equal(read_torch7(tmp_path / "x.t7"), tensor)


def test_plain_values(tmp_path):
    value = {"a": 1.5, "b": None, "c": True, "d": [3, "x\xe9", False], 2: "two", 0.5: {}}
    expected = {
        "a": 1.5, "b": None, "c": True, "d": {1: 3.0, 2: "x\xe9", 3: False}, 2: "two", 0.5: {},
    }  # fmt: skip
    assert again(tmp_path, value) == expected


@pytest.mark.parametrize("cuda", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.uint8])
def test_tensors_of_every_kind_and_their_views(tmp_path, dtype, cuda):
    """Tensors that are parts of one storage stay so, as after getParameters()."""
    whole = torch.arange(24).to(dtype)
    parts = {"t": whole[4:16].view(3, 4).T, "u": whole[16:], "empty": torch.empty(0, dtype=dtype)}
    read = again(tmp_path, parts, cuda)
    assert all(torch.equal(read[name], parts[name]) for name in parts)
    assert read["t"].dtype == dtype
    assert read["t"].untyped_storage().data_ptr() == read["u"].untyped_storage().data_ptr()


@pytest.mark.parametrize("version", ["V 1", None])
def test_objects_are_records_and_containers_are_walked(tmp_path, version):
    linear = Lua("nn.Linear", {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, version)
    tanh = Lua("cudnn.Tanh", {"train": False}, version)
    inner = Lua("nn.Sequential", {"modules": [tanh]}, version)
    read = again(tmp_path, Lua("nn.Sequential", {"modules": [linear, inner, linear]}, version))
    assert isinstance(read, TorchObject)
    assert [leaf.kind for leaf in read.leaves()] == ["nn.Linear", "cudnn.Tanh"]
    assert read.modules()[0] is read.modules()[2]
    assert read.modules()[0].tensor("weight").shape == (2, 3)
    assert read.modules()[0].tensor("name") is None
    assert [leaf.name for leaf in read.leaves()] == ["Linear", "Tanh"]


def test_a_container_that_holds_itself_ends(tmp_path):
    loop = Lua("nn.Sequential")
    loop.fields["modules"] = [loop, Lua("nn.Tanh")]
    assert [leaf.kind for leaf in again(tmp_path, loop).leaves()] == ["nn.Tanh"]


def test_functions_are_passed_over(tmp_path, canary):
    code = f"os.remove('{canary}')".encode()
    closure = Function(code, {"a": 1})
    value = {"f": closure, "again": closure, "old": Function(code, None, kind=6), "n": 3}
    assert again(tmp_path, value) == {"f": None, "again": None, "old": None, "n": 3}


def test_it_is_told_from_other_files(tmp_path):
    assert is_torch7(torch7(tmp_path / "a.t7", Lua("nn.Tanh")))
    torch.save({"a": torch.ones(1)}, tmp_path / "b.pth")
    assert not is_torch7(tmp_path / "b.pth")
    (tmp_path / "c").write_bytes(b"")
    assert not is_torch7(tmp_path / "c")


def damaged():
    """Names and bytes of files that hold no value of the format."""
    sound = Writer().write({"a": torch.ones(4)}).bytes
    tensor = Writer().write(torch.ones(4)).bytes
    at = tensor.index(b"FloatTensor") + len(b"FloatTensor") + 4
    deep = Writer()
    for _ in range(500):
        deep.int(3, len(deep.bytes), 1, 0)
    yield "empty", b""
    yield "pickle", b"\x80\x04N."
    yield "cut", sound[:-3]
    yield "type", struct.pack("<i", 9)
    yield "string", struct.pack("<ii", 2, -1)
    yield "table", struct.pack("<iii", 3, 1, 2**31 - 1)
    yield "sides", tensor[:at] + struct.pack("<q", 5) + tensor[at + 8 :]
    yield "negative", tensor[:at] + struct.pack("<q", -1) + tensor[at + 8 :]
    yield "stride", tensor[: at + 8] + struct.pack("<q", 2**60) + tensor[at + 16 :]
    yield "offset", tensor[: at + 16] + struct.pack("<q", 0) + tensor[at + 24 :]
    yield "storage", tensor.replace(struct.pack("<q", 4) + bytes(0), struct.pack("<q", 2**50))
    yield "deep", deep.bytes
    yield "class", Writer().write(Lua("torch.Generator")).bytes


@pytest.mark.parametrize(("name", "content"), list(damaged()), ids=[name for name, _ in damaged()])
def test_damaged_files_are_one_line(tmp_path, name, content):
    path = tmp_path / f"{name}.t7"
    path.write_bytes(content)
    with pytest.raises(UserError, match="no file that Torch 7 wrote"):
        read_torch7(path)


def test_a_missing_file_is_one_line(tmp_path):
    for read in (read_torch7, is_torch7):
        with pytest.raises(UserError, match="No such file"):
            read(tmp_path / "none.t7")
