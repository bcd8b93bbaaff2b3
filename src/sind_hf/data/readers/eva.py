"""EVA (Kang et al., ATQAM/MAST 2020): aesthetic votes on photographs of six categories."""

from __future__ import annotations

from collections import defaultdict

from sind_hf.data.manifests.catalog import DatasetFacts
from sind_hf.data.readers.labels import csv_rows, csv_table, number
from sind_hf.data.readers.reader import Download, LabeledImage, LabelFileError, Labels, Reader


def read(download: Download, facts: DatasetFacts) -> Labels:
    """Average the votes of every image. Images without filtered votes are left out."""
    votes: dict[str, list[float]] = defaultdict(list)
    for row in csv_table(download.label("votes"), ["image_id", "score"], delimiter="="):
        votes[row["image_id"]].append(number(row["score"]))
    path = download.label("categories")
    folder = download.images(
        "images/EVA_category/EVA_category",
        "images/EVA_category",
        "EVA_category/EVA_category",
        "EVA_category",
        "images",
    )
    images = []
    unvoted = 0
    lines = csv_rows(path)
    next(lines, None)  # the header; the columns go by position
    for line in lines:
        if not line:
            continue
        image_id, category = line[0], line[1] if len(line) > 1 else ""
        domain_id = facts.domain_base + int(category) if category.isdecimal() else -1
        if domain_id not in facts.domains:
            raise LabelFileError(f"{path}: image {image_id} has category {category!r}, expected a number from 1 to 6")
        if image_id not in votes:
            unvoted += 1
            continue
        images.append(
            LabeledImage(
                image=folder.find(f"{category}/{image_id}.jpg"),
                score=sum(votes[image_id]) / len(votes[image_id]),
                scene=facts.domains[domain_id],
                domain_id=domain_id,
            )
        )
    return Labels(images, notes=(f"images without votes, left out: {unvoted}",) if unvoted else ())


READER = Reader(
    name="eva",
    folders=("eva-dataset-master", "eva-dataset"),
    labels={
        "votes": ("eva-dataset-master/data/votes_filtered.csv", "data/votes_filtered.csv", "votes_filtered.csv"),
        "categories": (
            "eva-dataset-master/data/image_content_category.csv",
            "data/image_content_category.csv",
            "image_content_category.csv",
        ),
    },
    read=read,
)
