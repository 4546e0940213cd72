"""Judges whose weights are one file that `torch.save` wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from t2i.core.errors import UserError
from t2i.core.fetch.downloads import fetched
from t2i.plugins.features.preference.config import JudgeFileConfig


def weights_file(config: JudgeFileConfig) -> Path:
    """Find the file of a judge's weights.

    Args:
        config: Settings of the judge.

    Returns:
        The file that the settings name, or the download of `t2i fetch`.

    Raises:
        UserError: It is not there. The message names the command that fetches it.
    """
    if not config.weights:
        return fetched(config.title, config.file)
    path = Path(config.weights).expanduser()
    if not path.is_file():
        raise UserError(
            f"features '{config.title}': weights = {path}: no such file; 't2i fetch "
            f"{config.title}' gets {config.file}"
        )
    return path


def fill(network: nn.Module, state: Mapping[str, Tensor], where: str, title: str) -> None:
    """Load weights into a network. Tensors that the network lacks are ignored.

    Args:
        network: The network.
        state: Its weights by name, in any precision.
        where: The file, for errors.
        title: Registry name of the judge, for errors.

    Raises:
        UserError: A tensor is missing, or of another shape.
    """
    for name, own in network.state_dict().items():
        if name not in state or state[name].shape != own.shape:
            raise UserError(
                f"features '{title}': weights {where} are not those of {title}: {name} is missing, "
                f"or of another shape; 't2i fetch {title}' gets them"
            )
    own_names = set(network.state_dict())
    network.load_state_dict({name: t.float() for name, t in state.items() if name in own_names})


def names_file(text: str, config: JudgeFileConfig) -> bool:
    """Tell whether a text in a model's settings names a judge's file.

    Args:
        text: The text.
        config: Settings of the judge.

    Returns:
        True if it is a path that ends in the published file's name, or the path in the settings.
    """
    return len(text) < 1000 and (Path(text).name == config.file or text == config.weights)
