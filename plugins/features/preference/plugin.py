"""Judges that were trained on people's preferences: PickScore, HPSv2 and ImageReward."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import DownloadFile, DownloadSpec, FeatureSpec, HubFiles

HUB = "https://huggingface.co"


@hookimpl
def t2i_features() -> list[FeatureSpec]:
    """Declare the features `pickscore`, `hpsv2` and `image-reward`.

    Returns:
        Their specifications.
    """
    return [
        _features(
            "pickscore", "CLIP ViT-H/14 trained on which image people picked (986 M parameters)",
            "PickScoreConfig", "pickscore", text=True,
        ),
        _features(
            "hpsv2", "CLIP ViT-H/14 trained on how people ranked images (986 M parameters)",
            "HpsV2Config", "hpsv2", text=True,
        ),
        _features(
            "image-reward", "BLIP trained on how people rated images (446 M parameters)",
            "ImageRewardConfig", "image_reward",
        ),
    ]  # fmt: skip


def _features(name: str, summary: str, config: str, module: str, text: bool = False) -> FeatureSpec:
    package = "t2i.plugins.features.preference"
    return FeatureSpec(
        name=name, summary=summary, config=f"{package}.config:{config}",
        build=f"{package}.{module}:build", text=text,
    )  # fmt: skip


@hookimpl
def t2i_downloads() -> list[DownloadSpec]:
    """Declare the downloads of the judges, under the names of their features.

    Returns:
        Their specifications.
    """
    return [
        DownloadSpec(
            name="pickscore",
            summary="PickScore: both encoders and the tokenizer (3.9 GB)",
            licence="unknown for the weights; MIT for the code",
            licence_url=f"{HUB}/yuvalkirstain/PickScore_v1",
            hub=(HubFiles(repository="yuvalkirstain/PickScore_v1"),),
        ),
        DownloadSpec(
            name="hpsv2",
            summary="HPSv2.1 or HPSv2: CLIP ViT-H/14 in half precision (2.0 GB each); a tokenizer",
            licence="Apache-2.0 for the code; the weights: see their page",
            licence_url=f"{HUB}/xswu/HPSv2",
            default=("v2.1",),
            files=(
                *_hps("v2.1", "HPS_v2.1_compressed.pt"),
                *_hps("v2.0", "HPS_v2_compressed.pt"),
            ),
        ),
        DownloadSpec(
            name="image-reward",
            summary="ImageReward's weights (1.8 GB) and BERT's vocabulary",
            licence="Apache-2.0 for the code; the weights: see their page",
            licence_url=f"{HUB}/THUDM/ImageReward",
            files=(
                DownloadFile(url=f"{HUB}/THUDM/ImageReward/resolve/main/ImageReward.pt"),
                DownloadFile(
                    url=f"{HUB}/google-bert/bert-base-uncased/resolve/main/vocab.txt",
                    checksum=(
                        "sha256:07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
                    ),
                ),
            ),
        ),
    ]


def _hps(part: str, weights: str) -> tuple[DownloadFile, ...]:
    """Describe the weights of one version, and the tokenizer's files, which all CLIPs share."""
    clip = f"{HUB}/openai/clip-vit-large-patch14/resolve/main"
    urls = (f"{HUB}/xswu/HPSv2/resolve/main/{weights}", f"{clip}/vocab.json", f"{clip}/merges.txt")
    return tuple(DownloadFile(url=url, part=part) for url in urls)
