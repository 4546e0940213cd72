"""Runs pushed to a hub on the loopback device, and pulled from it."""

import json
import shutil

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

import t2i
from t2i.cli.main import main
from t2i.core.engine import train
from t2i.core.engine.reporting import Silent
from t2i.core.errors import UserError
from t2i.core.io.json_files import write_json
from t2i.core.io.sealed import seal, verify
from t2i.core.runs.configure import resolve_config
from t2i.core.runs.folder import Run

pytestmark = pytest.mark.usefixtures("toy")
NAME = "me/toy-run"
PERSON = "/home/erika/secret plans"
TRAINED = []
RESULTS = {
    "format": 1, "benchmark": "shapes", "protocol": {"protocol": "tiny"},
    "protocol_hash": "ab" * 32, "created": "2026-11-30T10:00:00+0000",
    "command": f"t2i bench shapes --out '{PERSON}/bench'",
    "headline": {"set": "one", "measure": "fid", "score": "fid", "title": "FID", "better": "lower"},
    "columns": [
        {"set": "one", "measure": "fid", "score": "fid", "title": "FID", "better": "lower"},
        {"set": "one", "measure": "kid", "score": "kid", "title": "KID", "better": "lower"},
    ],
    "rows": [
        {"name": "other", "kind": "model", "scores": {"one": {"fid": {"fid": 99.0}}}},
        {
            "name": "toy", "kind": "model", "scores": {"one": {"fid": {"fid": 12.5}}},
            "intervals": {"one": {"fid": {"fid": [11.0, 14.0]}}}, "sampling": {"sampler": "toyer"},
            "warnings": ["trained against <b>inception</b>"],
        },
    ],
}  # fmt: skip


@pytest.fixture
def run(tmp_path, tmp_path_factory, monkeypatch):
    """A trained run in runs/toy of a benchmark's folder, with a person's paths in its texts."""
    if not TRAINED:
        folder = tmp_path_factory.mktemp("trained") / "toy"
        train(resolve_config("toy", sets=["log_every=2"]), folder, reporter=Silent())
        TRAINED.append(folder)
    path = tmp_path / "bench" / "runs" / "toy"
    shutil.copytree(TRAINED[0], path)
    document = json.loads((path / "config.json").read_text())
    document["run"]["data"]["dir"] = f"{PERSON}/cats"
    command = f"t2i train --model toy --out '{PERSON}/toy' --set cache_dir={PERSON.split()[0]}/c"
    write_json(path / "config.json", {**document, "command": command, "from": f"{PERSON}/a"})
    write_json(tmp_path / "bench" / "results.json", RESULTS)
    monkeypatch.chdir(tmp_path)
    return Run(path)


def pictures(model):
    return [np.asarray(image) for image in model.sample(["a red image"], n=2, seed=3)]


def test_what_is_pushed_comes_back_with_the_same_bytes_and_the_same_pictures(run, hub):
    done = t2i.push(run.path, NAME, licence="mit")
    assert done.url == f"{hub.url}/{NAME}"
    files = hub.files(NAME)
    model = [path.name for path in run.model.iterdir() if path.is_file()]
    assert set(files) == {
        "README.md", ".eval_results/t2i.yaml", "config.json", "summary.json", "metrics.jsonl",
        "results.json", "samples/captions.json", "samples/step-6.png", "model/manifest.json",
        "model/config.json", *(f"model/{name}" for name in model),
    }  # fmt: skip
    assert {name: len(data) for name, data in files.items()} == done.files
    assert hub.large  # the picture and the weights went through the storage of large files
    back = t2i.pull(NAME)
    assert back.path.as_posix() == "runs/toy-run"
    verify(back.model, "pulled")
    for name in model:
        assert (back.model / name).read_bytes() == (run.model / name).read_bytes()
    assert back.complete
    expected = pictures(t2i.load(run.path))
    for source in (back.path, NAME):
        assert all(map(np.array_equal, expected, pictures(t2i.load(source))))
    assert t2i.pull(NAME).path.as_posix() == "runs/toy-run-2"


def test_no_path_of_the_person_is_published(run, hub):
    config = json.loads((run.model / "config.json").read_text())
    manifest = json.loads((run.model / "manifest.json").read_text())
    config["run"]["data"]["dir"] = f"{PERSON}/cats"
    write_json(run.model / "config.json", config)
    seal(run.model)
    done = t2i.push(run.path, NAME)
    pushed = json.loads(hub.files(NAME)["model/manifest.json"])
    assert manifest["files"].keys() == pushed["files"].keys()
    for name, data in hub.files(NAME).items():
        assert b"erika" not in data, name
        assert b"secret" not in data, name
        assert str(run.path).encode() not in data, name
    assert set(done.removed) == {
        "config.json: run.data.dir", "config.json: command", "config.json: from",
        "model/config.json: run.data.dir", "results.json: command",
    }  # fmt: skip
    verify(t2i.pull(NAME).model, "pulled")  # the manifest fits what was changed
    command = json.loads(hub.files(NAME)["config.json"])["command"]
    assert command == "t2i train --model toy --out toy --set cache_dir=c"


def test_the_card_and_the_results_can_be_read_by_machines(run, hub):
    t2i.push(run.path, NAME, licence="cc-by-4.0")
    card = ModelCard(hub.files(NAME)["README.md"].decode())
    assert (card.data.license, card.data.library_name) == ("cc-by-4.0", "t2i")
    (result,) = card.data.eval_results
    assert (result.metric_name, result.metric_value) == ("FID", 12.5)
    assert result.metric_args == {"interval_95": [11.0, 14.0], "protocol_sha256": "ab" * 32}
    for part in (
        "12.5 (11 to 14)", f't2i.load("{NAME}")', f"t2i sample --run {NAME}", "ab" * 32,
        "![Samples](samples/step-6.png)", "1. ", "t2i train --model toy", "toy-train-8",
        "trained against &lt;b&gt;", "cc-by-4.0",
    ):  # fmt: skip
        assert part in card.text, part
    (entry,) = yaml.safe_load(hub.files(NAME)[".eval_results/t2i.yaml"])
    assert entry["dataset"] == {"id": "t2i-zoo/shapes", "task_id": "tiny_one_fid_fid"}
    assert (entry["value"], entry["date"]) == (12.5, "2026-11-30T10:00:00+0000")
    assert [row["name"] for row in json.loads(hub.files(NAME)["results.json"])["rows"]] == ["toy"]


def test_an_unknown_licence_is_said_and_a_run_without_scores_too(run, hub, tmp_path):
    (tmp_path / "bench" / "results.json").unlink()
    t2i.push(run.path, NAME, metrics=False)
    card = ModelCard(hub.files(NAME)["README.md"].decode())
    assert card.data.license == "unknown"
    assert "Unknown: nobody has named a licence" in card.text
    assert "None yet" in card.text
    assert not {"metrics.jsonl", "results.json", ".eval_results/t2i.yaml"} & set(hub.files(NAME))


def test_the_base_of_adapters_is_named(run, hub, capfd):
    for start, said in ((f"{PERSON}/sd", "put it into the folder"), ("me/base", "is fetched from")):
        for file in (run.config_file, run.model / "config.json"):
            document = json.loads(file.read_text())
            base = {"from": start, "hash": "abc", "settings": {}}
            write_json(file, {**document, "base": base, "from": start})
        seal(run.model)
        assert main(["push", str(run.path), NAME, "--dry-run"]) == 0
        assert ("others lack their base, sd" in capfd.readouterr().out) == (start != "me/base")
        t2i.push(run.path, NAME)
        card = ModelCard(hub.files(NAME)["README.md"].decode())
        assert said in card.text
    assert card.data.base_model == "me/base"


def test_a_file_that_would_lie_outside_is_not_fetched(run, hub, tmp_path):
    t2i.push(run.path, NAME)
    for name in ("../../outside.json", "/tmp/outside.json", "..\\outside.json"):
        hub.files(NAME)[name] = b"{}"
        with pytest.raises(UserError, match=r"outside\.json would lie outside of the run's folder"):
            t2i.pull(NAME, tmp_path / "new")
        del hub.files(NAME)[name]
    assert not (tmp_path / "new").exists()


def test_a_second_push_replaces_the_first(run, hub):
    t2i.push(run.path, NAME)
    hub.files(NAME)["notes.txt"] = b"of the owner"
    (run.samples / "step-6.png").rename(run.samples / "step-9.png")
    t2i.push(run.path, NAME)
    grids = [name for name in hub.files(NAME) if name.endswith(".png")]
    assert grids == ["samples/step-9.png"]
    assert hub.files(NAME)["notes.txt"] == b"of the owner"


def test_a_wrong_token_is_refused_in_one_line_and_never_printed(run, hub, monkeypatch, capfd):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert main(["push", str(run.path), NAME, "--yes"]) == 2
    said = capfd.readouterr().err
    assert "the hub refuses the token for this repository" in said
    assert "hf_wrong" not in said
    assert len(said.strip().splitlines()) == 1
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="pushing needs a token of the hub that may write"):
        t2i.push(run.path, NAME)
    assert hub.repos == {}


@pytest.mark.parametrize("fault", [r"/lfs/.*", r".*/commit/main", r".*/preupload/main"])
def test_a_broken_upload_publishes_nothing_and_can_be_repeated(run, hub, fault):
    t2i.push(run.path, NAME)
    before = dict(hub.files(NAME))
    (run.samples / "step-6.png").write_bytes(b"x" * 3000)
    hub.faults[fault] = 403 if "lfs" in fault else 400
    with pytest.raises(UserError, match=r"nothing was (published|uploaded)"):
        t2i.push(run.path, NAME)
    assert hub.files(NAME) == before
    hub.faults.clear()
    t2i.push(run.path, NAME)
    assert hub.files(NAME)["samples/step-6.png"] == b"x" * 3000


def test_what_is_not_whole_is_not_pushed(run, hub, tmp_path):
    weights = run.model / "generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00\x00")
    with pytest.raises(UserError, match=r"generator\.safetensors is damaged"):
        t2i.push(run.path, NAME)
    run.summary_file.unlink()
    with pytest.raises(UserError, match="is not complete: 't2i train --resume"):
        t2i.push(run.path, NAME)
    with pytest.raises(UserError, match="is no name of a repository"):
        t2i.push(run.path, "me")
    assert hub.asked == []


def test_a_trace_that_cannot_be_taken_out_is_refused(run, hub):
    run.metrics_file.write_text(json.dumps({"note": str(run.path)}) + "\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl holds the path"):
        t2i.push(run.path, NAME)
    assert hub.asked == []


def test_a_repository_of_something_else_or_a_public_one_is_left_alone(run, hub):
    hub.repos[NAME] = {"private": False, "sha": "0" * 40, "files": {"pytorch_model.bin": b"x"}}
    with pytest.raises(UserError, match=r"no run of t2i \(pytorch_model\.bin\)"):
        t2i.push(run.path, NAME)
    with pytest.raises(UserError, match="exists and is public: nothing was uploaded"):
        t2i.push(run.path, NAME, private=True)
    with pytest.raises(UserError, match="is no run of t2i"):
        t2i.pull(NAME)
    assert list(hub.files(NAME)) == ["pytorch_model.bin"]


def test_a_damaged_or_missing_run_leaves_no_folder(run, hub, tmp_path):
    t2i.push(run.path, NAME, private=True)
    assert hub.repos[NAME]["private"]
    data = hub.files(NAME)["model/generator.safetensors"]
    hub.files(NAME)["model/generator.safetensors"] = data[:-1] + bytes([data[-1] ^ 1])
    with pytest.raises(UserError, match="is damaged"):
        t2i.pull(NAME, tmp_path / "new")
    with pytest.raises(UserError, match="the hub has no such model"):
        t2i.pull("me/none")
    assert not (tmp_path / "new").exists()
    assert list((tmp_path / "runs").iterdir()) == []


def test_the_commands_say_what_they_do_and_ask_first(run, hub, capfd):
    assert main(["push", str(run.path), NAME, "--dry-run"]) == 0
    shown = capfd.readouterr().out
    assert "model/generator.safetensors: " in shown
    assert "path of this machine taken out: config.json: command" in shown
    assert "licence: unknown" in shown
    assert main(["push", str(run.path), NAME]) == 2
    assert "--yes uploads without a question" in capfd.readouterr().err
    assert hub.asked == []
    assert main(["push", str(run.path), NAME, "--yes", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["url"] == f"{hub.url}/{NAME}"
    assert main(["pull", NAME, "--out", "here"]) == 0
    assert capfd.readouterr().out == "run: here\n"
