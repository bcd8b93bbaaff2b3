"""NNID (Xiang et al., TMM 2020): natural night-time images at three resolutions."""

from __future__ import annotations

from sind_hf.data.manifests.catalog import DatasetFacts
from sind_hf.data.readers.labels import score_list
from sind_hf.data.readers.reader import Download, LabeledImage, Labels, Reader

FOLDERS = {"512": "sub512", "1024": "sub1024", "2048": "Sub2048"}


def read(download: Download, facts: DatasetFacts) -> Labels:
    """Read the three lists of MOS. The domain is the resolution."""
    images = []
    for index, (size, name) in enumerate(FOLDERS.items()):
        folder = download.images(name)
        images += [
            LabeledImage(image=folder.find(image), score=score, domain_id=facts.domain_base + index)
            for image, score in score_list(download.label(size), order="score name")
        ]
    return Labels(images)


READER = Reader(name="nnid", labels={size: (f"mos{size}_with_names.txt",) for size in FOLDERS}, read=read)
