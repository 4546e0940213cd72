"""Pretrained weights: from a folder, the cache, what `t2i fetch` has got, or the hub; errors name
the command."""

import pytest

from t2i.core.errors import UserError
from t2i.plugins.common.weights import hub as pretrained
from t2i.plugins.common.weights.hub import Wanted, obtained


def wanted(name="openai/clip-vit-base-patch32", revision="main"):
    return Wanted("text encoder 'x'", "encoder.weights", name, revision, "a folder")


def load(source, offline):
    if not source.startswith("/"):
        raise OSError("not in the cache")
    return source


@pytest.fixture
def no_hub(monkeypatch):
    class Nobody:
        def model_info(self, *_, **__):
            raise ConnectionError("nobody there")

    monkeypatch.setattr(pretrained, "HfApi", Nobody)


def test_what_was_fetched_at_another_revision_serves_for_main(monkeypatch, no_hub):
    monkeypatch.setattr(pretrained, "hub_folder", lambda name: f"/cache/{name}")
    assert obtained(wanted(), load) == "/cache/openai/clip-vit-base-patch32"
    with pytest.raises(UserError):  # a revision that was asked for by name is that one or none
        obtained(wanted(revision="abc"), load)


def test_the_error_names_the_command_where_a_download_declares_it(monkeypatch, no_hub):
    monkeypatch.setattr(pretrained, "hub_folder", lambda name: None)
    with pytest.raises(UserError, match="'t2i fetch clip'"):
        obtained(wanted(), load)
    with pytest.raises(UserError, match=r"--set encoder\.weights=FOLDER") as caught:
        obtained(wanted("some/other"), load)
    assert "fetch" not in str(caught.value)
