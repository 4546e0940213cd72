"""The conformance kit as a pytest plugin: the marker `t2i` and the fixture `t2i_check`.

    @pytest.mark.t2i("my-model")
    def test_conformance(t2i_check):
        t2i_check()

This becomes one test for each check of everything named "my-model". The marker also takes
`kind="models"`, `only=["builds"]` and, for models, `sets=["width=8"]`: settings that make the
network smaller than the preset `tiny`. All checks of one model share what they build, so the model
is trained once.

Pytest finds this plugin through its entry point, in every test session. So it imports the kit only
when the fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from t2i.core.kit.conformance.catalogue import Check
    from t2i.core.kit.conformance.workshop import Workshop


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker (a hook of pytest).

    Args:
        config: Pytest's configuration.
    """
    config.addinivalue_line(
        "markers",
        "t2i(*names, kind=None, only=(), sets=()): what `t2i_check` checks: names of models, "
        "plugins, distributions",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test for each check that the marker selects (a hook of pytest).

    Args:
        metafunc: The test function.

    Raises:
        UsageError: The function uses `t2i_check`, but no marker selects a check.
    """
    if "t2i_check" not in metafunc.fixturenames:
        return
    from t2i.core.kit.conformance.catalogue import find, of_kind

    checks: list[Check] = []
    for marker in metafunc.definition.iter_markers("t2i"):
        only = marker.kwargs.get("only", ())
        kind = marker.kwargs.get("kind")
        sets = tuple(marker.kwargs.get("sets", ()))
        for name in marker.args:
            found = find(name, only) if kind is None else of_kind(kind, name, only)
            checks += [replace(check, sets=sets) for check in found]
    if not checks:
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid}: name what to check, with @pytest.mark.t2i('my-model')"
        )
    metafunc.parametrize(
        "t2i_check", list(dict.fromkeys(checks)), ids=str, indirect=True, scope="session"
    )


@pytest.fixture(scope="session")
def _t2i_workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    from t2i.core.kit.conformance.workshop import Workshop

    return Workshop(tmp_path_factory.mktemp("t2i-check"))


@pytest.fixture(scope="session")
def t2i_check(request: pytest.FixtureRequest, _t2i_workshop: Workshop) -> Callable[[], None]:
    """Return a function that runs the check, and fails or skips the test as the check does.

    Args:
        request: Pytest's request, whose parameter is the check.
        _t2i_workshop: What the checks of this test session share.

    Returns:
        The function.
    """
    from t2i.core.kit.conformance.runner import run_check

    def run() -> None:
        outcome = run_check(request.param, _t2i_workshop)
        if outcome.state == "skipped":
            pytest.skip(outcome.detail)
        if outcome.state == "FAILED":
            pytest.fail(f"{outcome.kind} '{outcome.name}': {outcome.detail}\n"
                        f"It must hold: {outcome.holds}\n"
                        f"To see more: {outcome.see}", pytrace=False)  # fmt: skip

    return run
