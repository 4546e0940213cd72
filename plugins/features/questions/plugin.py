"""Judges that answer questions about an image: VQAScore, TIFA and DSG."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import DownloadFile, DownloadSpec, FeatureSpec, HubFiles

GITHUB = "https://raw.githubusercontent.com"
PACKAGE = "t2i.plugins.features.questions"


@hookimpl
def t2i_features() -> list[FeatureSpec]:
    """Declare the features `vqascore`, `tifa` and `dsg`.

    Returns:
        Their specifications.
    """
    answered = "by Qwen2-VL-2B (2.2 B parameters)"
    return [
        FeatureSpec(
            name="vqascore",
            summary=f"how probable 'Yes, the image shows the caption' is, {answered}",
            config=f"{PACKAGE}.config:VqaScoreConfig",
            build=f"{PACKAGE}.features:vqascore",
        ),
        FeatureSpec(
            name="tifa",
            summary=f"share of TIFA's published questions that are answered right, {answered}",
            config=f"{PACKAGE}.config:TifaConfig",
            build=f"{PACKAGE}.features:tifa",
        ),
        FeatureSpec(
            name="dsg",
            summary=f"share of DSG's published questions that are answered right, {answered}",
            config=f"{PACKAGE}.config:DsgConfig",
            build=f"{PACKAGE}.features:dsg",
        ),
    ]


@hookimpl
def t2i_downloads() -> list[DownloadSpec]:
    """Declare the answering network, and the questions of TIFA and DSG.

    Returns:
        Their specifications.
    """
    return [
        DownloadSpec(
            name="vqascore",
            summary="Qwen2-VL-2B-Instruct (4.4 GB), which answers for vqascore, tifa and dsg",
            licence="Apache-2.0",
            licence_url="https://huggingface.co/Qwen/Qwen2-VL-2B-Instruct",
            hub=(HubFiles(repository="Qwen/Qwen2-VL-2B-Instruct"),),
        ),
        DownloadSpec(
            name="tifa",
            summary="TIFA's 4,081 captions with 25,829 questions",
            licence="Apache-2.0",
            licence_url="https://github.com/Yushi-Hu/tifa/blob/main/LICENSE",
            files=(
                DownloadFile(
                    url=f"{GITHUB}/Yushi-Hu/tifa/8e37050f44ab4ee681e4251f3c8a9d4cc86e901e/"
                    "tifa_v1.0/tifa_v1.0_question_answers.json",
                ),
            ),
        ),
        DownloadSpec(
            name="dsg",
            summary="DSG's 1,060 captions with 8,182 questions that depend on each other",
            licence="Apache-2.0",
            licence_url="https://github.com/j-min/DSG/blob/main/LICENSE",
            files=(
                DownloadFile(
                    url=f"{GITHUB}/j-min/DSG/7330119a39f76ff90e619a8bd3ff321e71aa986b/dsg/data/"
                    "dsg-1k-anns.csv",
                    size=1_906_040,
                    checksum=(
                        "sha256:b7ce06ea8a0478ccfd8fba105ecd26d7d301eb99d5c412987546c4cc8e08917a"
                    ),
                ),
            ),
        ),
    ]
