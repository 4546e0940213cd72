"""COCO's archives at images.cocodataset.org, with their sizes and MD5 sums."""

from t2i.core.registry.specs import DownloadFile, DownloadSpec

SERVER = "http://images.cocodataset.org"


def _file(path: str, part: str, size: int, md5: str) -> DownloadFile:
    """Describe one archive."""
    return DownloadFile(url=f"{SERVER}/{path}", part=part, size=size, checksum=f"md5:{md5}")


COCO = DownloadSpec(
    name="coco",
    summary=(
        "COCO's photographs and captions; by default all of 2014, which the protocols of "
        "'bench coco' use"
    ),
    licence="annotations CC BY 4.0; each photograph its own, from Flickr",
    licence_url="https://cocodataset.org/#termsofuse",
    default=("val2014", "train2014", "annotations2014"),
    files=(
        _file("zips/val2014.zip", "val2014", 6_645_013_297, "a3d79f5ed8d289b7a7554ce06a5782b3"),
        _file(
            "zips/train2014.zip", "train2014", 13_510_573_713,
            "0da8c0bd3d6becc4dcb32757491aca88",
        ),
        _file(
            "annotations/annotations_trainval2014.zip", "annotations2014", 252_872_794,
            "0a379cfc70b0e71301e0f377548639bd",
        ),
        _file("zips/val2017.zip", "val2017", 815_585_330, "442b8da7639aecaf257c1dceb8ba8c80"),
        _file(
            "zips/train2017.zip", "train2017", 19_336_861_798,
            "cced6f7f71b7629ddf16f17bbcfab6b2",
        ),
        _file(
            "annotations/annotations_trainval2017.zip", "annotations2017", 252_907_541,
            "f4bbac642086de4f52a3fdda2de5fa2c",
        ),
    ),
)  # fmt: skip
