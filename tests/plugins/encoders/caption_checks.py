"""What tests of text encoders that read whole words share."""

import pytest
import torch
from hypothesis import strategies as st

CAPTIONS = st.lists(st.text(max_size=60), min_size=1, max_size=4)
"""Captions of any characters."""

hostile = pytest.mark.parametrize(
    "caption", ["red " * 300_000, "x" * 1_000_000, "\x00", "\ud800", "\u202e../../x\x1b[31m", "🟥"]
)


def check_independence(encoder, captions):
    """Features are finite, and those of a caption do not depend on the others of its batch."""
    with torch.no_grad():
        together = encoder.encode([*captions, "a red circle below a blue square"])
        for i, caption in enumerate(captions):
            alone = encoder.encode([caption])
            length = alone.mask.shape[1]
            torch.testing.assert_close(
                together.sentence[i], alone.sentence[0], rtol=1e-4, atol=1e-5
            )
            torch.testing.assert_close(
                together.words[i, :length], alone.words[0], rtol=1e-4, atol=1e-5
            )
            assert not together.mask[i, length:].any()
            assert together.words[i].isfinite().all()
