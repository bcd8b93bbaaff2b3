"""Prepared images (see `sind_hf.data.prepared.folder`) as arrays that share the memory map, without a copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np
from PIL import Image

from sind_hf.image_processing_sind import (
    SindImageProcessor,
    StripImage,
    ViewMode,
    cut_views,
    local_image_size,
    plan_views,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

IMAGE_COLUMNS = ("global_picture", "local_picture", "local_height", "local_width", "local_is_source")
# Constant within a folder, but stored as columns, so that selected and concatenated datasets keep them.
SETTING_COLUMNS = ("view_size", "resize_backend")


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """The two resized images that all views of one image are cut from.

    Attributes:
        name: Path of the source image.
        view_size: Side s of the views.
        global_image: uint8 (8s/7, 8s/7, 3), read-only.
        local_image: uint8 with short side 3s, read-only; or a `StripImage`.
    """

    name: str
    view_size: int
    global_image: np.ndarray
    local_image: np.ndarray | StripImage

    def __str__(self) -> str:
        return self.name

    def make_views(
        self, mode: ViewMode = "center", generator: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the views of `SindImageProcessor.make_views`: uint8 (T, 3, s, s) each."""
        plans = plan_views(mode, self.local_image.shape[:2], self.view_size, generator)
        return cut_views(self.global_image, self.local_image, plans, self.view_size)


class PreparedImages(Sequence[PreparedImage]):
    """The images of a dataset that `load_prepared` opened, one `PreparedImage` per row.

    An image is a part of the memory map, and its bytes are read when views are cut. Loader processes inherit the map
    or open it again.

    Args:
        dataset: Dataset with the columns of prepared images.
        image_column: Name of the column of paths.

    Raises:
        ValueError: If a column is missing.
    """

    def __init__(self, dataset: Dataset, image_column: str = "image") -> None:
        columns = [image_column, *IMAGE_COLUMNS, *SETTING_COLUMNS]
        if missing := sorted(set(columns) - set(dataset.column_names)):
            raise ValueError(f"The dataset lacks the column {missing[0]!r} of prepared images: use load_prepared.")
        self._rows = dataset.select_columns(columns).with_format("arrow")
        self._image_column = image_column

    @staticmethod
    def are_in(dataset: Dataset) -> bool:
        """Whether a dataset holds prepared images."""
        return set(dataset.column_names).issuperset((*IMAGE_COLUMNS, *SETTING_COLUMNS))

    def require(self, processor: SindImageProcessor) -> None:
        """Check that the images were prepared for a processor.

        Raises:
            ValueError: If they were prepared for another view size or with another resize backend.
        """
        settings = self._rows.select_columns(list(SETTING_COLUMNS)).with_format(None)
        wanted = (processor.size["height"], processor.resize_backend)
        found = set(zip(*(settings[name][:] for name in SETTING_COLUMNS), strict=True))
        if not processor.color_management:
            raise ValueError(
                "Prepared images have their color profiles converted to sRGB, but color_management is off in the "
                "image processor: use the image files, or turn it on."
            )
        if other := sorted(found - {wanted}):
            (size, backend) = other[0]
            raise ValueError(
                f"The images are prepared for view_size={size}, resize_backend={backend!r}, but the image processor "
                f"has size {wanted[0]} and {wanted[1]!r}: prepare them again, or change the processor."
            )

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> PreparedImage: ...

    @overload
    def __getitem__(self, index: slice) -> list[PreparedImage]: ...

    def __getitem__(self, index: int | slice) -> PreparedImage | list[PreparedImage]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        row = self._rows[int(index)]
        size = row["view_size"][0].as_py()
        height, width = row["local_height"][0].as_py(), row["local_width"][0].as_py()
        side = 8 * size // 7
        content = _content(row["local_picture"])
        local_image: np.ndarray | StripImage
        if row["local_is_source"][0].as_py():
            source = Image.frombytes("RGB", (width, height), memoryview(content))
            local_image = StripImage(source, local_image_size(width, height, size))
        else:
            local_image = np.frombuffer(content, np.uint8).reshape(height, width, 3)
        global_image = np.frombuffer(_content(row["global_picture"]), np.uint8).reshape(side, side, 3)
        return PreparedImage(row[self._image_column][0].as_py(), size, global_image, local_image)


def _content(column: pa.ChunkedArray) -> pa.Buffer:
    """Return the bytes of a column's only value without a copy, which an Arrow scalar would make."""
    value = column.chunk(0)
    _, offsets, content = value.buffers()
    start, stop = np.frombuffer(offsets, np.int64, count=2, offset=8 * value.offset).tolist()
    return content.slice(start, stop - start)
