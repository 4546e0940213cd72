"""What `coco` registers."""

from t2i.core.hooks import hookimpl
from t2i.core.specs import DownloadSpec
from t2i.plugins.coco.downloads import COCO


@hookimpl
def t2i_downloads() -> list[DownloadSpec]:
    return [COCO]
