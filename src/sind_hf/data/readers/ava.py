"""AVA (Murray et al., CVPR 2012): a quarter of a million photographs rated for aesthetics in challenges."""

from __future__ import annotations

import math

from sind_hf.data.manifests.catalog import DatasetFacts
from sind_hf.data.readers.labels import csv_rows, number
from sind_hf.data.readers.reader import Download, LabeledImage, LabelFileError, Labels, Reader


def read(download: Download, facts: DatasetFacts) -> Labels:
    """Average the ratings. A line: an index, the image ID, the counts of ratings 1–10, two tags and a challenge."""
    path = download.label("ratings")
    folder = download.images("data/image", "data/images", "images/images", "images", "image")
    images = []
    for line, row in enumerate(csv_rows(path, delimiter=" "), start=1):
        fields = [field for field in row if field]
        if not fields:
            continue
        if len(fields) < 12:
            raise LabelFileError(f"{path}, line {line}: expected an index, an image id and ten counts, got {row}")
        counts = [number(field) for field in fields[2:12]]
        total = sum(counts)
        mean = sum(rating * count for rating, count in enumerate(counts, start=1)) / total if total else math.nan
        images.append(LabeledImage(image=folder.find(f"{fields[1]}.jpg"), score=mean, domain_id=facts.domain_base))
    return Labels(images)


READER = Reader(
    name="ava", folders=("AVA_dataset", "AVA-dataset"), labels={"ratings": ("data/AVA.txt", "AVA.txt")}, read=read
)
