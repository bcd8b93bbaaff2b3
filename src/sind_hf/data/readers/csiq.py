"""CSIQ (Larson & Chandler, JEI 2010)."""

from __future__ import annotations

from collections.abc import Iterator

from sind_hf.data.manifests.catalog import DatasetFacts
from sind_hf.data.readers.labels import number, score_list, xlsx_table
from sind_hf.data.readers.reader import Download, LabeledImage, LabelFileError, Labels, Reader

# Name of a distortion in the spreadsheet -> name in folders and file names.
SHEET_NAMES = {
    "noise": "AWGN",
    "blur": "BLUR",
    "contrast": "contrast",
    "fnoise": "fnoise",
    "jpeg": "JPEG",
    "jpeg 2000": "jpeg2000",
}


def read(download: Download, facts: DatasetFacts) -> Labels:
    """Read DMOS from the widespread list of names, or from the authors' spreadsheet."""
    ids = {name: domain_id for domain_id, name in facts.domains.items()}
    folder = download.images("dst_imgs", "dst_imgs_all", "distorted_images", "")
    images = []
    for name, score in _scores(download):
        parts = name.split(".")
        distortion = parts[1].lower() if len(parts) == 4 else ""
        if distortion not in ids:
            raise LabelFileError(
                f"{download.folder}: {name!r} is not a CSIQ name, expected <reference>.<type>.<level>.png"
            )
        images.append(
            LabeledImage(
                image=folder.find(f"{distortion}/{name}", anywhere=True),
                score=score,
                domain_id=ids[distortion],
                reference=f"{parts[0]}.png",
                distortion=distortion,
            )
        )
    return Labels(images)


def _scores(download: Download) -> Iterator[tuple[str, float]]:
    if download.optional_label("list") is not None or download.optional_label("sheet") is None:
        for name, score in score_list(download.label("list")):
            yield name.rsplit("/", 1)[-1], score
        return
    sheet = download.label("sheet")
    for row in xlsx_table(sheet, ["image", "dst_type", "dst_lev", "dmos"], sheet="all_by_image"):
        distortion = SHEET_NAMES.get(str(row["dst_type"]).strip().lower())
        if distortion is None:
            raise LabelFileError(f"{sheet}: unknown dst_type {row['dst_type']!r}; expected {', '.join(SHEET_NAMES)}")
        yield f"{row['image']}.{distortion}.{row['dst_lev']}.png", number(row["dmos"])


READER = Reader(name="csiq", labels={"list": ("csiq_label.txt",), "sheet": ("csiq.DMOS.xlsx",)}, read=read)
