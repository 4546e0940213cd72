"""The model card of a run: README.md with metadata that the hub reads."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from typing import Any

from t2i.core.errors import UserError
from t2i.core.fetch.hub import HubName
from t2i.core.io.terminal import duration, printable
from t2i.core.registry.tables import registry
from t2i.core.runs.citations import citations
from t2i.core.runs.hashing import run_hash
from t2i.core.runs.listing import run_document
from t2i.core.sharing.parcel import Parcel
from t2i.core.sharing.scores import SharedResults

UNKNOWN = "unknown"
"""The licence where nobody names one, as the hub writes it."""
SHOWN = ("preset", "image_size", "batch_size", "lr", "precision", "ema_decay", "seed")
"""Settings in the card's table; config.json has all."""
CAPTIONS = 8
"""How many captions of the samples are listed."""


def card(parcel: Parcel, licence: str | None) -> str:
    """Write the model card of a run.

    Args:
        parcel: What is published.
        licence: Licence of the weights, as the hub names it. None: unknown, which the card says.

    Returns:
        The content of README.md.
    """
    from huggingface_hub import ModelCard

    document = parcel.document("config.json")
    config = document["run"]
    parts = [
        f"# {_plain(config['model'])}, trained on {_plain(_data(config).get('name', '?'))}",
        _what(config),
        _loading(parcel),
        _base(document),
        _data_section(config, document),
        _training(parcel, config, document),
        *(_scores(one) for one in parcel.results),
        "" if parcel.results else "## Scores\n\nNone yet: `t2i bench` computes some.",
        _pictures(parcel),
        _licence(licence),
        _repeat(document),
        _citation(str(config["model"])),
    ]
    metadata = _metadata(parcel, document, licence).to_yaml()
    body = "\n\n".join(part for part in parts if part)
    return str(ModelCard(f"---\n{metadata}\n---\n\n{body}\n"))


def _metadata(parcel: Parcel, document: Mapping[str, Any], licence: str | None) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    config, start = document["run"], HubName.parse(str(document.get("from") or ""))
    results = [
        EvalResult(
            task_type="text-to-image", dataset_type=shared.benchmark,
            dataset_name=f"t2i bench {shared.benchmark}, {score.set}",
            metric_type=f"{score.measure}/{score.score}", metric_name=score.title,
            metric_value=score.value,
            dataset_config=str(shared.protocol.get("protocol", "")) or None,
            metric_args={
                "interval_95": list(score.interval) if score.interval else None,
                "protocol_sha256": shared.protocol_hash,
            },
        )
        for shared in parcel.results
        for score in shared.scores
    ]  # fmt: skip
    return ModelCardData(
        license=licence or UNKNOWN, library_name="t2i", pipeline_tag="text-to-image",
        tags=["t2i", "text-to-image", str(config["model"])], model_name=parcel.name.split("/")[1],
        eval_results=results or None, base_model=start.name if start else None,
    )  # fmt: skip


# --- sections -------------------------------------------------------------------------------------


def _what(config: Mapping[str, Any]) -> str:
    name = str(config["model"])
    if name not in registry().models:
        return f"A text-to-image model, '{_plain(name)}' of a plugin for t2i."
    spec = registry().models[name]
    return f"{_plain(spec.summary)}\n\nPaper: {_plain(spec.paper)}. Family: {_plain(spec.family)}."


def _loading(parcel: Parcel) -> str:
    prompt = parcel.run.example()
    return (
        "## Use\n\n```python\nimport t2i\n\n"
        f'model = t2i.load("{parcel.name}")\nimages = model.sample([{_quoted(prompt)}], seed=0)\n'
        f"```\n\n```sh\nt2i sample --run {parcel.name} -p {_quoted(prompt)}\n"
        f"t2i pull {parcel.name}\n```"
    )


def _base(document: Mapping[str, Any]) -> str:
    """Say what adapters change, and where it must be."""
    base = document.get("base")
    if not isinstance(base, Mapping) or not base.get("from"):
        return ""
    name, where = str(base["from"]), "It is fetched from the hub."
    if HubName.parse(name) is None:
        where = "It is not in this repository: put it into the folder in which you load the run."
    return (
        f"## Base\n\nThe weights are adapters (LoRA). They change `{_code(name)}`, whose hash is "
        f"`{_code(base.get('hash', '?'))}`. {where}"
    )


def _data_section(config: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    name = str(_data(config).get("name", "?"))
    known = {spec.name: spec for spec in registry().downloads}
    spec = known.get(name)
    terms = f"{_plain(spec.licence)} ({_plain(spec.licence_url)})" if spec else UNKNOWN
    fingerprint = document.get("data_fingerprint") or UNKNOWN
    return (
        f"## Data\n\nData set: `{_code(name)}`. Licence of the data: {terms}. "
        f"Fingerprint: `{_code(fingerprint)}`."
    )


def _training(parcel: Parcel, config: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    summary = parcel.document("summary.json")
    rows = {name: config[name] for name in SHOWN if name in config}
    rows["steps"] = summary.get("steps", "?")
    if isinstance(seconds := summary.get("seconds"), int | float):
        rows["training time"] = f"{duration(seconds)} on {summary.get('device', '?')}"
    parameters = summary.get("parameters")
    if isinstance(parameters, Mapping):
        rows["parameters"] = parameters.get("all", "?")
    rows["text encoder"] = _named(config, "encoder")
    rows["sampler"] = _named(config, "sampler")
    settings, _ = run_document(parcel.run)  # with the paths, as trackers have it
    rows["run's hash"] = run_hash(settings, document.get("data_fingerprint"))
    table = _table(("setting", "value"), rows.items())
    return f"## Training\n\n{table}\n\nAll settings: `config.json`."


def _scores(shared: SharedResults) -> str:
    protocol = _plain(shared.protocol.get("protocol", "?"))
    rows = [(one.title, one.set, one.in_words(), one.better) for one in shared.scores]
    sampling = ", ".join(
        f"{name} {value}"
        for name, value in shared.sampling.items()
        if isinstance(value, str | int | float)
    )
    remarks = "".join(f"\n- {_plain(text)}" for text in shared.warnings)
    return (
        f"## Scores: t2i bench {_plain(shared.benchmark)}\n\n"
        f"Protocol: {protocol}, SHA-256 `{_code(shared.protocol_hash)}`; scores are comparable "
        f"only if it is the same. Date: {_plain(shared.created)}. 95 % intervals in brackets.\n\n"
        f"{_table(('score', 'captions', 'value', 'better'), rows)}"
        + (f"\n\nSampling: {_plain(sampling)}." if sampling else "")
        + (f"\n{remarks}" if remarks else "")
    )


def _pictures(parcel: Parcel) -> str:
    grids = [name for name in parcel.files if re.fullmatch(r"samples/step-\d+\.png", name)]
    if not grids:
        return ""
    newest = max(grids, key=lambda name: int(name.removeprefix("samples/step-")[:-4]))
    captions = parcel.run.captions()[:CAPTIONS]
    listed = "".join(f"\n1. {_plain(text)}" for text in captions)
    return f"## Samples\n\n![Samples]({newest})\n{listed}"


def _licence(licence: str | None) -> str:
    if licence:
        return f"## Licence\n\n{_plain(licence)}"
    return "## Licence\n\nUnknown: nobody has named a licence. Ask the owner before you use it."


def _repeat(document: Mapping[str, Any]) -> str:
    command = str(document.get("command") or "")
    if not command:
        return "## Repeat\n\n`t2i train --config` with the settings of `config.json`."
    made = (document.get("versions") or {}).get("t2i-zoo", "?")
    fenced = printable(command).replace("```", "")
    return f"## Repeat\n\n```sh\n{fenced}\n```\n\nWritten by t2i {_plain(made)}."


def _citation(model: str) -> str:
    try:
        entries = citations(model)
    except UserError:
        entries = []  # its plugin is not installed
    return "## Citation\n\n```bibtex\n" + "\n\n".join(entries) + "\n```" if entries else ""


# --- text -----------------------------------------------------------------------------------------


def _data(config: Mapping[str, Any]) -> Mapping[str, Any]:
    section = config.get("data")
    return section if isinstance(section, Mapping) else {}


def _named(config: Mapping[str, Any], section: str) -> str:
    found = config.get(section)
    return str(found.get("name", "?")) if isinstance(found, Mapping) else "?"


def _plain(text: object) -> str:
    """Escape a text for Markdown, as one line."""
    safe = html.escape(printable(str(text)), quote=False)
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", safe)


def _code(text: object) -> str:
    return printable(str(text)).replace("`", "")


def _quoted(text: str) -> str:
    """Quote a caption for Python and a shell alike: only plain characters are kept."""
    return '"' + re.sub(r"[^\w ,.:;()'-]", "", printable(text)) + '"'


def _table(titles: tuple[str, ...], rows: Any) -> str:
    return "\n".join(_lines(titles, rows))


def _lines(titles: tuple[str, ...], rows: Any) -> Iterator[str]:
    yield f"| {' | '.join(titles)} |"
    yield f"|{'---|' * len(titles)}"
    for row in rows:
        yield f"| {' | '.join(_plain(cell) for cell in row)} |"
