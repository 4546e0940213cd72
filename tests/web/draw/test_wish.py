"""Wishes: how they are checked, and into which parts they fall."""

from dataclasses import replace

import pytest

from t2i.core.errors import UserError
from t2i.web.draw.album import Album, Drawing, safe_name
from t2i.web.draw.sheet import sheet
from t2i.web.draw.wish import Axis, Settings, Wish, listed, number, whole
from t2i.web.markup import escaped
from t2i.web.site import Limits

WISH = Wish(("m", "n"), ("p", "q"), Settings(model=""), images=2)


def test_the_parts_of_a_grid():
    wish = replace(WISH, x=Axis("steps", ("5", "9")), y=Axis("eta", ("0", "1")))
    found = [part.settings for part in wish.parts()]
    assert [(one.model, one.steps, one.sets) for one in found] == [
        (model, steps, {"eta": eta}) for model in "mn" for eta in (0, 1) for steps in (5, 9)
    ]
    assert wish.count == 32
    assert next(wish.parts()).values == {"eta": "0", "steps": "5"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": ()}, "write a prompt"),
        ({"prompts": ("x" * 5000,)}, "letters"),
        ({"images": 0}, "images of each prompt"),
        ({"images": 399}, "more than one drawing has"),
        ({"x": Axis("prompt", ())}, "both sides"),
        ({"x": Axis("seed", ())}, "give its values"),
        ({"x": Axis("steps", ("two",))}, "whole number"),
        ({"x": Axis("guidance", ("nan",))}, "give a number"),
        ({"settings": Settings("", more=("eta",))}, "NAME=VALUE"),
        ({"settings": Settings("", sampler="dimm")}, "did you mean 'ddim'"),
    ],
)
def test_wrong_wishes(changes, message):
    WISH.check(Limits())
    with pytest.raises(UserError, match=message):
        replace(WISH, **changes).check(Limits())


def test_numbers_and_lists():
    assert whole("7", "seed") == 7
    assert whole(7.0, "seed") == 7
    for wrong in ("-1", "1.5", 1.5, "x", str(2**63), float("inf"), float("nan")):
        with pytest.raises(UserError):
            whole(wrong, "seed")
    assert number("1e-3", "guidance") == 0.001
    assert listed("1, 2, ,2") == ("1", "2")
    assert listed("a, b; c") == ("a, b", "c")


def test_a_sheet_is_no_markup(tmp_path):
    evil = '<img src=x onerror="alert(1)"> ${alert(2)} {{value}} `'
    drawing = Drawing(replace(WISH, models=(evil,), prompts=(evil,)), tmp_path)
    for cell in drawing.cells():
        drawing.file(cell).parent.mkdir(exist_ok=True)
        drawing.file(cell).touch()
    shown = sheet(drawing)
    assert shown.count("<img ") == 2
    assert not set("${}`") & set(shown.replace(str(tmp_path), ""))
    assert escaped(evil) in shown
    assert "onerror=&quot;" in shown
    name = safe_name(next(drawing.cells()))
    assert name == "img-src-x-onerror-alert-1-alert-2-value-000-0000-000.png"


def test_an_album_keeps_the_newest(tmp_path):
    album = Album(tmp_path)
    drawings = [album.new(WISH) for _ in range(15)]
    assert not drawings[0].folder.exists()
    assert drawings[14].folder.exists()
    assert album.drawing(1) is None
    assert album.titles()[0] == ("15: p and 1 more (m, n)", 15)
    album.close()
    assert list(tmp_path.iterdir()) == []
