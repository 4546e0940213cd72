"""Configurations: presets, files and --set, in that order, and one clear line for each mistake."""

import json

import pytest
import yaml

from t2i.core.errors import UserError
from t2i.core.io.json_files import write_json
from t2i.core.runs.configure import RunConfig, parse_set, resolve_config
from t2i.core.runs.folder import Run, newest_run

pytestmark = pytest.mark.usefixtures("toy")


def test_each_layer_wins_over_the_one_before(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("steps: 20\nlr: 0.5\nwidth: 3\n")
    config = resolve_config(
        "toy", config_file=file, overrides={"lr": 0.25}, sets=["width=4", "data.image_size=8"]
    )
    assert (config.settings.batch_size, config.settings.steps) == (4, 20)
    assert (config.settings.lr, config.settings.width) == (0.25, 4)
    assert config.data.config.image_size == 8


def test_the_resolved_document_is_a_legal_config_file(tmp_path):
    config = resolve_config("toy", sets=["lr=0.125", "encoder.frozen=true"])
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(json.loads(json.dumps(config.dump()))))
    assert resolve_config("toy", config_file=file) == config
    assert RunConfig.parse(config.dump(), "x") == config


def test_images_are_loaded_larger_where_they_are_cropped():
    assert resolve_config("toy", sets=["augment.scale=1.25"]).data.config.image_size == 10


def test_another_encoder_does_not_inherit_settings():
    assert resolve_config("toy", overrides={"encoder": {"name": "words"}}).encoder.name == "words"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sets": ["widht=3"]}, r"no setting is named 'widht'; did you mean 'width'\?"),
        (
            {"sets": ["augment.flop=3"]},
            r"no setting is named 'augment\.flop'; did you mean 'augment\.flip'\?",
        ),
        ({"sets": ["encoder.frosen=3"]}, r"text encoder 'toytext'.*did you mean 'frozen'\?"),
        ({"sets": ["lr=fast"]}, r"setting 'lr' = 'fast'"),
        ({"sets": ["lr=.nan"]}, r"setting 'lr'"),
        ({"sets": ["steps=0"]}, r"setting 'steps' = 0.*greater than or equal to 1"),
        ({"sets": ["lr"]}, r"--set lr: expected KEY=VALUE"),
        ({"sets": ["data=shapes"]}, r"'data' is a section"),
        ({"sets": ["data.name=shap"]}, r"no dataset is named 'shap'; did you mean 'shapes'\?"),
        ({"sets": ["sampler.name=direkt"]}, r"no sampler is named 'direkt'"),
        ({"preset": "tini"}, r"model 'toy' has no preset 'tini'; did you mean 'tiny'\?"),
    ],
)
def test_mistakes_get_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        resolve_config("toy", **arguments)
    assert "\n" not in str(caught.value)


def test_unknown_model():
    with pytest.raises(UserError, match=r"no model is named 'toyy'; did you mean 'toy'\?"):
        resolve_config("toyy")


@pytest.mark.parametrize(
    "text",
    [
        "- 1\n",
        "a: [",
        "!!python/object/apply:os.system ['touch canary']",
        "model: other\n",
        "\x00",
        "&a [*a, *a]",
        "seed: 1\nsteps: 3\nseed: 2\n",
        "encoder: {width: 8, width: 16}\n",
    ],
)
def test_config_files_that_are_none_are_refused_and_run_nothing(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError, match=r"c\.yaml"):
        resolve_config("toy", config_file=tmp_path / "c.yaml")
    assert not (tmp_path / "canary").exists()


def test_the_line_of_a_key_that_stands_twice_is_named(tmp_path):
    (tmp_path / "c.yaml").write_text("seed: 1\npreset: tiny\nseed: 2\n")
    with pytest.raises(UserError, match="line 3: 'seed' stands there for the second time"):
        resolve_config("toy", config_file=tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text("data: &a {val_length: 3}\nencoder: {<<: *a, val_length: 4}\n")
    with pytest.raises(UserError, match="val_length") as caught:
        resolve_config("toy", config_file=tmp_path / "c.yaml")
    assert "second" not in str(caught.value)  # merging is no repetition


def test_a_missing_config_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml: No such file"):
        resolve_config("toy", config_file=tmp_path / "none.yaml")


def test_values_are_read_as_yaml_with_exponents():
    assert parse_set("a.b=1e-4") == {"a": {"b": 1e-4}}
    assert parse_set("a=[1, 2]") == {"a": [1, 2]}
    assert parse_set("a=x=y") == {"a": "x=y"}


def test_values_that_are_nothing_in_yaml_are_text():
    for text in ("2024-02-28", "2024-02-30", "!!int x", "!!bool x", "0x_", "[" * 3000):
        assert parse_set(f"a={text}") == {"a": text}


@pytest.mark.parametrize(
    "text",
    ["seed=!!int x", "seed=0x_", "seed=" + "9" * 5000, "a=" + "[" * 900, "augment={1: 2}",
     "data={1: 2}", "encoder={null: 2}", "encoder.name=", "data.name=5", "steps={}"],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_no_value_is_more_than_a_line(text):
    with pytest.raises(UserError) as caught:
        resolve_config("toy", sets=[text])
    assert "\n" not in str(caught.value)


def make_run(root, name, model="toy", complete=True):
    run = Run(root / name)
    write_json(run.config_file, {"format": 1, "run": {"model": model}})
    if complete:
        run.model.mkdir()
        write_json(run.summary_file, {})
    return run


def test_newest_complete_run_is_taken(tmp_path):
    for name in ("a", "b"):
        make_run(tmp_path, name)
    make_run(tmp_path, "c", complete=False)
    make_run(tmp_path, "d", model="other")
    make_run(tmp_path, "e").config_file.write_text("{")
    assert newest_run("toy", tmp_path).path.name == "b"


def test_no_run_names_the_ways_to_get_one(tmp_path):
    with pytest.raises(UserError, match=r"t2i train --model toy.*t2i import --model toy"):
        newest_run("toy", tmp_path)


def test_former_names_of_settings_win_over_the_layers_below_and_are_written_anew(tmp_path):
    file = tmp_path / "old.yaml"
    file.write_text(
        "weight_cap: 3.0\nsampler: {noisiest: 50.0, interval: [0.25, 0.5], offset: 1, rescale: "
        "0.5}\n"
    )
    config = resolve_config("ddpm", config_file=file)  # whose preset has a min_snr_gamma
    dump = config.dump()
    assert dump["min_snr_gamma"] == 3.0
    sampler = {
        name: dump["sampler"][name] for name in ("sigma_max", "guidance_interval", "steps_offset")
    }
    assert sampler == {"sigma_max": 50.0, "guidance_interval": [0.25, 0.5], "steps_offset": 1}
    assert not {"weight_cap", "levels", "noisiest", "interval", "offset", "rescale"} & {
        *dump,
        *dump["sampler"],
    }
    assert RunConfig.parse(dump, "x") == config
    again = resolve_config(
        "ddpm", config_file=file, sets=["weight_cap=2", "sampler.sigma_max=9", "levels=[1, 2]"]
    )
    assert (again.settings.min_snr_gamma, again.settings.noise_level_beta) == (2.0, (1.0, 2.0))
    assert again.sampler.config.sigma_max == 9
    file.write_text("weight_cap: 3.0\nmin_snr_gamma: 2.0\n")
    with pytest.raises(
        UserError, match=r"old\.yaml: 'weight_cap' is the former name of 'min_snr_gamma'"
    ):
        resolve_config("ddpm", config_file=file)


def test_an_old_runs_document_is_read():
    old = resolve_config("ddim").dump()
    for former, name in {"weight_cap": "min_snr_gamma", "levels": "noise_level_beta"}.items():
        old[former] = old.pop(name)
    sampler = old["sampler"]
    for former, name in {"noisiest": "sigma_max", "interval": "guidance_interval"}.items():
        sampler[former] = sampler.pop(name)
    assert RunConfig.parse(old, "old") == resolve_config("ddim")


def test_another_samplers_settings_are_those_of_its_name():
    config = resolve_config("ddim", sets=["sampler.name=euler", "sampler.noisiest=9"])
    assert (config.sampler.name, config.sampler.config.sigma_max) == ("euler", 9)


def test_a_dump_that_is_edited_keeps_its_preset(tmp_path):
    file = tmp_path / "c.yaml"
    dump = resolve_config("ldm", preset="coco", data_needed=False).dump()
    file.write_text(yaml.safe_dump({**dump, "steps": 7}))
    for preset in (None, "coco"):
        config = resolve_config("ldm", preset=preset, config_file=file, data_needed=False)
        assert config.dump() == {**dump, "steps": 7}
    with pytest.raises(
        UserError, match=r"c\.yaml: it is for preset 'coco', and --preset is 'tiny'"
    ):
        resolve_config("ldm", preset="tiny", config_file=file)
    start = resolve_config("ldm")
    with pytest.raises(UserError, match=r"the run of --from has preset 'tiny': leave out one"):
        resolve_config("ldm", config_file=file, start=start)


def test_a_preset_of_a_file_is_obeyed_or_refused(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("preset: paper\nsteps: 7\n")
    config = resolve_config("toy", config_file=file, data_needed=False)
    assert config.preset == "paper"
    assert config == resolve_config("toy", preset="paper", sets=["steps=7"], data_needed=False)
    for text, reason in {
        "preset: tini": r"no preset 'tini'; did you mean 'tiny'\?",
        "preset:": r"c\.yaml: 'preset' is the name of a preset, not None",
        "preset: [tiny]": r"'preset' is the name of a preset, not \['tiny'\]",
        "preset: 5": r"'preset' is the name of a preset, not 5",
        "model:": r"it is for model 'None', not 'toy'",
    }.items():
        file.write_text(f"{text}\n")
        with pytest.raises(UserError, match=reason):
            resolve_config("toy", config_file=file)
    file.write_text("preset: '?'\nmodel: toy\n")  # of a run that was imported
    assert resolve_config("toy", config_file=file) == resolve_config("toy")


@pytest.mark.parametrize("name", ["model", "preset"])
def test_model_and_preset_are_no_settings(name):
    reason = f"'{name}' is no setting: --{name} names the {name}"
    for given in (
        {"sets": ["steps=3", f"{name}=tiny"]},
        {"sets": [f"{name}.x=1"]},
        {"overrides": {name: "tiny"}},
        {"more": {name: "toy"}},
    ):
        with pytest.raises(UserError, match=reason):
            resolve_config("toy", **given)


def test_a_preset_that_cannot_have_the_size_names_the_one_that_can():
    remedy = "preset 'tiny' is for images of 32 px: try --preset auto"
    with pytest.raises(UserError, match=f"doubled as often.*; {remedy}"):
        resolve_config("xmcgan", overrides={"image_size": 64}, data_needed=False)
    assert resolve_config("xmcgan", preset="auto", sets=["image_size=64"], data_needed=False)
    for sets in (["image_size=64", "lr_g=x"], ["widths_g=[8]"]):
        with pytest.raises(UserError) as error:
            resolve_config("xmcgan", sets=sets, data_needed=False)
        assert "auto" not in str(error.value)
