"""CID2013 (Virtanen et al., TIP 2015): the same scenes taken with many cameras, in six image sets."""

from __future__ import annotations

from sind_hf.data.manifests.catalog import DatasetFacts
from sind_hf.data.readers.labels import number, xlsx_table
from sind_hf.data.readers.reader import Download, LabeledImage, Labels, Reader


def read(download: Download, facts: DatasetFacts) -> Labels:
    """Read the realigned MOS. The scores of the six image sets themselves are on different scales."""
    folder = download.images("")
    rows = xlsx_table(download.label("scores"), ["Source_ID", "Realigned MOS"], sheet="CID2013 MOS")
    return Labels(
        [
            LabeledImage(
                # The archive has the folders IS1/co1 … IS6/co8, the published manifests have one folder.
                image=folder.find(f"{row['Source_ID']}.jpg", anywhere=True),
                score=number(row["Realigned MOS"]),
                domain_id=facts.domain_base,
            )
            for row in rows
        ]
    )


READER = Reader(
    name="cid2013",
    folders=("CID_2013", "CID2013_database"),
    labels={"scores": ("CID2013 data - version 12112014.xlsx",)},
    read=read,
)
