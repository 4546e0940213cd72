"""The measurements of `python -m t2i.benchmarks.gpu`, on the processor: what is planned, that a
failure is a row, that it goes on, and the table."""

import json
from pathlib import Path

import pytest

from t2i.benchmarks.gpu import __main__ as command
from t2i.benchmarks.gpu.measuring import measure, random_weights
from t2i.benchmarks.gpu.plan import SAMPLING, SMALL, WAYS, Measurement, planned
from t2i.benchmarks.gpu.table import tables
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config


def test_every_paper_preset_of_the_registry_is_measured_in_every_way():
    found = list(planned([], []))
    presets = {
        (spec.name, preset)
        for spec in registry().models
        for preset in spec.presets
        if preset not in SMALL
    }
    for way in WAYS:
        assert {(m.model, m.preset) for m in found if m.way == way} == presets
    assert {m.model for m in found[:2]} == {"ldm", "galip"}
    assert {(m.preset, m.way) for m in found[:2]} == {("thesis", SAMPLING)}


def test_no_network_is_downloaded():
    config = random_weights(resolve_config("galip", preset="thesis", data_needed=False), [])
    assert config.settings.clip.weights is None
    assert config.encoder.name == "words"
    assert config.settings.image_size == 128


def test_the_command_measures_goes_on_and_prints_markdown(tmp_path, capsys):
    """In real processes: one that works, and one that does not."""
    out = tmp_path / "gpu.jsonl"
    options = ["--presets", "tiny", "--models", "gan", "--seconds", "0.01", "--out", str(out)]
    out.write_text(
        "".join(
            json.dumps({"model": "gan", "preset": "tiny", "way": way, "error": "out of memory"})
            + "\n"
            for way in ("compile", "channels-last", "float32")
        )
        + '{"model": "gan", "pre'
    )
    out.write_text(out.read_text().rpartition("{")[0])
    command.main(options)
    (row,) = [row for row in command.read(out) if row["way"] == "bf16"]
    assert row["images_per_second"] > 0
    assert row["gb"] > 0.05
    said = capsys.readouterr().out
    assert "| gan | tiny |" in said
    assert said.count("out of memory") == 3
    before = out.read_bytes()
    command.main(options)  # nothing is left to do
    assert out.read_bytes() == before


def test_a_process_that_fails_or_hangs_is_a_row(monkeypatch):
    wrong = Measurement("gan", "no-such-preset", "bf16")
    assert "no-such-preset" in measure(wrong, 0.01)["error"]
    assert "took more than" in command.measured(wrong, 0.01, 0.01)["error"]
    monkeypatch.setattr(command, "MEASURING", "t2i.no_such_module")
    assert "ended with code 1" in command.measured(wrong, 0.01, 60)["error"]


def test_the_budget_ends_the_measurements(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "measured", lambda *_: {"error": "none"})
    out, wanted = tmp_path / "x.jsonl", [Measurement("gan", "tiny", way) for way in WAYS]
    assert command.run(out, wanted, 0.0, 1.0) == len(WAYS)
    assert not out.exists()
    assert command.run(out, wanted, 1.0, 1.0) == 0
    assert command.missing(out, iter(wanted)) == []


def test_a_line_that_was_cut_off_is_measured_again(tmp_path):
    path = Path(tmp_path / "x.jsonl")
    path.write_text('{"model": "gan", "preset": "tiny", "way": "bf16", "error": "none"}\n{"mod')
    assert len(command.read(path)) == 1


def test_the_tables_put_ways_side_by_side():
    rows = [
        {
            "model": "ldm", "preset": "thesis", "way": way, "images_per_second": 12.34, "gb": 5.0,
            "batch": 8, "parameters": 2_500_000, "device": "H200",
        }
        for way in ("bf16", "float32")
    ]  # fmt: skip
    rows.append(
        {
            "model": "ldm", "preset": "thesis", "way": SAMPLING, "seconds_per_image": 0.5,
            "gb": 1.0, "device": "H200",
        }
    )  # fmt: skip
    text = tables(rows)
    assert "Measured on: H200." in text
    assert "| ldm | thesis | 2.5 | 8 | 12.3, 5.00 | 12.3, 5.00 |" in text
    assert "| ldm | thesis | 0.5 | 1.00 | 5 |" in text


@pytest.mark.slow
def test_sampling_is_measured():
    assert measure(Measurement("gan", "tiny", SAMPLING), 0.01)["seconds_per_image"] > 0
