"""LIVE Image Quality Assessment Database, release 2 (Sheikh et al., TIP 2006)."""

from __future__ import annotations

from sind_hf.data.manifests.catalog import DatasetFacts
from sind_hf.data.readers.labels import mat_arrays, number
from sind_hf.data.readers.reader import Download, LabeledImage, LabelFileError, Labels, Reader

# The arrays list the folders in this order (readme of the database), and in each img1.bmp, img2.bmp, ….
IMAGES_PER_DISTORTION = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}


def read(download: Download, facts: DatasetFacts) -> Labels:
    """Read the realigned DMOS and the reference names. The pristine images are among the entries, with a DMOS of 0."""
    scores, pristine = mat_arrays(download.label("scores"), "dmos_new", "orgs")
    (references,) = mat_arrays(download.label("references"), "refnames_all")
    files = [
        (distortion, f"img{index}.bmp")
        for distortion, count in IMAGES_PER_DISTORTION.items()
        for index in range(1, count + 1)
    ]
    if not len(files) == len(scores) == len(pristine) == len(references):
        raise LabelFileError(
            f"{download.folder}: expected {len(files)} values in dmos_new, orgs and refnames_all, "
            f"got {len(scores)}, {len(pristine)} and {len(references)}"
        )
    ids = {name: domain_id for domain_id, name in facts.domains.items()}
    folders = {distortion: download.images(distortion) for distortion in IMAGES_PER_DISTORTION}
    images = [
        LabeledImage(
            image=folders[distortion].find(name),
            score=number(score),
            domain_id=ids[distortion],
            reference=str(reference),
            distortion=distortion,
        )
        for (distortion, name), score, reference in zip(files, scores, references, strict=True)
    ]
    return Labels(images, notes=(f"{int(pristine.sum())} of the {len(files)} entries are pristine images",))


READER = Reader(
    name="live",
    folders=("databaserelease2", "LIVEIQA_release2", "LIVE_release2", "live_iqa"),
    labels={"scores": ("dmos_realigned.mat",), "references": ("refnames_all.mat",)},
    read=read,
)
