"""BID (Ciancio et al., TIP 2011), also called RBID: photographs with realistic blur."""

from __future__ import annotations

from sind_hf.data.manifests.catalog import DatasetFacts
from sind_hf.data.readers.labels import number, xlsx_rows
from sind_hf.data.readers.reader import Download, LabeledImage, LabelFileError, Labels, Reader


def read(download: Download, facts: DatasetFacts) -> Labels:
    """Read the image numbers, which have gaps, and the mean grades from the first two columns."""
    path = download.label("grades")
    folder = download.images("")
    images = []
    for line, row in enumerate(xlsx_rows(path), start=1):
        if line == 1 or not row or row[0] is None:
            continue
        image_number = number(row[0])
        if not image_number.is_integer():
            raise LabelFileError(f"{path}, row {line}: expected an image number in the first column, got {row[0]!r}")
        images.append(
            LabeledImage(
                image=folder.find(f"DatabaseImage{int(image_number):04d}.JPG", anywhere=True),
                score=number(row[1] if len(row) > 1 else None),
                domain_id=facts.domain_base,
                scenes=tuple(facts.domains.values()),
            )
        )
    return Labels(images)


READER = Reader(
    name="bid",
    folders=("RBID", "ImageDatabase", "blur_image_database"),
    labels={"grades": ("DatabaseGrades.xlsx", "ImageDatabase/DatabaseGrades.xlsx")},
    read=read,
)
