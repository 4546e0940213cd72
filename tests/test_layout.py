"""The rules of the house that a machine can hold: who imports whom, what may never be called, what
is declared."""

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest

from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import HOOKS, registry

ROOT = Path(__file__).parents[1]
ROOMS = ("core", "plugins", "benchmarks", "web", "cli")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
MAY_IMPORT = {
    "core": {"core"},
    "plugins": {"core", "plugins"},
    "benchmarks": {"core", "benchmarks"},
    "web": {"core", "benchmarks", "web"},
}
MAY_IMPORT["cli"] = {"core", "benchmarks", "web", "cli"}
LEGACY = ROOT / "plugins" / "common" / "weights" / "legacy.py"
BUILT_IN = {
    path.parent.name: path.parent for path in sorted((ROOT / "plugins").glob("*/*/plugin.py"))
}
KINDS = ("models", "samplers", "encoders", "datasets", "features")


# Rules for every source are one test each, which lists the files that break it: two thousand tests
# of a file each took longer than what they did.


@cache
def imported(path):
    """Full names of the modules that a file imports, wherever in the file."""
    names = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def test_imports_point_one_way():
    assert {path: found for path in SOURCES if (found := wrongly_imported(path))} == {}


def wrongly_imported(path):
    """What a file may not import. A plugin imports another one through the registry only."""
    room, *rest = path.relative_to(ROOT).parts
    wrong = [name for name in imported(path) if name.startswith("tests")]
    for name in imported(path):
        top, *target = name.split(".")
        if top != "t2i" or not target:
            continue
        strange = room == target[0] == "plugins" and target[1:3] != rest[:2]
        if target[0] not in MAY_IMPORT[room] or (strange and target[1] != "common"):
            wrong.append(name)
    return wrong


PICKLES = {
    "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "pandas",
    "runpy", "code",
    "codeop", "imp", "zipimport",
}  # fmt: skip
RUNNERS = {
    "eval", "exec", "compile", "__import__", "torch.load", "torch.save", "torch.jit.load",
    "torch.package",
    "torch.hub.load", "torch.hub.load_state_dict_from_url", "torch.utils.cpp_extension.load",
    "yaml.load",
    "yaml.load_all", "yaml.full_load", "yaml.full_load_all", "yaml.unsafe_load",
    "yaml.unsafe_load_all", "os.system",
    "os.popen", "np.load", "numpy.load",
}  # fmt: skip
SAFE = {  # what an argument may be, where it is given
    "weights_only": {True}, "use_safetensors": {True}, "allow_pickle": {False}, "shell": {False},
    "trust_remote_code": {False}, "pickle": {False},
}  # fmt: skip
IMPORTERS = {"t2i/__init__.py", "core/engine/__init__.py", "core/registry/specs.py"}
"""Files that import by name: their own parts, and the import paths of specifications, which
plugins' code states."""


def unsafe(source, legacy=False):
    """What in a source could make a file run code, as the text of the import or call."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None)
            for alias in node.names:
                full = f"{module}.{alias.name}" if module else alias.name
                pickles = full.split(".")[0] in PICKLES and not (legacy and full == "pickle")
                pickles &= full != "pandas.DataFrame"  # it reads no file
                renamed = (
                    alias.name in ("torch", "yaml", "os", "builtins", "subprocess") and alias.asname
                )
                if (
                    pickles
                    or full in RUNNERS
                    or full.startswith(("builtins", "torch.package", "os.exec"))
                    or renamed
                ):
                    yield ast.unparse(node)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            loads = (
                legacy
                and called == "torch.load"
                and "weights_only=True" in map(ast.unparse, node.keywords)
            )
            loads |= called == "np.load" and "allow_pickle=False" in map(ast.unparse, node.keywords)
            wrong = [
                k.arg
                for k in node.keywords
                if k.arg in SAFE and getattr(k.value, "value", None) not in SAFE[k.arg]
            ]
            weights = called.endswith(
                ("Model.from_pretrained", "Projection.from_pretrained", "Pipeline.from_pretrained")
            )
            unsure = weights and "use_safetensors=True" not in map(ast.unparse, node.keywords)
            if (
                wrong
                or unsure
                or (called in RUNNERS and not loads)
                or called.startswith(("os.exec", "os.spawn"))
            ):
                yield ast.unparse(node)


def test_no_file_can_run_code():
    """No pickle, eval, exec, torch.load, yaml.load, shell ... anywhere, but for what LEGACY may
    do."""
    found = {path: list(unsafe(path.read_text("utf-8"), path == LEGACY)) for path in SOURCES}
    assert {path: calls for path, calls in found.items() if calls} == {}
    by_name = {path.relative_to(ROOT).as_posix() for path in SOURCES if imports_by_name(path)}
    assert by_name <= IMPORTERS


def imports_by_name(path):
    names = {"importlib.import_module", "importlib.util"}
    return not names.isdisjoint(imported(path)) or "importlib.import_module(" in path.read_text(
        "utf-8"
    )


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "import shelve", "import marshal", "from joblib import load", "import "
                                                                                       "dill as d",
        "import _pickle", "from torch import load", "import torch as t", "from yaml import "
                                                                         "unsafe_load",
        "from builtins import eval", "from os import system", "eval('1')", "exec(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)", "torch.save(x, path)", "torch.jit.load(path)",
        "yaml.load(text)",
        "yaml.full_load(text)", "np.load(path)", "open_memmap(path, allow_pickle=True)",
        "os.system(line)",
        "os.execv(path, words)", "subprocess.run(line, shell=True)", "subprocess.run(line, "
                                                                     "shell=is_shell)",
        "Model.from_pretrained(path)", "CLIPTextModel.from_pretrained(path, use_safetensors=None)",
        "Auto.from_pretrained(path, trust_remote_code=True)", "compile(text, 'x', 'exec')",
        "__import__(name)",
        "torch.hub.load(where, what)",
    ],
)  # fmt: skip
def test_the_walk_finds_what_it_looks_for(source):
    assert len(list(unsafe(source))) == 1
    assert list(unsafe(source, legacy=True)) or source == "import pickle"


def test_the_legacy_reader_takes_from_pickle_only_what_it_restricts():
    """`pickle` is imported as a whole, once, and only its unpickler's base class, its error and
    names of instructions are used: no pickle.load, loads, Unpickler, dump."""
    tree = ast.parse(LEGACY.read_text("utf-8"))
    imports = [name for name in imported(LEGACY) if name.split(".")[0] == "pickle"]
    assert imports == ["pickle"]
    assert not any(
        isinstance(node, ast.alias) and node.name == "pickle" and node.asname
        for node in ast.walk(tree)
    )
    uses = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle"
    }
    assert uses == {"_Unpickler", "UnpicklingError"}
    (unpickler,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    assert [ast.unparse(base) for base in unpickler.bases] == ["pickle._Unpickler"]
    (find_class,) = (node for node in unpickler.body if isinstance(node, ast.FunctionDef))
    assert find_class.name == "find_class"
    assert [type(statement) for statement in find_class.body] == [ast.Raise]


OTHERWISE = {"words", "none", "timm", "autoregressive", "cascade", "guide", "pictures"}
"""Words that plugins are called by and core uses otherwise: a tensor of `TextFeatures`, a
direction, a package, families of its own, a key of JSON documents."""


def test_core_names_nothing_that_a_plugin_registers():
    """Not in a comparison, and not as a default: defaults are the registry's or the command
    line's."""
    kinds = set(HOOKS) - {"families"}
    names = {spec.name for kind in kinds for spec in registry().table(kind)} - OTHERWISE
    found = {path: named(path) & names for path in SOURCES if path.is_relative_to(ROOT / "core")}
    assert {path: words for path, words in found.items() if words} == {}


def named(path):
    """The texts in a source."""
    return {
        node.value
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


FLOORS = (
    ("errors",), ("devices", "settings"), ("interfaces", "registry"), ("families", "io"),
    ("fetch", "runs"),
    ("models",), ("engine", "sharing"), ("kit",),
)  # fmt: skip
"""The rooms of core from the ground up: each imports only from those below it."""


def test_core_imports_downwards():
    floors = {room: number for number, floor in enumerate(FLOORS) for room in floor}
    arrows = structure().rooms(arrows_of_files(), Path("core"))
    assert {room.stem for room in arrows} == set(floors)
    wrong = [f"{room} -> {to}" for room, targets in arrows.items() for to in targets
             if floors[to.stem] >= floors[room.stem]]  # fmt: skip
    assert wrong == []


def test_nothing_imports_in_a_circle():
    """Neither files, nor the rooms of any folder; imports for type checking alone count too."""
    graph = arrows_of_files()
    assert structure().circles(graph) == []
    for folder in structure().folders(ROOT):
        assert structure().circles(structure().rooms(graph, folder)) == [], folder


def test_circles_are_found(tmp_path):
    for name, text in {
        "a": "import t2i.core.b",
        "b": "from t2i.core import c",
        "c": "from t2i.core.a import x",
    }.items():
        (tmp_path / "core").mkdir(exist_ok=True)
        (tmp_path / "core" / f"{name}.py").write_text(text)
    graph = structure().imports(tmp_path)
    assert structure().circles(graph) == [[Path("core/a.py"), Path("core/b.py"), Path("core/c.py")]]
    assert len(structure().circles(structure().rooms(graph, Path("core")))) == 1


@cache
def arrows_of_files():
    return structure().imports(ROOT)


@cache
def structure():
    """The script that measures rooms and arrows, as a module."""
    spec = importlib.util.spec_from_file_location("t2i_structure", ROOT / ".ci" / "structure.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_plugin_folder_loads_and_every_package_is_found():
    """setup.py finds both: the entry points of the installed distribution are the folders with a
    plugin.py."""
    ours = [plugin for plugin in registry().plugins if plugin.origin.distribution == "t2i-zoo"]
    assert sorted(plugin.origin.plugin for plugin in ours) == sorted(
        [*BUILT_IN, "benchmarks", "families"]
    )
    assert [(plugin.origin.plugin, plugin.error) for plugin in ours if plugin.error] == []
    assert [path for path in SOURCES if not (path.parent / "__init__.py").is_file()] == []


@pytest.mark.parametrize("kind", HOOKS)
def test_every_specification_leads_somewhere(kind):
    for spec in registry().table(kind):
        assert "\n" not in spec.summary
        assert spec.summary
        for attribute in (
            "config",
            "build",
            "fit",
            "generator",
            "stages",
            "weights",
            "foreign",
            "export",
        ):
            if getattr(spec, attribute, None):
                import_object(getattr(spec, attribute))
        if kind == "models":
            assert tuple(import_object(spec.config).presets()) == spec.presets


def test_every_plugin_has_a_readme():
    assert [name for name, folder in BUILT_IN.items() if not (folder / "README.md").exists()] == []


def test_a_plugin_lies_among_its_kind():
    assert {folder.parent.name for folder in BUILT_IN.values()} <= set(KINDS)
    rooms = {path.name for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").is_file()}
    assert rooms == {*KINDS, "common"}
    for plugin in registry().plugins:
        if plugin.origin.plugin in BUILT_IN and plugin.origin.distribution == "t2i-zoo":
            assert BUILT_IN[plugin.origin.plugin].parent.name in plugin.names, plugin.origin.plugin


def test_no_paths_of_one_machine_in_the_sources():
    pattern = re.compile(r"/(work|farm)/|/root/")
    found = [str(path) for path in SOURCES if pattern.search(path.read_text("utf-8"))]
    assert found == []
