"""AGIQA-3K (Li et al., TCSVT 2023): images of six generators in the styles of their prompts."""

from __future__ import annotations

from sind_hf.data.manifests.catalog import DatasetFacts
from sind_hf.data.readers.labels import csv_table, number
from sind_hf.data.readers.reader import Download, LabeledImage, Labels, Reader, alphabetical_ids


def read(download: Download, facts: DatasetFacts) -> Labels:
    """Read the quality MOS. The scene is the style of the prompt, or "other" if it has none."""
    rows = csv_table(download.label("scores"), ["name", "mos_quality", "style"])
    styles = [row["style"] or "other" for row in rows]
    ids = alphabetical_ids(styles, facts.domain_base)
    folder = download.images("images", "")
    images = [
        LabeledImage(
            image=folder.find(row["name"]), score=number(row["mos_quality"]), scene=style, domain_id=ids[style]
        )
        for row, style in zip(rows, styles, strict=True)
    ]
    return Labels(images, domain_names={domain_id: name for name, domain_id in ids.items()})


READER = Reader(name="agiqa3k", folders=("AGIQA3K", "AGIQA_3K"), labels={"scores": ("data.csv",)}, read=read)
