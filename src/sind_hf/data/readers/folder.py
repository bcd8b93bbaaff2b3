"""A user's own study: a folder of images with one table of scores, read by `sind_hf.data.importing.importer`.

Compared with an import, the scenes get domain IDs and the image paths start with the folder's name. Several studies
and datasets can then share one image root.
"""

from __future__ import annotations

from sind_hf.data.importing.importer import import_manifest
from sind_hf.data.manifests.catalog import DatasetFacts
from sind_hf.data.manifests.manifest import ScoreInfo
from sind_hf.data.readers.labels import number
from sind_hf.data.readers.reader import Download, LabeledImage, Labels, Reader, alphabetical_ids

# Above the IDs of the published datasets, so that a joint training keeps the scenes apart.
FIRST_DOMAIN = 2000
_COLUMNS = ("image", "score", "scene", "reference", "distortion")


def read(
    download: Download,
    facts: DatasetFacts | None,
    *,
    table: str | None = None,
    dataset: str | None = None,
    score_range: str | tuple[float, float] | None = None,
    lower_is_better: str | bool = False,
    first_domain_id: str | int = FIRST_DOMAIN,
    **columns: str,
) -> Labels:
    """Read a table of scores.

    Args:
        facts: None, because a user's study is not in the catalog.
        table: Path of the table below the folder. Default: the only table in the folder.
        dataset: Name of the dataset. Default: the folder's name.
        score_range: Lowest and highest possible score, such as `"1,5"`. Default: an open scale.
        lower_is_better: Whether low scores are good, as for difference scores.
        first_domain_id: Domain ID of the alphabetically first scene, if the table has no domain IDs.
        **columns: Columns of `image`, `score` (also its name in the manifest), `scene`, `reference` and `distortion`.
            Default: the columns with the usual names.

    Raises:
        ManifestError: If there is no table or several, a column is missing, or no row can be used.
        ValueError: If an option cannot be read.
    """
    limits = _limits(score_range)
    first_id = _domain_id(first_domain_id)
    imported = import_manifest(
        download.folder if table is None else download.folder / table,
        dataset=dataset or download.folder.name,
        image_root=download.folder,
        columns=columns,
    )
    manifest = imported.manifest
    ids = alphabetical_ids([entry.scene for entry in manifest.entries if entry.scene is not None], first_id)
    if any(entry.domain_id is not None for entry in manifest.entries):
        ids = {}  # the table numbers its scenes itself
    images = [
        LabeledImage(
            image=f"{download.folder.name}/{entry.image}",
            score=entry.score,
            scene=entry.scene,
            domain_id=ids.get(entry.scene or "", entry.domain_id),
            reference=entry.reference,
            distortion=entry.distortion,
        )
        for entry in manifest.entries
    ]
    notes = [] if limits else ["the scale of the scores is not known: give option score_range, like 1,5"]
    return Labels(
        images,
        dataset=manifest.dataset,
        domain_names={domain_id: name for name, domain_id in ids.items()} or manifest.domain_names,
        score=ScoreInfo(
            name=imported.columns["score"],
            range=limits,
            higher_is_better=str(lower_is_better).lower() not in ("true", "1", "yes"),
        ),
        source=manifest.source if table is None else table,
        left_out=[(f"row {row.row}", row.what) for row in imported.left_out],
        notes=(*imported.notes, *notes),
    )


def _limits(score_range: str | tuple[float, float] | None) -> tuple[float, float] | None:
    if score_range is None:
        return None
    parts = score_range.split(",") if isinstance(score_range, str) else list(score_range)
    limits = [number(part) for part in parts]
    if len(limits) != 2 or not limits[0] < limits[1]:
        raise ValueError(
            f"folder: option score_range must be two numbers, lowest first, like 1,5; got {score_range!r}"
        )
    return limits[0], limits[1]


def _domain_id(value: str | int) -> int:
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"folder: option first_domain_id must be a whole number; got {value!r}") from None


READER = Reader(
    name="folder",
    labels={},
    read=read,
    options=("table", "dataset", *_COLUMNS, "score_range", "lower_is_better", "first_domain_id"),
)
