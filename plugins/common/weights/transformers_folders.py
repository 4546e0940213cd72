"""Networks and tokenizers of transformers from a folder, the hub's cache or the hub.

Only safetensors and JSON are read; no code is run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from transformers import PreTrainedModel

from t2i.core.errors import UserError
from t2i.plugins.common.weights.bars import no_bars
from t2i.plugins.common.weights.hub import Wanted, obtained, refuse_foreign_code
from t2i.plugins.common.weights.network_types import shapes_in, shapes_saved
from t2i.plugins.common.weights.trusted_files import check_folder
from t2i.plugins.common.weights.variants import variant_of

Network = TypeVar("Network", bound=PreTrainedModel)
Splitter = TypeVar("Splitter")
Shapes = Collection[tuple[int, ...]]


def load_network(
    kind: type[Network],
    wanted: Wanted,
    title: str,
    check: Callable[[Path, Shapes], None],
    *,
    refuse: Callable[[Path], None] | None = None,
    optional: Collection[str] = (),
    advice: Mapping[str, str] | None = None,
) -> Network:
    """Load a network with its weights.

    Args:
        kind: Class of the network.
        wanted: Which weights to load, and how errors name them.
        title: Name of the network in errors.
        check: `check(folder, shapes)` checks a folder's config.json against the shapes of its
            tensors.
        refuse: `refuse(folder)` raises an error for a folder in another project's layout. None:
            there is none.
        optional: Names of tensors that may be missing.
        advice: Tensor name -> what to do if only that tensor is missing. None: no advice.

    Returns:
        The network, in the precision of its file.

    Raises:
        UserError: The weights cannot be loaded, are damaged or incomplete, or need code from the
            hub.
    """

    def load(source: str, offline: bool) -> Network:
        place: Any = {"revision": wanted.revision, "local_files_only": offline}
        folder = Path(source)
        if refuse is not None and folder.is_dir():
            refuse(folder)
        refuse_foreign_code(kind.config_class, source, wanted.what, **place)
        variant = variant_of(folder, "model") if folder.is_dir() else None
        if folder.is_dir():
            check(folder, shapes_in(folder))
        with no_bars() if folder.is_dir() else nullcontext():  # downloads show theirs
            loaded: Any = kind.from_pretrained(
                source, use_safetensors=True, output_loading_info=True, variant=variant, **place
            )
        network: Network = loaded[0]
        lacking = _lacking(loaded[1]) - set(optional)
        if lacking:
            name = min(lacking)
            remedy = (advice or {}).get(name) if len(lacking) == 1 else None
            raise UserError(
                f"{wanted.what}: {source} holds no whole {title}: {name} is missing, or of another "
                "shape" + (f"; {remedy}" if remedy else "")
            )
        return network

    return obtained(wanted, load)


def check_saved(folder: Path, kind: Any, what: str, check: Callable[[Path, Shapes], None]) -> None:
    """Check the files of a saved model from which a network and a tokenizer are made.

    Args:
        folder: The folder, which `TextEncoder.save_assets` wrote.
        kind: Class of the network's configuration.
        what: What the network is for, in errors.
        check: `check(folder, shapes)` checks the folder's config.json against the shapes of the
            saved tensors.

    Raises:
        UserError: A file is not to be opened, names foreign code, or describes another network.
    """
    check_folder(folder)
    refuse_foreign_code(kind, folder, what)
    if (shapes := shapes_saved(folder)) is not None:
        check(folder, shapes)


def tokenizer_of(weights: Wanted, tokenizer: str | None) -> Wanted:
    """Describe where the tokenizer's files are.

    Args:
        weights: The weights.
        tokenizer: Folder or hub name of the tokenizer. None: it is beside the weights.

    Returns:
        The description, which errors quote.
    """
    if tokenizer is None:
        return weights
    setting = weights.setting.replace("weights", "tokenizer")
    return replace(weights, setting=setting, name=tokenizer, revision="main", remedy="")


def obtained_tokenizer(
    kind: type[Splitter],
    wanted: Wanted,
    files: str,
    *,
    blank: Collection[str] = (),
    check: Callable[[Path], None] | None = None,
) -> Splitter:
    """Load a tokenizer.

    Args:
        kind: Its class in transformers.
        wanted: Where it is, and how errors name it.
        files: Names of the files that hold a vocabulary if there is no tokenizer.json, for errors.
        blank: Tokens besides the special ones that a tokenizer without files has.
        check: `check(folder)` raises an error for a folder that cannot be read. None: nothing is
            checked.

    Returns:
        The tokenizer.

    Raises:
        UserError: The files cannot be found.
    """

    def load(source: str, offline: bool) -> Splitter:
        if check is not None:
            check(Path(source))
        untyped: Any = kind
        made: Any = untyped.from_pretrained(
            source, revision=wanted.revision, local_files_only=offline
        )
        # Where transformers finds no file, it makes a tokenizer of special tokens only.
        if not set(made.get_vocab()) - {*made.all_special_tokens, *blank}:
            raise FileNotFoundError(f"no tokenizer.json there, nor {files}")
        found: Splitter = made
        return found

    return obtained(wanted, load)


def check_vocabulary(what: str, vocabulary: int, tokenizer: Any, remedy: str) -> None:
    """Check that the network has an embedding for each of the tokenizer's tokens.

    Args:
        what: What errors call the network.
        vocabulary: Number of the network's embeddings.
        tokenizer: The tokenizer.
        remedy: End of the error message: what to do.

    Raises:
        UserError: The network lacks some.
    """
    if max(tokenizer.get_vocab().values()) >= vocabulary:
        raise UserError(
            f"{what}: the tokenizer has {len(tokenizer)} tokens, the weights {vocabulary}: they do "
            f"not belong together; {remedy}"
        )


def _lacking(report: Mapping[str, Any]) -> set[str]:
    """Return the tensors that transformers reported as missing or of another shape."""
    return {str(name) for name in (*report["missing_keys"], *report["mismatched_keys"])}
