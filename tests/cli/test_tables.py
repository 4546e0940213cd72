"""Tables: on a terminal and piped, as JSON, of every kind of thing."""

import json
import os
import pty
import re

import pytest

from t2i.cli.tables import FIELDS
from t2i.core.registry.tables import HOOKS, registry
from t2i.core.runs import versions


@pytest.mark.parametrize(
    "kind", [kind for kind in HOOKS if kind != "downloads"]
)  # 't2i fetch' lists those
def test_every_kind_is_listed_with_where_it_comes_from(here, kind):
    code, out, _ = here(kind, "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["name"] for row in rows] == [spec.name for spec in registry().table(kind)]
    for row in rows:
        assert set(row) == {"name", "summary", *FIELDS[kind], "plugin", "distribution", "version"}
    code, out, _ = here(kind)
    header, *lines = out.splitlines()
    assert [line.split()[0] for line in lines] == [row["name"] for row in rows]
    start = header.index("summary")
    assert [line[start:] for line in lines] == [" ".join(row["summary"].split()) for row in rows]


def test_a_model_says_family_and_presets(here):
    (row,) = (row for row in json.loads(here("models", "--json")[1]) if row["name"] == "toy")
    assert row == {
        "name": "toy", "summary": "A toy", "family": "one-shot", "presets": ["tiny", "paper"],
        "paper": "none", "year": None, "cited": "none", "arxiv": "", "board": None,
        "plugin": "toy", "distribution": "?", "version": "?",
    }  # fmt: skip


def test_a_terminal_of_any_width_gets_every_word(t2i):
    main, end = pty.openpty()
    try:
        process = t2i(
            "encoders", stdout=end, T2I_PLUGINS="words", COLUMNS="40", NO_COLOR="1", TERM="xterm"
        )
        os.close(end)
        shown = b""
        while chunk := _read(main):
            shown += chunk
    finally:
        os.close(main)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[\d*m", "", shown.decode())
    assert all(len(line) <= 40 for line in text.splitlines())
    columns = " ".join(line[-20:] for line in text.splitlines())
    assert "…" not in text
    for word in registry().encoders["words"].summary.split()[:4]:
        assert word in columns


def _read(descriptor):
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux says so when the other end is closed
        return b""


def test_info_says_versions_devices_places_and_what_is_broken(here, tmp_path):
    code, out, _ = here("info", "--json")
    document = json.loads(out)
    assert code == 0
    assert set(document["versions"]) == {
        "t2i",
        "python",
        *(versions.installed().keys() - {"t2i-zoo"}),
    }
    assert {"torch", "diffusers", "timm"} <= set(document["versions"])
    assert document["untested"] == versions.untested()
    assert document["devices"][-1]["device"] == "cpu"
    assert document["places"]["runs"] == str(tmp_path / "runs")
    assert document["places"]["cache"] == str(tmp_path / "home")
    assert document["broken_plugins"] == {
        str(plugin.origin): plugin.error for plugin in registry().broken()
    }
    assert set(document["downloads"]) == {spec.name for spec in registry().downloads}
    assert "'t2i fetch coco' gets it" in document["downloads"]["coco"]
    assert "torch" in here("info")[1]


def test_info_says_beside_a_version_that_it_was_not_tested(here, monkeypatch):
    """Older than what t2i declares that it needs, or newer than the newest that was tested."""
    newest, bound = versions.newest_tested(), versions.needed()["numpy"].specifier
    changed = {"numpy": "1.0", "torch": "99.1+cpu", "timm": str(newest["timm"])}
    read = versions._version
    monkeypatch.setattr(versions, "_version", lambda name: changed.get(name) or read(name))
    document = json.loads(here("info", "--json")[1])
    assert document["versions"].items() >= changed.items()
    assert document["untested"]["numpy"] == f"t2i needs {bound}"
    assert document["untested"]["torch"] == f"newer than {newest['torch']}"
    lines = [line.split(maxsplit=1) for line in here("info")[1].splitlines()]
    assert ["numpy", f"1.0 (untested: t2i needs {bound})"] in lines
    assert ["torch", f"99.1+cpu (untested: newer than {newest['torch']})"] in lines
    assert ["timm", changed["timm"]] in lines


def test_the_reference_of_a_paper_is_read():
    ldm, vae = registry().models["ldm"], registry().models["vae"]
    assert (ldm.year, ldm.cited, ldm.arxiv) == (2022, "Rombach et al. 2022", "2112.10752")
    # Its second paper has a number; its own has none.
    assert (vae.year, vae.cited, vae.arxiv) == (2015, "Sohn et al. 2015", "")
    for spec in registry().models:
        if registry().models.origin(spec.name).distribution == "t2i-zoo":
            assert spec.cited.endswith(str(spec.year)), spec.name
