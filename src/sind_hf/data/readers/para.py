"""PARA (Yang et al., CVPR 2022): aesthetics and quality of 31,220 photographs of ten semantic categories."""

from __future__ import annotations

from sind_hf.data.manifests.catalog import DatasetFacts
from sind_hf.data.manifests.manifest import ScoreInfo
from sind_hf.data.readers.labels import csv_table, number
from sind_hf.data.readers.reader import Download, LabeledImage, Labels, Reader, alphabetical_ids

SCORES = {"aesthetic": "aestheticScore_mean", "quality": "qualityScore_mean"}


def read(download: Download, facts: DatasetFacts, score: str = "aesthetic") -> Labels:
    """Read mean aesthetic or quality scores.

    Args:
        score: "aesthetic" (as in the published manifests) or "quality".

    Raises:
        ValueError: If `score` is neither.
    """
    if score not in SCORES:
        raise ValueError(f"para: option score must be {' or '.join(SCORES)}, got {score!r}")
    columns = ["imageName", "sessionId", "semantic", SCORES[score]]
    # Some mirrors have only the two parts. If they are missing too, the message asks for the whole file.
    whole = download.optional_label("all") is not None or download.optional_label("train") is None
    rows = [
        row for key in (["all"] if whole else ["train", "test"]) for row in csv_table(download.label(key), columns)
    ]
    ids = alphabetical_ids([row["semantic"] for row in rows], facts.domain_base)
    folder = download.images("imgs", "images")
    images = [
        LabeledImage(
            image=folder.find(f"{row['sessionId']}/{row['imageName']}"),
            score=number(row[SCORES[score]]),
            scene=row["semantic"],
            domain_id=ids[row["semantic"]],
        )
        for row in rows
    ]
    return Labels(
        images,
        domain_names={domain_id: name for name, domain_id in ids.items()},
        score=None if score == "aesthetic" else ScoreInfo("mean quality score", facts.score_range),
    )


READER = Reader(
    name="para",
    labels={
        "all": ("annotation/PARA-GiaaAll.csv", "PARA-GiaaAll.csv"),
        "train": ("annotation/PARA-GiaaTrain.csv", "PARA-GiaaTrain.csv"),
        "test": ("annotation/PARA-GiaaTest.csv", "PARA-GiaaTest.csv"),
    },
    read=read,
    options=("score",),
)
