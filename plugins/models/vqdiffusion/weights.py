"""Import of the weights that VQ-Diffusion's authors released (github.com/microsoft/VQ-Diffusion)."""

from __future__ import annotations

TRANSFORMER = (
    (r"^content_emb\.emb\.", "tokens."),
    (r"^content_emb\.height_emb\.", "rows."),
    (r"^content_emb\.width_emb\.", "columns."),
    (r"^to_logits\.0\.", "norm."),
    (r"^to_logits\.1\.", "logits."),
    (r"\.ln1_1\.", ".norm_2."),
    (r"\.ln1\.", ".norm_1."),
    (r"\.ln2\.", ".norm_3."),
    (r"\.emb\.weight$", ".times.weight"),
    (r"\.attn1\.", ".attention."),
    (r"\.attn2\.", ".cross."),
    (r"\.proj\.", ".out."),
)
"""The authors' names in Text2ImageTransformer, and ours in `Transformer`."""
