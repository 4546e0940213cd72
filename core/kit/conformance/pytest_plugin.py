"""The conformance kit as a pytest plugin, found by pytest through its entry point: the marker `t2i` and the fixture
`t2i_check`. Light: a test session that does not use them pays for nothing.

    @pytest.mark.t2i("my-model")               # everything of that name; or kind="models"; or only=["builds"]
    def test_conformance(t2i_check):
        t2i_check()

becomes one test a check. The checks of one thing share what they build, so that it is trained once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from t2i.core.kit.conformance.catalogue import Check
    from t2i.core.kit.conformance.workshop import Workshop


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "t2i(*names, kind=None, only=()): what `t2i_check` checks: names of models, plugins, distributions",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "t2i_check" not in metafunc.fixturenames:
        return
    from t2i.core.kit.conformance.catalogue import find, of_kind

    checks: list[Check] = []
    for marker in metafunc.definition.iter_markers("t2i"):
        only = marker.kwargs.get("only", ())
        kind = marker.kwargs.get("kind")
        for name in marker.args:
            checks += find(name, only) if kind is None else of_kind(kind, name, only)
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
    """Call it: it runs the check, and fails or skips the test as the check does."""
    from t2i.core.kit.conformance.runner import run_check

    def run() -> None:
        outcome = run_check(request.param, _t2i_workshop)
        if outcome.state == "skipped":
            pytest.skip(outcome.detail)
        if outcome.state == "FAILED":
            pytest.fail(f"{outcome.kind} '{outcome.name}': {outcome.detail}\nIt must hold: {outcome.holds}\n"
                        f"To see more: {outcome.see}", pytrace=False)  # fmt: skip

    return run
