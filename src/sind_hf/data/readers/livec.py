"""LIVE in the Wild Image Quality Challenge (Ghadiyaram & Bovik, TIP 2016), also called LIVEC, LIVEW and CLIVE."""

from __future__ import annotations

from sind_hf.data.manifests.catalog import DatasetFacts
from sind_hf.data.readers.labels import mat_arrays, number
from sind_hf.data.readers.reader import Download, LabeledImage, LabelFileError, Labels, Reader


def read(download: Download, facts: DatasetFacts) -> Labels:
    """Read the names and the MOS from two arrays with the same order."""
    (names,) = mat_arrays(download.label("names"), "AllImages_release")
    (scores,) = mat_arrays(download.label("scores"), "AllMOS_release")
    if len(names) != len(scores):
        raise LabelFileError(f"{download.folder}: {len(names)} image names but {len(scores)} scores in Data/*.mat")
    folder = download.images("Images")
    return Labels(
        [
            LabeledImage(
                # The archive has the seven training images of the observers (t1.bmp …) in Images/trainingImages.
                image=folder.find(name, anywhere=True),
                score=number(score),
                domain_id=facts.domain_base,
                scenes=tuple(facts.domains.values()),
            )
            for name, score in zip(names, scores, strict=True)
        ]
    )


READER = Reader(
    name="livec",
    folders=("ChallengeDB_release", "LIVEC", "LIVEW", "CLIVE", "LIVE_Challenge", "LIVE-Challenge"),
    labels={
        "names": ("Data/AllImages_release.mat", "AllImages_release.mat"),
        "scores": ("Data/AllMOS_release.mat", "AllMOS_release.mat"),
    },
    read=read,
)
