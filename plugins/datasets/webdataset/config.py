"""Settings of the data set `webdataset`."""

from __future__ import annotations

from pydantic import Field

from t2i.core.settings import DataConfig


class WebDatasetConfig(DataConfig):
    """Settings of the data set `webdataset`.

    `dir` is the folder of the shards. Without `shards`, all its *.tar are used, in the order of
    their names.
    """

    shards: str | tuple[str, ...] = ()
    """Names of the shards, in `dir` if it is set, or http(s) URLs.

    {00000..00099} and {a,b} stand for several names.
    """
    val_shards: int | None = Field(None, ge=0)
    """Number of shards for val, taken from the end.

    None: one if there are several, else 0. 0: the examples are split by `val_share`.
    """
    val_share: float = Field(0.05, gt=0, lt=1)
    """Fraction of the examples that is for val, where no whole shard is.

    A hash of their names decides which.
    """
    window: int = Field(8, ge=1)
    """Number of shards whose examples are shuffled together.

    The shards come in another order in each epoch; then the examples of so many consecutive shards
    are permuted.
    """
    cache_gb: float = Field(50.0, gt=0)
    """Size of the cache for shards from URLs, in units of 1e9 bytes.

    It should hold at least two windows; otherwise shards are downloaded again and again.
    """
