"""The protocol of results in words: what the report prints, and what exported tables carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from t2i.benchmarks.report.table import number
from t2i.benchmarks.results import Results, Row


def protocol_facts(results: Results) -> list[tuple[str, str]]:
    """Say what the scores depend on.

    Args:
        results: The results.

    Returns:
        (name, text) of each fact: the hash, caption sets, measures, images, the reference.
    """
    protocol = results.protocol
    facts = [("hash", results.protocol_hash)]
    facts += [
        (f"captions “{p['name']}”", f"{p['count']} of split '{p['split']}'. {p['about']}")
        for p in protocol["prompts"]
    ]
    facts += [(f"measure “{name}”", _measure(m)) for name, m in protocol["measures"].items()]
    facts += [("images", f"{protocol['image_size']} px; {protocol['pictures']}")]
    return [
        *facts,
        ("reference", settings_text(protocol["reference"])),
        ("real images", str(protocol["real_images"])),
    ]


def row_facts(results: Results) -> list[tuple[str, str]]:
    """Say how the images of each model were made, and on which machine.

    Args:
        results: The results.

    Returns:
        (name, text) of each fact: training data, samplers, the environment.
    """
    facts = [(f"data of {r.name}", _data(r)) for r in results.rows if "config" in r.training]
    facts += [
        (f"sampler of {r.name}", settings_text(r.sampling))
        for r in results.rows
        if r.kind == "model"
    ]
    return [*facts, ("environment", settings_text(results.environment))]


def budget_text(results: Results) -> str:
    """Say what each model was trained for, and on which machine.

    Args:
        results: The results.

    Returns:
        A sentence.
    """
    jobs = results.budget.get("jobs", 1)
    budget = " ".join(f"{v:g} {unit}" for unit, v in results.budget.items() if unit != "jobs")
    models = [row for row in results.rows if row.kind == "model"]
    given = models and all(row.training.get("given") for row in models)
    budget = "All models were given as runs" if given else f"Training budget {budget} a model"
    if jobs > 1 and not given:
        longer = f", for {jobs} times as long" if "minutes" in results.budget else ""
        budget += f" (trained {jobs} at once, each on its share of the cores{longer})"
    device = results.environment.get("device", "?")
    return f"{budget}, on {device}, threads: {results.environment.get('threads', '?')}."


def _data(row: Row) -> str:
    """Describe a model's training data: its settings and its image size."""
    config = row.training["config"]
    data = {key: value for key, value in config.get("data", {}).items() if key != "image_size"}
    return f"{settings_text(data)}, at {config.get('image_size')} px"


def _measure(measure: Mapping[str, Any]) -> str:
    """Describe a measure of the protocol, and the weights of its extractor."""
    extractor = measure.get("extractor")
    known = {key: value for key, value in measure.items() if key not in ("extractor", "settings")}
    text = settings_text(known)
    if isinstance(extractor, Mapping):
        text += f"; features {extractor['name']}, weights {str(extractor['weights_sha256'])[:12]}"
    return text


def settings_text(settings: Mapping[str, Any]) -> str:
    """Format settings as "key value, key value"; those that are None are left out.

    Args:
        settings: The settings, JSON values by name.

    Returns:
        The text.
    """
    shown = {k: number(v) if isinstance(v, float) else v for k, v in settings.items()}
    return ", ".join(f"{key} {value}" for key, value in shown.items() if value is not None)
