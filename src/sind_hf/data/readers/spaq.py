"""SPAQ (Fang et al., CVPR 2020): smartphone photographs with one or more scene labels each."""

from __future__ import annotations

from sind_hf.data.manifests.catalog import DatasetFacts
from sind_hf.data.readers.labels import number, xlsx_table
from sind_hf.data.readers.reader import Download, LabeledImage, Labels, Reader


def read(download: Download, facts: DatasetFacts) -> Labels:
    """Read the MOS and the marked scenes of every image. `build` selects one of them."""
    scenes = tuple(facts.domains.values())
    marked = {
        str(row["Image name"]).lower(): tuple(scene for scene in scenes if number(row[scene]) > 0)
        for row in xlsx_table(download.label("scenes"), ["Image name", *scenes])
    }
    folder = download.images("TestImage", "TestImages", "TestImage_resized", "images")
    images = [
        LabeledImage(
            image=folder.find(str(row["Image name"])),
            score=number(row["MOS"]),
            scenes=marked.get(str(row["Image name"]).lower(), ()),
        )
        for row in xlsx_table(download.label("scores"), ["Image name", "MOS"])
    ]
    unmarked = sum(not image.scenes for image in images)
    return Labels(images, notes=(f"images without a scene in the scene labels: {unmarked}",) if unmarked else ())


READER = Reader(
    name="spaq",
    folders=("SPAQ_fixed", "SPAQ-dataset"),
    labels={
        "scores": ("annotations/MOS and Image attribute scores.xlsx", "MOS and Image attribute scores.xlsx"),
        "scenes": ("annotations/Scene category labels.xlsx", "Scene category labels.xlsx"),
    },
    read=read,
    without_label="choice",
)
