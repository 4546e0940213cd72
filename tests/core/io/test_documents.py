"""JSON that somebody sent: parsed in bounded memory, and refused in one line."""

import json

import pytest
from pydantic import TypeAdapter

from t2i.core.errors import UserError
from t2i.core.io import documents
from t2i.core.io.documents import checked, parse_json
from t2i.core.io.json_files import json_object, read_json, read_object


@pytest.mark.parametrize(
    ("data", "finite"),
    [
        (b"[" * 200_000, False),
        (b"[" * 200 + b"]" * 200, False),
        (b'{"a":' * 101 + b"1" + b"}" * 101, False),
        (b'{"a": [NaN]}', True),
        (b'{"a": {"b": -Infinity}}', True),
        (b"[1e999]", True),
        (b"[1" + b"0" * 400 + b"]", True),
        (b"1" * 5000, False),
        (b'{"a": "caf\xe9"}', False),
        (b"\xff\xfe{", False),
        (b"", False),
        (b"\0" * 9, False),
    ],
)
def test_what_is_no_plain_json_is_one_line(tmp_path, data, finite):
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        read_json(path, "it", finite=finite)
    assert str(error.value).startswith(f"it: {path} is not JSON")
    assert "\n" not in str(error.value)
    assert finite or json_object(path) == {}


def test_other_projects_numbers_are_read_as_they_are():
    assert parse_json(b'{"lambda_min_clipped": -Infinity}')["lambda_min_clipped"] < 0
    assert parse_json('{"a": "é"}'.encode("utf-16")) == {"a": "é"}


def test_a_document_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "x.json"
    with open(path, "wb") as file:
        file.truncate(2**40)  # a sparse file
    with pytest.raises(UserError, match="larger than 64 MiB"):
        read_json(path, "it")


def test_a_document_of_too_many_values_is_not_parsed(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "MOST_VALUES", 10)
    path = tmp_path / "x.json"
    path.write_text(json.dumps([0] * 11))
    with pytest.raises(UserError, match="more than 10 values"):
        read_json(path, "it")


def test_another_type_is_named_in_a_few_characters(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps([["x" * 10_000] * 1000]))
    with pytest.raises(UserError, match="holds no JSON object") as error:
        read_object(path, "it")
    assert len(str(error.value)) < 300


def test_the_first_mistake_is_named_or_their_number():
    adapter = TypeAdapter(dict[str, list[int]])
    assert checked(adapter, {"a": [1]}, "file", "mend it") == {"a": [1]}
    with pytest.raises(UserError, match=r"^file: 'a\.1': input should be .*; mend it$"):
        checked(adapter, {"a": [1, "x", "y"]}, "file", "mend it")
    with pytest.raises(UserError, match=r"^file: 2,000 values are wrong; mend it$"):
        checked(adapter, {"a": ["x"] * 2000}, "file", "mend it")
    with pytest.raises(UserError) as error:
        checked(adapter, {"a" * 9999: 1}, "file", "mend it")
    assert len(str(error.value)) < 300
