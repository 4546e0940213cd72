"""Files that papers' authors released, read without running code from them.

This is the only module that reads pickles. Weights are read by `torch.load(weights_only=True)`,
which builds tensors and plain containers only; vocabularies and lists of names by an unpickler that
lacks every instruction that could import or call something.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn

from t2i.core.errors import UserError, in_one_line
from t2i.core.io.files import check_regular, read_file
from t2i.core.io.tensors import load_tensors
from t2i.core.models.weights import owned_tensors
from t2i.plugins.common.weights.inert import Inert

PLAIN = (
    "MARK STOP POP POP_MARK DUP PROTO FRAME NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG "
    "LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES LIST EMPTY_LIST APPEND APPENDS TUPLE "
    "EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 DICT EMPTY_DICT SETITEM SETITEMS GET BINGET LONG_BINGET PUT "
    "BINPUT LONG_BINPUT MEMOIZE"
)
"""Instructions of a pickle that make constants, lists, tuples and dicts, or move them on the stack.
"""

LIGHTNING = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "omegaconf.")
"""Packages whose classes a checkpoint of Lightning names."""

TEXT_PICKLE = (b"(lp", b"(dp")
"""What a pickle in text (protocol 0) of a list or a dict begins with."""


def read_legacy(path: Path) -> dict[Any, Any]:
    """Read a file of weights: safetensors, or what `torch.save` wrote, whatever its name is.

    Args:
        path: The file.

    Returns:
        Its content: dicts, lists and tuples of tensors (dense, on the CPU), numbers and strings.

    Raises:
        UserError: The file cannot be read, has neither format, or holds anything else. No code in
            it is ever run.
    """
    document = _read(path)
    if not isinstance(document, dict):
        raise UserError(
            f"weights {path}: it holds a {type(document).__name__}, not a state dict; is it the "
            "right file?"
        )
    return document


def read_legacy_list(path: Path) -> list[Any]:
    """Read a file in which `torch.save` wrote a list, such as [model, optimizer].

    Args:
        path: The file.

    Returns:
        Its content, as `read_legacy` returns that of a dict.

    Raises:
        UserError: As for `read_legacy`, or the file holds no list.
    """
    document = _read(path)
    if not isinstance(document, list):
        raise UserError(
            f"weights {path}: it holds a {type(document).__name__}, not a list; is it the right "
            "file?"
        )
    return document


def read_legacy_tensor(path: Path) -> Tensor | None:
    """Read a file in which `torch.save` wrote one tensor.

    Args:
        path: The file.

    Returns:
        The tensor, on the CPU. None: the file holds something else that `read_legacy` may read.

    Raises:
        UserError: As for `read_legacy`.
    """
    document = _read(path)
    return document if isinstance(document, Tensor) else None


def read_lightning(path: Path) -> dict[str, Tensor]:
    """Read the state dict of a checkpoint of Lightning, or of a file that `read_legacy` reads.

    Such a checkpoint may name classes of Lightning and OmegaConf: its callbacks and settings. A
    class without any content stands for each of them, and nothing but the state dict is kept.

    Args:
        path: The file.

    Returns:
        The tensors by name: those under "state_dict", or those of the file itself.

    Raises:
        UserError: The file cannot be read, or has no state dict. No code in it is ever run.
    """
    check_regular(path, "weights")
    inert: list[Any] = []
    if zipfile.is_zipfile(path):
        _check_archive(path)
        with suppress(Exception):  # a damaged archive: reading it says what is wrong
            unknown = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
            inert = [(Inert, name) for name in unknown if name.startswith(LIGHTNING)]
    if not inert:
        document = read_legacy(path)
    else:
        try:
            with torch.serialization.safe_globals(inert):
                loaded = torch.load(path, map_location="cpu", weights_only=True)
            document = {"state_dict": _plain(loaded["state_dict"], {})}
        except Exception as error:  # on damaged and hostile files, torch raises anything
            raise UserError(
                f"weights {path}: its state dict cannot be read safely ({in_one_line(error)}); if "
                'you trust the file, strip it where Lightning is installed: python -c "import '
                "torch; torch.save({'state_dict': torch.load('FILE', weights_only=False)"
                "['state_dict']}, 'STRIPPED')\""
            ) from None
    return state_dict(document, str(path), *(["state_dict"] if "state_dict" in document else []))


def _read(path: Path) -> Any:
    """Read a file of weights as plain containers of tensors, numbers and strings."""
    check_regular(path, "weights")
    try:
        with open(path, "rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"  # 8 bytes of length, then JSON
        if is_safetensors:
            return load_tensors(path, "weights")
        _check_archive(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        return _plain(loaded, {})
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"weights {path}: {error.strerror or error}; check the path") from None
    except Exception as error:  # on damaged and hostile files, torch and zipfile raise anything
        raise UserError(
            f"weights {path}: neither safetensors nor plain tensors as torch.save writes them "
            f"({in_one_line(error)}); download the file again, or save its state dict alone"
        ) from None


def _check_archive(path: Path) -> None:
    """Raise UserError if an archive is compressed, and so could unpack to more than its own size.

    torch.save does not compress.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                raise UserError(
                    f"weights {path}: a compressed archive; torch.save writes none: unpack it, or "
                    "save it again"
                )


def _plain(value: Any, seen: dict[int, Any]) -> Any:
    """Copy a value into plain containers.

    An object that is referred to several times is copied once.

    Raises:
        ValueError: The value holds anything else than tensors, numbers and strings.
    """
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, Tensor):
        plain: Any = _dense(value)
    elif isinstance(value, dict):
        plain = seen[id(value)] = {}
        plain.update((_plain(key, seen), _plain(item, seen)) for key, item in dict.items(value))
    elif isinstance(value, list):
        plain = seen[id(value)] = []
        plain.extend(_plain(item, seen) for item in value)
    elif isinstance(value, tuple):
        plain = tuple(_plain(item, seen) for item in value)
    elif value is None or type(value) in (str, bytes, int, float, bool):
        plain = value
    else:
        raise ValueError(f"it holds a {type(value).__name__}")
    seen[id(value)] = plain
    return plain


def _dense(tensor: Tensor) -> Tensor:
    """Return a tensor if it is a plain array whose numbers are all in the file.

    Raises:
        ValueError: It is not.
    """
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise ValueError(f"a tensor that is no plain array ({tensor.layout}, {tensor.dtype})")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"a tensor {tuple(tensor.shape)} with fewer numbers in the file than that")
    return tensor.detach()


def _refuse(unpickler: pickle._Unpickler) -> NoReturn:
    raise pickle.UnpicklingError("it would import or call something")


class _PlainUnpickler(pickle._Unpickler):
    """Python's own unpickler with only the PLAIN instructions.

    What imports (GLOBAL, INST), calls (REDUCE, NEWOBJ, OBJ, BUILD) or fetches (PERSID, EXT) raises
    an error before it is read. The unpickler is the one written in Python, whose memory grows only
    with the file's size.
    """

    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        **dict.fromkeys(pickle._Unpickler.dispatch, _refuse),
        **{
            code: pickle._Unpickler.dispatch[code]
            for code in (getattr(pickle, name)[0] for name in PLAIN.split())
        },
    }

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle of lists, tuples, dicts, strings and numbers.

    Strings of Python 2 are read as Latin-1. A pickle in text whose line ends became those of
    Windows is read too.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        UserError: The file cannot be read, or holds anything else. Nothing in it is ever imported
            or called.
    """
    try:
        content = read_file(path, "pickle")
        if content.startswith(TEXT_PICKLE):
            content = content.replace(b"\r\n", b"\n")
        return _PlainUnpickler(io.BytesIO(content), encoding="latin-1").load()
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"pickle {path}: {error.strerror or error}; check the path") from None
    except Exception as error:  # on damaged and hostile files, the unpickler raises anything
        raise UserError(
            f"pickle {path}: not plain lists, dicts, strings and numbers ({in_one_line(error)}); "
            "nothing else is read from a pickle: check the file, or write its content again as "
            "plain lists"
        ) from None


def state_dict(document: Mapping[Any, Any], where: str, *keys: str) -> dict[str, Tensor]:
    """Return the state dict under some keys of a document.

    An example is state_dict(document, str(path), "model", "netG").

    Args:
        document: Content of a file of weights.
        where: Name of the file in errors.
        keys: The keys that lead to the state dict, the outermost first; none for the document
            itself.

    Returns:
        The tensors by name.

    Raises:
        UserError: There is no state dict under these keys.
    """
    found: Any = document
    for depth, key in enumerate(keys):
        if not isinstance(found, Mapping) or key not in found:
            raise UserError(
                f"weights {where}: it has no '{'.'.join(keys[: depth + 1])}'; is it the right file?"
            )
        found = found[key]
    if not isinstance(found, Mapping) or not found:
        raise UserError(
            f"weights {where}: '{'.'.join(keys)}' is no state dict; is it the right file?"
        )
    for name, tensor in found.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UserError(
                f"weights {where}: '{str(name)[:80]}' is no tensor by name; is it the right file?"
            )
    return dict(found)


def side(state: Mapping[str, Tensor], name: str, where: str, axis: int = 0) -> int:
    """Return the length of one side of a tensor, which says how large a network is.

    Args:
        state: The state dict.
        name: Name of the tensor.
        where: Name of the file in errors.
        axis: Number of the side, from 0.

    Returns:
        The length, at least 1.

    Raises:
        UserError: There is no such tensor, or it has no such side.
    """
    tensor = state.get(name)
    if tensor is None or tensor.dim() <= axis or not tensor.numel():
        raise UserError(
            f"weights {where}: '{name[:80]}' is missing, or has another shape; is it the "
            "right file?"
        )
    return tensor.shape[axis]


def without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Remove a prefix from the keys of a state dict.

    Args:
        state: The state dict.
        prefix: The prefix, such as "module.", DataParallel's.

    Returns:
        The state dict without the prefix if every key has it, else a copy.
    """
    if state and all(key.startswith(prefix) for key in state):
        return {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    return dict(state)


def renamed(state: Mapping[str, Tensor], rules: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """Rename the tensors of a state dict.

    Args:
        state: The state dict.
        rules: Pairs of a regular expression and its replacement; each is applied to every key, in
            order.

    Returns:
        The same tensors under their new names.

    Raises:
        UserError: Two tensors have the same new name.
    """
    result: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = key
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        if name in result:
            raise UserError(
                f"weights: two tensors stand for '{name}', one of them as '{key}'; is it the right "
                "file?"
            )
        result[name] = tensor
    return result


def counted(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the counters of batch normalisation, which files from before PyTorch 0.4 lack.

    Nothing here reads the counters.

    Args:
        module: A network with these counters.
        state: The state dict.

    Returns:
        The state dict with all counters.
    """
    counters = {
        name: t for name, t in owned_tensors(module).items() if name.endswith("num_batches_tracked")
    }
    return {**counters, **state}
