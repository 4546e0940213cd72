"""The YAML file of `--config`, and the names of model and preset, which are no settings.

A file may hold a few settings, or a whole configuration as `t2i train --dry-run` prints it. The
latter names its model and its preset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from t2i.core.errors import UserError
from t2i.core.io.files import read_file

UNREADABLE = (
    yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError,
)  # fmt: skip
"""What yaml raises for texts that it cannot read, such as "!!bool x"."""

NAMES = ("model", "preset")
"""Keys of a configuration that say where the settings start. They are no settings."""

FIRST = "tiny"
"""Name of the preset, where none is named."""

UNKNOWN = "?"
"""Name of the preset of a configuration that names none."""


class _Strict(yaml.SafeLoader):
    """Reads YAML as `yaml.safe_load` does, but refuses a key that stands twice in a mapping."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                line = key.start_mark.line + 1
                raise ValueError(f"line {line}: '{key.value}' stands there for the second time")
            seen.add(key.value)
        return node


def parse_yaml(text: str) -> Any:
    """Parse YAML without tags that make anything but plain values.

    Args:
        text: The text.

    Returns:
        The document.

    Raises:
        YAMLError: It is not YAML. Some texts raise other errors; see UNREADABLE.
        ValueError: A key stands twice in a mapping, of which YAML would use the last one.
    """
    loader = _Strict(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def read_config_file(path: Path, model: str | None) -> Mapping[str, Any]:
    """Read the file of `--config`.

    Args:
        path: The file.
        model: Name of the model that the settings are for. None: any.

    Returns:
        The settings by name. "model" and "preset" may be among them.

    Raises:
        UserError: The file cannot be read, is no mapping, or is for another model.
    """
    try:
        document = parse_yaml(read_file(path, "--config").decode("utf-8"))
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}") from None
    except UNREADABLE as error:
        raise UserError(
            f"--config {path}: it cannot be read: {' '.join(str(error).split())[:200]}"
        ) from None
    if not isinstance(document, Mapping):
        raise UserError(
            f"--config {path}: a mapping of settings is expected, such as 'steps: 1000'"
        )
    if model is not None and document.get("model", model) != model:
        raise UserError(f"--config {path}: it is for model '{document['model']}', not '{model}'")
    return document


def named_preset(
    option: str | None, file: Mapping[str, Any], path: Path | None, start: str | None
) -> str:
    """Decide which preset the settings start from.

    Args:
        option: The preset that the command names. None: none.
        file: What the file of `--config` holds; empty without a file.
        path: The file, for the message. None: no file.
        start: The preset of the run whose settings a new run starts from. None: there is no such
            run. It wins over `option`.

    Returns:
        The name of the preset. It is not looked up.

    Raises:
        UserError: The file names something that is no name, or another preset than the command or
            the run.
    """
    named = file.get("preset", UNKNOWN)
    if not isinstance(named, str):
        raise UserError(f"--config {path}: 'preset' is the name of a preset, not {named!r:.80}")
    chosen = option if start is None else start
    if chosen is not None and named not in (chosen, UNKNOWN):
        whose = "--preset is" if start is None else "the run of --from has preset"
        raise UserError(
            f"--config {path}: it is for preset '{named}', and {whose} '{chosen}': leave out "
            f"one of the two"
        )
    return chosen or (FIRST if named == UNKNOWN else named)


def refuse_names(layers: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Refuse settings that name the model or the preset.

    Args:
        layers: Settings by name, each with a name for the message.

    Raises:
        UserError: "model" or "preset" is among them.
    """
    for where, layer in layers:
        for name in NAMES:
            if name in layer:
                raise UserError(f"{where}: '{name}' is no setting: --{name} names the {name}")
