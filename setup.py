"""Find packages and plugins. A folder with `plugin.py` under `plugins/` is an entry point."""

from pathlib import Path

from setuptools import find_packages, setup

ROOMS = ("core", "cli", "web", "benchmarks", "plugins")
PLUGINS = sorted(Path("plugins").rglob("plugin.py"))

setup(
    packages=[
        "t2i",
        *(
            f"t2i.{name}"
            for name in find_packages(include=[p for r in ROOMS for p in (r, f"{r}.*")])
        ),
    ],
    package_dir={"t2i": "t2i", **{f"t2i.{room}": room for room in ROOMS}},
    entry_points={
        "console_scripts": ["t2i = t2i.cli.main:main"],
        "t2i": [
            "benchmarks = t2i.benchmarks.plugin",
            "families = t2i.core.families.plugin",
            *(
                f"{file.parent.name} = t2i.{'.'.join(file.with_suffix('').parts)}"
                for file in PLUGINS
            ),
        ],
        "pytest11": ["t2i = t2i.core.kit.conformance.pytest_plugin"],
    },
)
