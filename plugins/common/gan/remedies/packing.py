"""Packing (PacGAN, Lin et al. 2018): a discriminator scores m images together."""

from __future__ import annotations

from torch import Tensor

from t2i.core.errors import UserError


def packed(x: Tensor, m: int) -> Tensor:
    """Concatenate each m rows that follow one another, along axis 1.

    Args:
        x: Images, features or sentences, float (B, C, ...).
        m: Number of rows of a pack. 1: `x` itself is returned.

    Returns:
        The packs, float (B / m, m C, ...).

    Raises:
        UserError: m does not divide B, or there is one pack only: it has no other to be mismatched
            with.
    """
    if m == 1:
        return x
    if len(x) % m or len(x) < 2 * m:
        raise UserError(
            f"pack={m} does not divide the {len(x)} images that a process gets at a time into two "
            "packs or more: use a batch_size that is a multiple of pack, processes and accumulate"
        )
    return x.reshape(len(x) // m, m * x.shape[1], *x.shape[2:])
