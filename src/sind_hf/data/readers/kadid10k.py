"""KADID-10k (Lin et al., QoMEX 2019): 81 references, 25 distortions, 5 levels."""

from __future__ import annotations

from sind_hf.data.manifests.catalog import DatasetFacts
from sind_hf.data.readers.labels import csv_table, number
from sind_hf.data.readers.reader import Download, LabeledImage, LabelFileError, Labels, Reader


def read(download: Download, facts: DatasetFacts) -> Labels:
    """Read the scores, which the file calls DMOS although higher is better."""
    path = download.label("scores")
    folder = download.images("images", "distorted_images")
    images = []
    for row in csv_table(path, ["dist_img", "ref_img", "dmos"]):
        parts = row["dist_img"].split("_")
        if len(parts) != 3 or not parts[1].isdigit():
            raise LabelFileError(f"{path}: {row['dist_img']!r} is not a KADID-10k name, expected I01_01_01.png")
        domain_id = facts.domain_base + int(parts[1])
        images.append(
            LabeledImage(
                image=folder.find(row["dist_img"]),
                score=number(row["dmos"]),
                domain_id=domain_id,
                reference=row["ref_img"],
                distortion=facts.domains.get(domain_id, parts[1]),
            )
        )
    return Labels(images)


READER = Reader(name="kadid10k", folders=("kadid-10k",), labels={"scores": ("dmos.csv",)}, read=read)
