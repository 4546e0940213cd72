"""Reading what to sample from files: captions, or sentence vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextFeatures
from t2i.core.io.files import check_regular, read_file
from t2i.core.io.tables import split_lines
from t2i.core.io.tensors import load_tensors
from t2i.core.io.text import decode_text


def read_prompts(path: Path) -> list[str]:
    """Read captions from a text file, one a line. Blank lines are skipped.

    Args:
        path: The file, in UTF-8, or with a byte order mark.

    Returns:
        At least one caption.

    Raises:
        UserError: The file cannot be read, has another encoding, or has no caption.
    """
    try:
        data = read_file(path, "prompts")
    except OSError as error:
        raise UserError(
            f"prompts {path}: {error.strerror}; give a text file with one prompt a line"
        ) from None
    lines = split_lines(decode_text(data, f"prompts {path}", setting=""))
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise UserError(f"prompts {path}: it holds no prompt; write one a line")
    return prompts


def read_features(path: Path) -> TextFeatures:
    """Read sentence vectors that another program computed.

    Args:
        path: A .npy file, or a .safetensors file with one tensor, of finite numbers (N, D).

    Returns:
        Text features of N rows, without captions.

    Raises:
        UserError: The file cannot be read, or holds anything else.
    """
    array = _array(path)
    if array.dim() != 2 or not len(array) or array.is_complex() or not array.isfinite().all():
        raise UserError(
            f"features {path}: {tuple(array.shape)} of {str(array.dtype).removeprefix('torch.')}, "
            f"where finite numbers "
            "(N, D) are expected, one sentence vector a row"
        )
    return TextFeatures.of(sentence=array.float())


def _array(path: Path) -> torch.Tensor:
    if path.suffix == ".safetensors":
        tensors = load_tensors(path, "features")
        if len(tensors) != 1:
            raise UserError(
                f"features {path}: it holds {len(tensors)} tensors; save the sentence vectors alone"
            )
        (tensor,) = tensors.values()
        return torch.as_tensor(tensor)
    check_regular(path, "features")
    try:
        # Mapped, not read: a header cannot ask for more memory than the file has bytes.
        array = np.lib.format.open_memmap(path, mode="r")
        return torch.from_numpy(np.array(array))
    except OSError as error:
        raise UserError(
            f"features {path}: {error.strerror or error}; give a .npy or .safetensors file"
        ) from None
    except (
        ValueError,
        TypeError,
        OverflowError,
        MemoryError,
        SyntaxError,
    ) as error:  # no .npy, or one of objects
        raise UserError(
            f"features {path}: no .npy file of numbers ({str(error).partition('.')[0][:80]}); "
            f"write them with "
            "numpy.save or safetensors"
        ) from None
