"""Text files of people: UTF-8 and marked files are read, all others are refused by name."""

import pytest

from t2i.core.errors import UserError
from t2i.core.io.text import decode_text, read_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_text_is_read_in_utf_8_or_as_its_mark_says(tmp_path, encoding):
    path = tmp_path / "a.txt"
    path.write_bytes("un café 鸟\r\n".encode(encoding))
    assert read_text(path) == "un café 鸟\r\n"


def test_a_mark_wins_over_the_setting():
    assert decode_text("café".encode("utf-8-sig"), "a", "cp1252") == "café"


@pytest.mark.parametrize(
    ("encoding", "text"), [("cp1252", "un café à la crème"), ("gbk", "一只红色的鸟")]
)
def test_other_encodings_are_refused_and_read_by_the_setting(tmp_path, encoding, text):
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(UserError, match=r"a\.txt: not UTF-8 .*--set data\.encoding="):
        read_text(path)
    assert read_text(path, encoding) == text


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "un café"),
        ("cp1250", "zażółć gęślą"),
        ("gb18030", "一只红色的鸟"),
        ("cp932", "赤い鳥"),
    ],
)
def test_the_error_shows_the_text_in_the_right_encoding(encoding, text):
    with pytest.raises(UserError, match=rf"{encoding} \('{text}'\)"):
        decode_text(text.encode(encoding), "a")


def test_utf_16_without_a_mark_is_refused():
    with pytest.raises(UserError, match=r"zero bytes.*data\.encoding=utf-16-le"):
        decode_text("ab".encode("utf-16-le"), "a")
    assert decode_text("ab".encode("utf-16-le"), "a", "utf-16-le") == "ab"
    with pytest.raises(UserError, match=r"zero bytes.*data\.encoding=utf-16-le"):
        decode_text("\u7ea2 a".encode("utf-16-le"), "a")  # no UTF-8 at all


def test_the_setting_may_be_wrong_too():
    with pytest.raises(UserError, match="knows no such encoding"):
        decode_text(b"a", "a", "no-such")
    with pytest.raises(UserError, match="not ASCII"):
        decode_text(b"\xe9", "a", "ascii")


def test_a_file_that_cannot_be_opened_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_text(tmp_path / "absent.txt")
