"""Tensors that have other names now."""

import pytest

from t2i.core.models.moved import Moved

SAVED = {
    "generator": {"eye.weight": 1, "eyes": 2, "net.weight": 3},
    "helpers": {"ear.weight": 4},
    "text_encoder": {"eye.weight": 5},
}
RULES = ("generator.eye.=helpers.eye.", "generator.net.=generator.network.")


def saved(part):
    return SAVED.get(part, {})


def test_tensors_are_found_under_their_present_names():
    moved = Moved.of(RULES)
    assert moved.part("generator", saved) == {"eyes": 2, "network.weight": 3}
    assert moved.part("helpers", saved) == {"ear.weight": 4, "eye.weight": 1}
    assert moved.part("text_encoder", saved) == {"eye.weight": 5}  # another part's are another's
    assert moved.name("generator.eye.weight") == "helpers.eye.weight"
    assert moved.name("generator.eyes") == "generator.eyes"


def test_without_rules_only_the_part_itself_is_read():
    asked = []

    def read(part):
        asked.append(part)
        return saved(part)

    assert Moved().part("generator", read) == SAVED["generator"]
    assert asked == ["generator"]


@pytest.mark.parametrize(
    "rule", ["generator.a", "text.a=helpers.a", "generator.a=text_encoder.a", "=", ""]
)
def test_rules_of_another_form_are_refused(rule):
    with pytest.raises(ValueError, match="is not of the form"):
        Moved.of([rule])
