"""`t2i settings`, `t2i cite`, completion, and hints where an option is a setting."""

import json
from types import SimpleNamespace

import pytest

from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.citations import citations
from t2i.core.runs.configure import resolve_config
from t2i.core.runs.settings_table import KINDS, settings_of

MODELS = [spec.name for spec in registry().models]


@pytest.mark.parametrize("name", MODELS)
def test_every_presets_values_are_those_that_a_run_would_have(name):
    rows = {row.name: row for row in settings_of("models", name)}
    for preset in registry().models[name].presets:
        dump = resolve_config(name, preset=preset, data_needed=False).dump()
        assert dump.pop("model") == name
        assert dump.pop("preset") == preset
        shown = {path: row.values[preset] for path, row in rows.items()}
        leaves = dict(_leaves(dump, "", shown))
        assert {path: value for path, value in shown.items() if value != "-"} == leaves


def _leaves(document, prefix, shown):
    """Values by path; those of a setting that is a mapping itself stay together."""
    for name, value in document.items():
        if isinstance(value, dict) and not isinstance(shown.get(f"{prefix}{name}"), dict):
            yield from _leaves(value, f"{prefix}{name}.", shown)
        else:
            yield f"{prefix}{name}", value


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, spec.name) for kind in KINDS for spec in registry().table(kind)]
)
def test_every_setting_says_what_it_does(kind, name):
    for row in settings_of(kind, name):
        assert len(row.summary) > 10, f"{row.name} of {name}: {row.summary!r}"
        assert row.summary[-1] in ".?)", f"{row.name} of {name}: {row.summary!r}"


def test_the_table_and_the_document(here):
    code, out, _ = here("settings", "ddpm", "--preset", "tiny")
    titles, *lines = out.splitlines()
    assert code == 0
    assert titles.split() == ["setting", "tiny", "what", "it", "does"]
    assert any(line.startswith("image_size ") for line in lines)
    _, out, _ = here("settings", "ddpm", "--json")
    (size,) = [row for row in json.loads(out) if row["name"] == "image_size"]
    assert set(size["values"]) == set(registry().models["ddpm"].presets)


def test_a_name_of_two_things(here, refused):
    _, _, err = here("settings", "ddim", "--json")
    assert "'ddim' is also a sampler: t2i settings ddim --kind sampler" in err
    _, out, _ = here("settings", "ddim", "--kind", "sampler", "--json")
    config = import_object(registry().samplers["ddim"].config)
    assert [row["name"] for row in json.loads(out)] == list(config.model_fields)
    assert refused("settings", "ldmm") == (
        "error: nothing with settings is named 'ldmm'; did you mean 'ldm'?"
    )
    assert "has no preset 'huge'" in refused("settings", "ldm", "--preset", "huge")


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_its_paper(name):
    entries = citations(name)
    assert entries
    for entry in entries:
        assert entry.startswith("@")
        assert entry.count("{") == entry.count("}")
        assert {"title", "author", "year"} <= {
            line.split("=")[0].strip() for line in entry.splitlines()[1:-1]
        }
        assert "keywords" not in entry


def test_cite(here, toy):
    code, out, _ = here("cite", "ddim", "ddpm")
    assert code == 0
    keys = [line for line in out.splitlines() if line.startswith("@")]
    assert keys == [
        "@inproceedings{ho2020ddpm,",
        "@inproceedings{song2021ddim,",
        "@inproceedings{dhariwal2021adm,",
    ]
    assert "@software{t2i," in here("cite")[1]


def test_a_setting_that_is_written_as_an_option(refused):
    assert refused("train", "--model", "ldm", "--lr", "1e-4") == (
        "error: no option is named '--lr': it is a setting, write --set lr=VALUE"
    )
    assert "write --set eta=VALUE" in refused("sample", "--model", "ldm", "--eta", "1")
    assert "did you mean '--seed'" in refused("sample", "--model", "ldm", "--sede", "1")


def test_a_wrong_sampler_is_an_error_before_the_run_is_read(refused):
    line = refused("sample", "--run", "nowhere", "--sampler", "dimm", "-p", "x")
    assert line == "error: no sampler is named 'dimm'; did you mean 'ddim'?"


def test_numbers_are_asked_for_in_plain_words(refused):
    assert "'abc' is not a whole number" in refused("train", "--model", "ldm", "--steps", "abc")
    assert "'x' is not a number" in refused("train", "--model", "ldm", "--minutes", "x")


def test_on_a_terminal_captions_are_asked_for(here, toy, tmp_path, monkeypatch):
    here("train", "--model", "toy", "--data", "toydata", "--encoder", "toytext", "--out", "run")
    said = iter(["a red image", "a green image", ""])
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda prompt: next(said))
    code, out, _ = here("sample", "--run", "run", "--out", "asked", "-n", "2")
    assert code == 0
    assert out.count("2 images in asked/") == 2
    for folder, caption in (("001", "a red image"), ("002", "a green image")):
        lines = (tmp_path / "asked" / folder / "samples.jsonl").read_text().splitlines()
        assert [json.loads(line)["prompt"] for line in lines] == [caption] * 2


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("t2i tra", "train"),
        ("t2i train --model dfg", "dfgan"),
        ("t2i sample --sampler uni", "unipc"),
    ],
)
def test_a_shell_completes_names(t2i, words, offered):
    done = t2i(
        _T2I_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(len(words.split()) - 1)
    )
    assert done.stdout.splitlines() == [f"plain,{offered}"]
    assert "complete" in t2i(_T2I_COMPLETE="bash_source").stdout


def test_the_line_for_a_shell(here):
    assert here("completion", "zsh")[1].splitlines()[-1] == 'eval "$(_T2I_COMPLETE=zsh_source t2i)"'
