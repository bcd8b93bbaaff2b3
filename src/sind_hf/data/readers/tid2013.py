"""TID2013 (Ponomarenko et al., SPIC 2015): 25 references, 24 distortions, 5 levels."""

from __future__ import annotations

from sind_hf.data.manifests.catalog import DatasetFacts
from sind_hf.data.readers.labels import score_list
from sind_hf.data.readers.reader import Download, LabeledImage, LabelFileError, Labels, Reader


def read(download: Download, facts: DatasetFacts) -> Labels:
    """Read the MOS. The domain of an image is its reference, as in the published manifests."""
    folder = download.images("distorted_images")
    images = []
    for name, score in score_list(download.label("scores"), order="score name"):
        parts = name.split("_")
        if len(parts) != 3 or not parts[0][1:].isdigit():
            raise LabelFileError(
                f"{download.folder}: {name!r} is not a TID2013 name, expected I<reference>_<type>_<level>.bmp"
            )
        images.append(
            LabeledImage(
                image=folder.find(name),
                score=score,
                domain_id=facts.domain_base + int(parts[0][1:]),
                reference=f"{parts[0].upper()}.BMP",
                distortion=parts[1],
            )
        )
    return Labels(images)


READER = Reader(name="tid2013", labels={"scores": ("mos_with_names.txt",)}, read=read)
