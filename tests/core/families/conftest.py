"""Small models of each family, registered for one test with the toy's encoder and data, and the
conformance kit."""

import sys
from types import ModuleType

import pytest

from t2i.core.kit.conformance.catalogue import find
from t2i.core.kit.conformance.runner import run_checks
from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec


@pytest.fixture
def registered(toy, plug, monkeypatch):
    """`registered(name, family, config, generator, stages)` registers a model; presets as the
    settings have them."""

    def register(name, family, config, generator, stages):
        home = f"t2i_{name.replace('-', '_')}"
        module = ModuleType(home)
        module.Config, module.generator, module.stages = config, generator, stages
        monkeypatch.setitem(sys.modules, home, module)

        class Plugin:
            @hookimpl
            def t2i_models(self):
                return [
                    ModelSpec(
                        name=name,
                        summary=f"A small model of the family {family}",
                        family=family,
                        paper="none",
                        presets=tuple(config.presets()),
                        config=f"{home}:Config",
                        generator=f"{home}:generator",
                        stages=f"{home}:stages",
                    )
                ]

        plug(Plugin(), name)

    return register


@pytest.fixture
def outcomes(tmp_path):
    """`outcomes(name)`: what the conformance kit says of all that is called so: state and detail by
    check."""

    def run(name, *only):
        found = list(run_checks(find(name, only), tmp_path / "checks"))
        return {
            f"{outcome.kind} {outcome.check}": (outcome.state, outcome.detail) for outcome in found
        }

    return run
