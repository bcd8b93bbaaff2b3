"""PIPAL (Gu et al., ECCV 2020): distortions of restoration and GAN methods, in the edition of the NTIRE challenges."""

from __future__ import annotations

from sind_hf.data.manifests.catalog import DatasetFacts
from sind_hf.data.readers.labels import score_list
from sind_hf.data.readers.reader import Download, ImageFolder, LabeledImage, LabelFileError, Labels, Reader

# Training labels are Elo scores; this range of them is mapped to 0–1, the scale of the validation labels.
ELO_RANGE = (868.2988, 1857.0)


def read(download: Download, facts: DatasetFacts) -> Labels:
    """Read the training labels and, if present, the validation labels. The domain of an image is its reference."""
    lowest, highest = ELO_RANGE
    label_folder = download.label("training")
    training = download.images("training", "train", "")
    images = [
        _labeled(training, facts.domain_base, name, (elo - lowest) / (highest - lowest))
        for path in sorted(label_folder.glob("*.txt"))
        for name, elo in score_list(path)
    ]
    if not images:
        raise LabelFileError(f"{label_folder}: no .txt files with training labels in this folder")
    validation_labels = download.optional_label("validation")
    if validation_labels is None:
        return Labels(images, _references(images), notes=("no validation labels found: training images only",))
    validation = download.images("validation/Dis", "validation", "val", "")
    images += [_labeled(validation, facts.domain_base, name, score) for name, score in score_list(validation_labels)]
    return Labels(images, _references(images))


def _references(images: list[LabeledImage]) -> dict[int, str]:
    names = {image.domain_id: image.reference for image in images}
    return {domain_id: name.removesuffix(".bmp") for domain_id, name in names.items() if domain_id and name}


def _labeled(folder: ImageFolder, base: int, name: str, score: float) -> LabeledImage:
    parts = name.split(".")[0].split("_")
    if len(parts) != 3 or not parts[0][1:].isdigit():
        raise LabelFileError(f"{folder.folder}: {name!r} is not a PIPAL name, expected A0001_00_00.bmp")
    return LabeledImage(
        # The training images have unique names in the folders Distortion_1 … Distortion_4.
        image=folder.find(name, anywhere=True),
        score=score,
        domain_id=base + int(parts[0][1:]),
        reference=f"{parts[0]}.bmp",
        distortion=parts[1],
    )


READER = Reader(
    name="pipal",
    labels={
        "training": ("training/Train_Label", "train/Train_Label", "Train_Label"),
        "validation": ("validation/val_label.txt", "val/val_label.txt", "val_label.txt"),
    },
    read=read,
)
