"""KonIQ-10k (Hosu et al., TIP 2020): photographs from the web, without scenes."""

from __future__ import annotations

from sind_hf.data.manifests.catalog import DatasetFacts
from sind_hf.data.readers.labels import csv_table, number
from sind_hf.data.readers.reader import Download, LabeledImage, Labels, Reader


def read(download: Download, facts: DatasetFacts) -> Labels:
    """Read the z-scored MOS, which the authors rescaled to 0–100."""
    folder = download.images("1024x768", "koniq10k_1024x768", "images", "512x384", "koniq10k_512x384")
    return Labels(
        [
            LabeledImage(
                image=folder.find(row["image_name"]),
                score=number(row["MOS_zscore"]),
                scenes=tuple(facts.domains.values()),
            )
            for row in csv_table(download.label("scores"), ["image_name", "MOS_zscore"])
        ]
    )


READER = Reader(
    name="koniq10k",
    folders=("koniq-10k", "KonIQ10k_1024x768"),
    labels={"scores": ("koniq10k_scores_and_distributions.csv", "koniq10k_scores_and_distributions.csv.csv")},
    read=read,
)
