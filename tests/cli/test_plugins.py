"""`t2i plugins check` and `t2i plugins new`; plugins that are broken in every way, in real
processes; the pytest plugin."""

import json
import os
import subprocess
import sys

import pytest

SPEC = """
from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import {kind}Spec

@hookimpl
def t2i_{hook}({signature}):
    return {returned}
"""
SAMPLER = 'SamplerSpec(name="{name}", summary="s", config="a:b", build="a:c", families=("x",))'


def sampler(name="mine", signature="", returned=None, hook="samplers"):
    returned = returned or f"[{SAMPLER.format(name=name)}]"
    return SPEC.format(kind="Sampler", hook=hook, signature=signature, returned=returned)


BROKEN = {
    "raises": ("raise OSError('no such luck')", "OSError: no such luck"),
    "leaves": ("import sys; sys.exit('bye')", "SystemExit: bye"),
    "syntax": ("def", "SyntaxError: "),
    "absent": ("import a_module_that_is_not_there", "ModuleNotFoundError: No module named "
                                                    "'a_module_that"),
    "taken": (sampler("ddim"), "its sampler 'ddim' is also registered by plugin 'ddim' of t2i-zoo"),
    "nonsense": (sampler(returned="'nonsense'"), "TypeError: t2i_samplers returned str, not a list "
                                                 "of SamplerSpec"),
    "halfway": (sampler(returned="1 / 0"), "ZeroDivisionError: division by zero"),
    "fields": (sampler(returned='[SamplerSpec(name="f", summary="s", config="a:b", build=None, '
                                'families="x")]'),
               "TypeError: t2i_samplers: build of 'f' is None, not str"),
    "signature": (sampler(signature="config"), "TypeError: hookimpl definition: "
                                               "t2i_samplers(config)"),
    "misspelt": (sampler(hook="smaplers"), "TypeError: t2i_smaplers is no hook of t2i; did you "
                                           "mean 't2i_samplers'?"),
    "hookless": ("x = 1", "TypeError: it has no hook: mark the functions that return "
                          "specifications"),
}  # fmt: skip


def warnings(process):
    return [line for line in process.stderr.splitlines() if line.startswith("warning: ")]


def test_every_kind_of_broken_plugin_is_named_once_and_all_else_works(t2i, site):
    for name, (source, _) in BROKEN.items():
        site(f"bad_{name}", source)
    site("good", sampler("mine"))
    process = t2i("samplers", "--json")
    assert process.returncode == 0
    names = {row["name"]: row["distribution"] for row in json.loads(process.stdout)}
    assert (names["mine"], names["ddim"], names["direct"]) == ("good", "t2i-zoo", "t2i-zoo")
    found = {line.split("'")[1]: line for line in warnings(process)}
    assert len(found) == len(warnings(process)) == len(BROKEN)
    for name, (_, reason) in BROKEN.items():
        line = found[f"bad_{name}"]
        assert line.startswith(f"warning: plugin 'bad_{name}' of bad_{name} 1.5: {reason}"), line
    errors = {p["name"]: p["error"] for p in json.loads(t2i("plugins", "--json").stdout)}
    assert all(errors[f"bad_{name}"].startswith(reason) for name, (_, reason) in BROKEN.items())
    assert errors["good"] is errors["ldm"] is None


@pytest.mark.parametrize("name", ["raises", "leaves", "taken", "nonsense", "signature"])
def test_strict_raises(t2i, site, name):
    source, reason = BROKEN[name]
    site(f"bad_{name}", source)
    process = t2i("samplers", T2I_STRICT="1", T2I_PLUGINS=f"ddim,bad_{name}")
    assert (process.returncode, process.stdout) == (1, "")
    assert process.stderr.startswith(f"error: plugin 'bad_{name}' of bad_{name} 1.5: {reason}")


def test_only_the_named_plugins_load(t2i, site):
    site("bad", "raise OSError")
    site("good", sampler("mine"))
    process = t2i("samplers", "--json", T2I_PLUGINS="good, direct")
    assert ([row["name"] for row in json.loads(process.stdout)], process.stderr) == (
        ["direct", "mine"],
        "",
    )


def test_a_name_that_two_strangers_claim_belongs_to_neither(t2i, site):
    site("one", sampler("mine"))
    site("two", sampler("mine"))
    process = t2i("samplers", "--json", T2I_PLUGINS="one,two,direct")
    assert process.returncode == 0
    assert [row["name"] for row in json.loads(process.stdout)] == ["direct"]
    assert warnings(process) == [
        "warning: plugin 'two' of two 1.5: its sampler 'mine' is also registered by plugin 'one' "
        "of one 1.5"
    ]


HEAVY = "import numpy\n" + sampler("heavy")


def test_check_says_what_failed_and_how_to_see_it(t2i, site):
    site("heavy", HEAVY)
    process = t2i(
        "plugins",
        "check",
        "heavy",
        "--only",
        "registers",
        "--only",
        "light-import",
        T2I_PLUGINS="heavy",
    )
    assert process.returncode == 1
    assert "plugins  heavy  light-import  FAILED" in process.stdout
    assert (
        "heavy, light-import: importing it pulls in numpy: move these imports out" in process.stdout
    )
    assert (
        "  should hold: Importing it and calling its hooks imports no heavy package"
        in process.stdout
    )
    assert (
        "  to see more: T2I_DEBUG=1 t2i plugins check heavy --only light-import" in process.stdout
    )
    assert process.stderr.splitlines()[-1] == "error: 1 of 2 checks of 'heavy' failed"
    process = t2i(
        "plugins", "check", "heavy", "--only", "light-import", "--json", T2I_PLUGINS="heavy"
    )
    (outcome,) = json.loads(process.stdout)
    assert (process.returncode, outcome["state"], outcome["check"]) == (1, "FAILED", "light-import")


def test_check_of_a_broken_plugin_names_the_reason(t2i, site):
    site("broken", "raise OSError('no such luck')")
    process = t2i("plugins", "check", "broken", "--only", "registers", T2I_PLUGINS="broken")
    assert process.returncode == 1
    assert "plugin 'broken' of broken 1.5: OSError: no such luck" in process.stdout


def test_refusals_of_check_and_new(refused, tmp_path):
    assert refused("plugins", "check", "toi") == (
        "error: nothing that is installed is called 'toi'; did you mean 'toy'?"
    )
    assert refused("plugins", "check", "toy", "--only", "x").startswith(
        "error: no check of it is named 'x'"
    )
    assert (
        refused("plugins", "chekc") == "error: no command is named 'chekc'; did you mean 'check'?"
    )
    assert "is no name for a plugin" in refused("plugins", "new", "No Name")


def test_new_writes_a_package(here, tmp_path):
    code, out, err = here("plugins", "new", "pastel", "--out", "folder")
    assert code == 0
    assert "folder/pastel/networks.py" in out.splitlines()
    assert (tmp_path / "folder" / "pastel" / "plugin.py").is_file()
    assert "next: t2i install ./folder" in err


CONFORMANCE = """
import pytest

@pytest.mark.t2i("heavy", only=["registers", "light-import"])
def test_promises(t2i_check):
    t2i_check()
"""


def test_the_pytest_plugin_fails_the_test_of_what_fails(t2i, site, tmp_path):
    site("heavy", HEAVY)
    (tmp_path / "test_it.py").write_text(CONFORMANCE)

    path = os.pathsep.join([str(site.folder), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "test_it.py"],  # noqa: E501
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": path, "T2I_PLUGINS": "heavy"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    assert "1 failed, 1 passed" in done.stdout
    assert "plugins 'heavy': importing it pulls in numpy" in done.stdout
    assert "test_promises[plugin-heavy-light-import]" in done.stdout
