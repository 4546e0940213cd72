"""Only runs and named folders can be judged."""

import json

import pytest
from PIL import Image

from t2i.core.errors import UserError
from t2i.web.judge.sources import sources_of
from t2i.web.site import Site


def test_runs_and_named_places_are_listed_and_nothing_else(tmp_path):
    for path in ("runs/a", "runs/bench/runs/b", "elsewhere/c"):
        (tmp_path / path / "model").mkdir(parents=True)
        (tmp_path / path / "metrics.jsonl").touch()
        (tmp_path / path / "config.json").write_text('{"run": {"model": "dfgan"}}')
    (tmp_path / "runs/a/samples").mkdir()
    (tmp_path / "runs/a/samples/captions.json").write_text(json.dumps({"captions": ["a cat"]}))
    (tmp_path / "runs/untrained/checkpoints").mkdir(parents=True)
    (tmp_path / "runs/untrained/metrics.jsonl").touch()
    (tmp_path / "pics").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "pics/0.png")
    named = {"mine": tmp_path / "elsewhere/c", "pics": tmp_path / "pics", "hub": "owner/name"}
    found = sources_of(Site(runs=tmp_path / "runs", named=named))
    assert set(found.models) >= {"mine", "hub", "a", "bench/runs/b"}  # and the hub's cache
    assert "untrained" not in found.models
    assert dict(found.folders) == {"pics": tmp_path / "pics"}
    chosen = found.chosen(["a", "pics"])
    assert (list(chosen.models), list(chosen.folders)) == (["a"], ["pics"])
    assert chosen.captions() == ["a cat"]
    for wrong in ("untrained", str(tmp_path / "pics"), "../elsewhere/c", "/"):
        with pytest.raises(UserError, match="no run or folder of this page"):
            found.chosen([wrong])
