"""Krippendorff's alpha: his published example, and what there is no alpha of."""

from __future__ import annotations

import pytest

from t2i.benchmarks.votes.agreement import krippendorff

# Krippendorff 2011, Computing Krippendorff's alpha-reliability, section C: four observers of
# twelve units; 0 is a missing value. He gives 0.743 (nominal) and 0.815 (ordinal).
OBSERVERS = {
    "a": (1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0),
    "b": (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3),
    "c": (0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0),
    "d": (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0),
}


@pytest.mark.parametrize(("scale", "alpha"), [("nominal", 0.743), ("ordinal", 0.815)])
def test_the_published_example(scale, alpha) -> None:
    pytest.importorskip("evalica")
    found = krippendorff(
        [(o, unit, v) for o, values in OBSERVERS.items() for unit, v in enumerate(values) if v],
        scale,
    )
    assert found.alpha == pytest.approx(alpha, abs=5e-4)
    assert found.units == 11  # one of the twelve was rated once


def test_a_raters_last_answer_counts() -> None:
    pytest.importorskip("evalica")
    agree = [("a", 1, 0.0), ("b", 1, 0.0), ("a", 2, 1.0), ("b", 2, 1.0)]
    found = krippendorff([("a", 1, 1.0), *agree], "nominal")
    assert found.alpha == pytest.approx(1)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([("a", 1, 0.0), ("b", 2, 0.0)], "no two raters"),
        ([("a", 1, 0.0), ("b", 1, 0.0)], "all answers are the same"),
    ],
)
def test_what_has_no_alpha_says_why(answers, reason) -> None:
    found = krippendorff(answers, "nominal")
    assert found.alpha is None
    assert reason in found.reason


def test_without_evalica_the_reason_says_how_to_get_it(monkeypatch) -> None:
    monkeypatch.setattr("t2i.benchmarks.votes.agreement.find_spec", lambda name: None)
    found = krippendorff([("a", 1, 0.0), ("b", 1, 1.0)], "nominal")
    assert found.alpha is None
    assert "pip install 't2i-zoo[votes]'" in found.reason
