"""Settings of the data set `webdataset`."""

from __future__ import annotations

from pydantic import Field

from t2i.plugins.common.images.config import SquareConfig


class WebDatasetConfig(SquareConfig):
    """Settings of the data set `webdataset`.

    `dir` is the folder of the shards, or one shard. Without `shards`, all tars of the folder are
    used, in the order of their names.
    """

    shards: str | tuple[str, ...] = ()
    """Names of the shards, in `dir` if it is set, or URLs (http, https, s3, gs, hf).

    {00000..00099} and {a,b} stand for several names; * and ? for names that are in the folder.
    """
    image: str | tuple[str, ...] = ()
    """Ending of the images' names in the shards, such as "input.jpg".

    One or several; the first that an example has is read. Empty: the known endings of images.
    """
    caption: str | tuple[str, ...] = ()
    """Ending of the captions' names in the shards, such as "output.txt" or "meta.json".

    One or several; the first that an example has is read. Empty: .txt, .text, .caption or .json.
    """
    caption_key: str | None = Field(None, min_length=1)
    """Key of the caption in the .json of an example; "a.b" is the key b in a.

    None: "caption", "text", "prompt" and the like are found.
    """
    encoding: str | None = Field(None, min_length=1)
    """Encoding of captions that are not UTF-8, such as "cp1252"."""
    val_shards: int | None = Field(None, ge=0)
    """Number of shards for val, taken from the end.

    None: the shards that are named val, if others are named train; else one if there are several;
    else 0. 0: the examples are split by `val_share`.
    """
    val_share: float = Field(0.05, gt=0, lt=1)
    """Fraction of the examples that is for val, where no whole shard is.

    A hash of their names decides which. Each split has at least one example.
    """
    window: int = Field(8, ge=1)
    """Number of shards whose examples are shuffled together.

    The shards come in another order in each epoch; then the examples of so many consecutive shards
    are permuted.
    """
    cache_gb: float = Field(50.0, gt=0)
    """Size of the cache for shards from URLs and for unpacked ones, in units of 1e9 bytes.

    It should hold at least two windows; otherwise shards are downloaded again and again. A larger
    shard is refused.
    """
