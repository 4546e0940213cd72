"""The reader of the authors' files: what they released is read, and no file can run anything."""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from t2i.core.errors import UserError
from t2i.plugins.common.weights.legacy import (
    PLAIN,
    _PlainUnpickler,
    read_legacy,
    read_plain_pickle,
    renamed,
    state_dict,
    without_prefix,
)

STATE = OrderedDict(a=torch.arange(6.0).view(2, 3), b=torch.tensor(3))
OLD_FORMAT = {"_use_new_zipfile_serialization": False}


class Payload:
    """Unpickled without care, it calls `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["zip", "old", "safetensors"])
def test_weights_are_read_in_each_format_whatever_the_name(tmp_path, how):
    path = tmp_path / "netG_epoch_90.pth"
    if how == "safetensors":
        save_file(dict(STATE), path)
    else:
        torch.save(STATE, path, **(OLD_FORMAT if how == "old" else {}))
    read = read_legacy(path)
    assert type(read) is dict
    assert set(read) == {"a", "b"}
    assert all(torch.equal(read[name], STATE[name]) for name in STATE)


def test_nested_documents_come_plain_with_shared_tensors_shared(tmp_path):
    shared = torch.nn.Parameter(torch.ones(2))
    document = {
        "model": {"netG": OrderedDict(w=shared)},
        "optimizers": [{"step": 3, "lr": (0.1, shared)}],
        "epoch": 9,
    }
    torch.save(document, tmp_path / "f.pth")
    read = read_legacy(tmp_path / "f.pth")
    assert read["epoch"] == 9
    assert read["optimizers"][0]["lr"][0] == 0.1
    weight = read["model"]["netG"]["w"]
    assert type(weight) is torch.Tensor
    assert not weight.requires_grad
    assert read["optimizers"][0]["lr"][1].data_ptr() == weight.data_ptr()


def captions():
    ixtoword = {0: "<end>", 1: "red", 2: "na\xefve"}
    return [
        [[1, 2], [2, 300, 70000]],
        [[1]],
        ixtoword,
        {word: index for index, word in ixtoword.items()},
    ]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_vocabularies_are_read_in_every_protocol(tmp_path, protocol):
    value = [*captions(), ("x", None, True, 2.5, -(2**80))]
    (tmp_path / "captions.pickle").write_bytes(pickle.dumps(value, protocol))
    assert read_plain_pickle(tmp_path / "captions.pickle") == value


def test_strings_of_python_2_are_latin_1(tmp_path):
    """As python 2 wrote a list of names: protocol 0, then 2; 'caf\\xe9' in bytes."""
    for name, data in {"p0": b"(lp0\nS'001.Albatross/a'\np1\naS'caf\\xe9'\np2\na.",
                       "p2": b"\x80\x02]q\x00(U\x0f001.Albatross/aq\x01U\x04caf\xe9q\x02e."}.items():  # fmt: skip  # noqa: E501
        (tmp_path / name).write_bytes(data)
        assert read_plain_pickle(tmp_path / name) == ["001.Albatross/a", "caf\xe9"]


# --- what is refused ------------------------------------------------------------------------------


def hostile(canary):
    """Objects whose pickles would harm, or hold what is no plain value."""
    return {
        "system": Payload(os.system, f"rm {canary}"),
        "unlink": [1, {"x": Payload(os.unlink, str(canary))}],
        "eval": Payload(eval, f"__import__('os').unlink({str(canary)!r})"),
        "class": pickle.PicklingError("x"),
        "object array": np.array([Payload(os.unlink, str(canary)), None], dtype=object),
        "array": np.arange(3),
        "set": {1, 2},
    }


@pytest.mark.parametrize("what", hostile("x"))
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickles_that_ask_for_anything_are_refused_unread(tmp_path, canary, what, protocol):
    path = tmp_path / "captions.pickle"
    path.write_bytes(pickle.dumps(hostile(canary)[what], protocol))
    with pytest.raises(UserError, match=r"captions\.pickle: not plain lists") as caught:
        read_plain_pickle(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("what", hostile("x"))
@pytest.mark.parametrize("how", [{}, OLD_FORMAT], ids=["zip", "old"])
@pytest.mark.parametrize("name", ["netG.pth", "netG.safetensors"])
def test_weights_that_ask_for_anything_are_refused_unread(tmp_path, canary, what, how, name):
    torch.save({"state": hostile(canary)[what], "w": torch.ones(2)}, tmp_path / name, **how)
    with pytest.raises(
        UserError, match=rf"{name}: neither safetensors nor plain tensors"
    ) as caught:
        read_legacy(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_every_instruction_that_imports_or_calls_is_refused():
    """Of the pickle machine's instructions only PLAIN ones keep their action; and the last wall
    stands as well."""
    kept = {
        code
        for code, action in _PlainUnpickler.dispatch.items()
        if action is pickle._Unpickler.dispatch[code]
    }
    assert kept == {getattr(pickle, name)[0] for name in PLAIN.split()}
    harmful = "GLOBAL STACK_GLOBAL INST OBJ REDUCE NEWOBJ NEWOBJ_EX BUILD PERSID BINPERSID EXT1 EXT2 EXT4 NEXT_BUFFER"  # noqa: E501
    assert not kept & {getattr(pickle, name)[0] for name in harmful.split()}
    with pytest.raises(pickle.UnpicklingError, match=r"names os\.system"):
        _PlainUnpickler(io.BytesIO(b"")).find_class("os", "system")


@pytest.mark.parametrize(
    "data",
    {
        "empty": b"",
        "text": b"hello\n",
        "unknown instruction": b"\x80\x02\xff.",
        "promises a terabyte": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b".",
        "huge memo index": b"]r\xff\xff\xff\x7f",
        "stack underflow": b"t.",
        "appends to a number": b"K\x01K\x02a.",
        "list as key": b"}]K\x01s.",
        "too many digits": b"I" + b"9" * 10_000 + b"\n.",
        "persistent": b"Pname\n.",
        "import path": b"cos\nsystem\n(S'true'\ntR.",
        "import path by name": b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
    }.items(),
    ids=lambda item: item[0],
)
def test_broken_pickles_are_one_line(tmp_path, data):
    (tmp_path / "f.pickle").write_bytes(data[1])
    with pytest.raises(UserError, match=r"f\.pickle: not plain lists") as caught:
        read_plain_pickle(tmp_path / "f.pickle")
    assert "\n" not in str(caught.value)


def test_truncated_files_are_one_line(tmp_path):
    torch.save(STATE, tmp_path / "zip.pth")
    torch.save(STATE, tmp_path / "old.pth", **OLD_FORMAT)
    save_file(dict(STATE), tmp_path / "w.safetensors")
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for end in (0, 5, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:end])
            with pytest.raises(UserError, match=path.name) as caught:
                read_legacy(path)
            assert "\n" not in str(caught.value)
    (tmp_path / "c.pickle").write_bytes(pickle.dumps(captions())[:-20])
    with pytest.raises(UserError, match=r"c\.pickle"):
        read_plain_pickle(tmp_path / "c.pickle")


def test_missing_files_and_folders_name_themselves(tmp_path):
    for read in (read_legacy, read_plain_pickle):
        with pytest.raises(UserError, match=r"none\.pth: No such file.*; check the path"):
            read(tmp_path / "none.pth")
        with pytest.raises(UserError, match=r"Is a directory; check the path"):
            read(tmp_path)


def test_an_archive_that_unfolds_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\0" * 1_000_000)
    with pytest.raises(UserError, match=r"bomb\.pth: a compressed archive"):
        read_legacy(tmp_path / "bomb.pth")


def test_containers_that_hide_their_methods_or_hold_themselves_are_harmless(tmp_path):
    shadowed = Payload(OrderedDict, [("a", torch.ones(1))])
    shadowed.call += ({"items": "not a method"},)
    document = {"state": shadowed, "bomb": []}
    document["self"] = document
    for _ in range(60):  # 2^60 items, if they were counted one by one
        document["bomb"] = [document["bomb"], document["bomb"]]
    torch.save(document, tmp_path / "f.pth")
    read = read_legacy(tmp_path / "f.pth")
    assert type(read["state"]) is dict
    assert read["self"] is read


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (torch.ones(2), "Tensor"),
        ([1], "list"),
        (torch.float32, "dtype"),
        ({"x": torch.eye(2).to_sparse()}, "sparse"),
    ],
)
def test_documents_that_are_no_state_dicts_say_what_they_are(tmp_path, value, kind):
    torch.save(value, tmp_path / "f.pth")
    with pytest.raises(UserError, match=rf"f\.pth: .*{kind}"):
        read_legacy(tmp_path / "f.pth")


# --- what importers do with it --------------------------------------------------------------------


def test_state_dicts_are_found_by_key_and_checked():
    document = {
        "model": {
            "netG": {"w": torch.ones(1)},
            "empty": {},
            "odd": {"w": 3},
            "number": {1: torch.ones(1)},
        }
    }
    assert list(state_dict(document, "f", "model", "netG")) == ["w"]
    for keys, line in {
        ("model", "netD"): "f: it has no 'model.netD'", ("model", "netG", "w", "x"): "it has no 'model.netG.w.x'",  # noqa: E501
        ("model", "empty"): "'model.empty' is no state dict", ("model", "netG", "w"): "is no state dict",  # noqa: E501
        ("model", "odd"): "'w' is no tensor", ("model", "number"): "'1' is no tensor",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=line):
            state_dict(document, "f", *keys)


def test_a_prefix_goes_where_every_key_has_it():
    one = torch.ones(1)
    assert list(without_prefix({"module.a": one, "module.b.module.c": one}, "module.")) == [
        "a",
        "b.module.c",
    ]
    assert list(without_prefix({"module.a": one, "b": one}, "module.")) == ["module.a", "b"]
    assert without_prefix({}, "module.") == {}


def test_rules_rename_in_order_and_two_of_a_name_are_refused():
    state = {"fc.weight": torch.ones(1), "GBlocks.0.c1.bias": torch.ones(2)}
    rules = [(r"^fc\.", "start."), (r"^GBlocks\.(\d+)\.c(\d)\.", r"blocks.\1.conv\2.")]
    assert list(renamed(state, rules)) == ["start.weight", "blocks.0.conv1.bias"]
    with pytest.raises(
        UserError, match=r"two tensors stand for 'x', one of them as 'GBlocks\.0\.c1\.bias'"
    ):
        renamed(state, [(r".*\..*", "x")])
