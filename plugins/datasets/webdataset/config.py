"""Settings of `webdataset`."""

from __future__ import annotations

from pydantic import Field

from t2i.core.settings import DataConfig


class WebDatasetConfig(DataConfig):
    """Settings.

    dir: folder of the shards; without `shards`, all its *.tar are taken, by name.
    shards: names of shards, in the folder if there is one, or http(s) URLs; {00000..00099} and {a,b} stand for many.
    val_shards: the last so many shards are for val (None: one, if there are several; 0: split by `val_share`).
    val_share: where no whole shard is for val, the share of the examples that are, chosen by a hash of their names.
    window: how many shards are mixed. The order of the shards is drawn anew each epoch, then the examples of so many of
    them at a time are permuted.
    cache_gb: room for shards that come by URL, 1e9 bytes; at least that of two windows, or shards come again and again.
    """

    shards: str | tuple[str, ...] = ()
    val_shards: int | None = Field(None, ge=0)
    val_share: float = Field(0.05, gt=0, lt=1)
    window: int = Field(8, ge=1)
    cache_gb: float = Field(50.0, gt=0)
