"""PIQ23 (Chahine et al., CVPR 2023): portraits in 50 scenes, scored by pairwise comparison within a scene."""

from __future__ import annotations

import re

from sind_hf.data.manifests.catalog import DatasetFacts
from sind_hf.data.readers.labels import csv_table, number
from sind_hf.data.readers.reader import Download, LabeledImage, LabelFileError, Labels, Reader


def read(download: Download, facts: DatasetFacts) -> Labels:
    """Read the overall quality in just-objectionable differences. The file has Windows paths."""
    path = download.label("scores")
    folder = download.images("")
    images = []
    names: dict[int, str] = {}
    for row in csv_table(path, ["IMAGE PATH", "JOD", "SCENE"]):
        trailing = re.search(r"(\d+)$", row["SCENE"])
        if trailing is None:
            raise LabelFileError(f"{path}: scene {row['SCENE']!r} of {row['IMAGE PATH']!r} does not end in a number")
        domain_id = int(trailing[1])
        names[domain_id] = row["SCENE"]
        images.append(
            LabeledImage(
                image=folder.find(row["IMAGE PATH"]), score=number(row["JOD"]), scene=row["SCENE"], domain_id=domain_id
            )
        )
    return Labels(
        images, domain_names=dict(sorted(names.items())), notes=("scores are comparable only within a scene",)
    )


READER = Reader(name="piq23", folders=("PIQ2023", "PIQ"), labels={"scores": ("Scores_Overall.csv",)}, read=read)
