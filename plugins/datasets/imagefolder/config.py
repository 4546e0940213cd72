"""Settings of the data set `imagefolder`."""

from t2i.plugins.common.images.config import SplitImagesConfig


class ImageFolderConfig(SplitImagesConfig):
    """Settings of the data set `imagefolder`."""

    caption: str | None = None
    """Caption of images that have none. None: such images are broken, and are skipped."""

    table: str | None = None
    """Name of the file with the captions, such as captions.csv. None: it is looked for. It may lie
    in any folder of the data set, or in several."""

    name_column: str | None = None
    """Column of the table that names the images. None: it is looked for. Columns of a table without
    a header are called 1, 2, ..."""

    caption_column: str | None = None
    """Column of the table that holds the captions. None: it is looked for: text, caption, captions,
    prompt, description and others, in this order, or the only column with texts."""

    encoding: str | None = None
    """Encoding of tables and caption files, such as cp1252 or gbk. None: UTF-8, or what the file's
    byte order mark says."""
