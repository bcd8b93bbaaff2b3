"""From a picture in any form to the two views of SIND: loading, view geometry, and the image processor.

One picture goes through three steps, each a function of its own:
`load_image` (any source -> RGB), `resize_pictures` (the two deterministic pictures that every view is cut from), and
`cut_views` (crops and fragments at the places that a `ViewPlan` names). Arrays are uint8, height × width × 3.
"""

from __future__ import annotations

import http.client
import io
import math
import os
import urllib.request
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Unpack, get_args

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature
from transformers.processing_utils import ImagesKwargs

from .configuration_sind import GRID, IMAGENET_MEAN, IMAGENET_STD, VIEW_STEP

ImageSource = str | os.PathLike | bytes | dict | Image.Image | np.ndarray | torch.Tensor
ViewMode = Literal["train", "center", "nine"]
ResizeBackend = Literal["torch", "pillow"]

# Above this aspect ratio only the parts of the short-side-3s picture that fragments come from are computed.
MAX_FULL_ASPECT = 8
# (vertical, horizontal) places in thirds of the free room, as published: the two views are walked in different orders.
NINE_GLOBAL = tuple((i, j) for i in (0, 1, 2) for j in (0, 1, 2))
NINE_LOCAL = ((0, 0), (0, 2), (2, 0), (2, 2), (1, 1), (1, 0), (1, 2), (0, 1), (2, 1))
# What makes a picture upright, by EXIF orientation.
_TURNS: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Where Pillow's formats keep the orientation that they were read with.
_ORIENTATION_IS_IN = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
# Pictures with more pixels are refused: 1.5 GB of RGB. Pillow refuses more than 179 million, unless told otherwise.
PIXEL_LIMIT = 500_000_000
# What can be gone through, and is one picture, or none.
_ONE_PICTURE = (str, os.PathLike, bytes, bytearray, memoryview, dict, io.IOBase, Image.Image)


class ImageError(ValueError):
    """A picture that cannot be used; the message says which one and why."""


# --- loading -----------------------------------------------------------------------------------------------------


def load_image(source: ImageSource, *, short_side: int | None = None) -> Image.Image:
    """Load one picture as upright 8-bit RGB, whatever form it comes in.

    EXIF orientation is applied; transparency is composited on white; grey, palette, CMYK and 16-bit pictures are
    converted; of an animation the first frame is taken.

    Args:
        source: A path, an http(s) URL, encoded bytes, a `{"path", "bytes"}` dict as `datasets` stores it, a PIL image,
            or an array or tensor: (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels; uint8, uint16, or
            floating point in [0, 1].
        short_side: A JPEG file may be decoded at 1/2, 1/4 or 1/8 of its size, which is several times faster, as long
            as its short side keeps this many pixels. `None`: always at its full size.

    Returns:
        A PIL image of mode RGB.

    Raises:
        ImageError: When the source is missing, no picture, damaged, larger than `PIXEL_LIMIT` or Pillow's
            `MAX_IMAGE_PIXELS` allow, or of a wrong shape.
    """
    if isinstance(source, Image.Image):
        name = printable(getattr(source, "filename", "") or "image")
        with _damage_named(name):  # a file that Pillow has opened is decoded only here
            found = _to_rgb(source, name)
            return found.copy() if found is source else found
    if isinstance(source, torch.Tensor):
        source = source.detach().cpu().float().numpy() if source.is_floating_point() else source.detach().cpu().numpy()
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source), "array")
    if isinstance(source, dict):
        if not source.get("bytes") and not source.get("path"):
            raise ImageError("A picture given as a dict must hold 'bytes' or 'path'.")
        return _decode(source.get("bytes") or source["path"], str(source.get("path") or "bytes"), short_side)
    if isinstance(source, bytes):
        return _decode(source, "bytes", short_side)
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return _decode(_download(source), source, short_side)
    if isinstance(source, (str, os.PathLike)):
        return _decode(Path(source), os.fspath(source), short_side)
    raise ImageError(f"Cannot read a picture from {type(source).__name__}: give a path, bytes, PIL image or array.")


def _decode(source: bytes | str | Path, name: str, short_side: int | None) -> Image.Image:
    name = printable(name)
    try:
        with warnings.catch_warnings(), _damage_named(name):
            # The limit below speaks for itself; Pillow's own warning would name no file.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                if image.width * image.height > PIXEL_LIMIT:
                    raise ImageError(f"{name}: {image.width}x{image.height} pixels is over the limit of {PIXEL_LIMIT}")
                if short_side is not None:
                    # Decoders other than JPEG's do nothing here; JPEG's takes a scale that leaves at least this much.
                    factor = short_side / min(image.size)
                    image.draft(image.mode, (math.ceil(image.width * factor), math.ceil(image.height * factor)))
                image.load()
                return _to_rgb(image, name)
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: is a folder, not a picture") from None
    except UnidentifiedImageError:
        empty = (len(source) if isinstance(source, bytes) else os.path.getsize(source)) == 0
        raise ImageError(f"{name}: {'is empty' if empty else 'not a picture in a known format'}") from None


@contextmanager
def _damage_named(name: str) -> Iterator[None]:
    """Turn what Pillow's decoders raise on damaged data into an `ImageError` of one line."""
    try:
        yield
    except (ImageError, FileNotFoundError, IsADirectoryError, UnidentifiedImageError):
        raise
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ImageError(
            f"{name}: more pixels than Pillow's limit of {limit:,}; scale it down, or raise PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except Exception as error:  # decoders raise whatever damaged data leads them to
        text = error.strerror if isinstance(error, OSError) else str(error)  # without the name that it repeats
        what = printable(" ".join((text or str(error)).split())) or type(error).__name__
        raise ImageError(f"{name}: damaged or unreadable picture ({what})") from error


def printable(text: object, length: int = 300) -> str:
    """Make a name or a message safe to print: one line of bounded length, without characters that steer a terminal.

    Control characters (line ends and ESC among them), bidirectional overrides, and the bytes of a name that is not
    UTF-8 are written as escapes. The middle of a long text, such as a base64 string given as a path, is left out.

    Args:
        text: A name, a path or a message.
        length: Longest text to return, in characters.
    """
    whole = os.fsdecode(text) if isinstance(text, (bytes, os.PathLike)) else str(text)
    if len(whole) > 2 * length:  # cut first: the text may have millions of characters
        whole = whole[:length] + whole[-length:]
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in whole)
    if len(escaped) <= length:
        return escaped
    tail = length // 2  # the end of a path tells more than its middle
    return f"{escaped[: length - tail - 1]}…{escaped[-tail:]}"


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=20) as response:
            return response.read()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ImageError(f"{url}: download failed ({' '.join(str(error).split()) or type(error).__name__})") from None


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (3, 4)) or 0 in array.shape:
        raise ImageError(f"array: shape {array.shape} is no picture; expected (H, W), (H, W, C) or (C, H, W)")
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ImageError("array: floating-point pixels must be finite and in [0, 1]")
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype == np.uint16:
        array = _high_byte(array)
    elif array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif array.dtype != np.uint8:
        if array.min() < 0 or array.max() > 255:
            raise ImageError(f"array: {array.dtype} pixels must be in 0..255")
        array = array.astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array))


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if 0 in image.size:
        raise ImageError(f"{name}: the picture has no pixels ({image.width}x{image.height})")
    image = _upright(image)
    if image.mode.startswith("I"):
        image = Image.fromarray(_high_byte(np.asarray(image)))
    elif image.mode == "F":
        if not np.isfinite(np.asarray(image)).all():
            raise ImageError(f"{name}: floating-point pixels must be finite")
        image = Image.fromarray(_from_float(np.asarray(image)))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """Turn as EXIF says. Pillow's `exif_transpose` writes all of EXIF anew, and fails on tags of odd types."""
    image.load()  # some formats keep EXIF behind the pixels
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # EXIF that cannot be read says nothing about how to turn
        turn = None
    if turn is None:
        return image
    turned = image.transpose(turn)
    for name in _ORIENTATION_IS_IN:  # it is upright now
        turned.info.pop(name, None)
    return turned


def _high_byte(array: np.ndarray) -> np.ndarray:
    """Map 16-bit grey levels to 8 bits; wider integer types hold 8-bit levels unless one is above 255."""
    array = np.clip(array, 0, 65535)
    if array.dtype.itemsize > 2 and array.max() <= 255:
        return array.astype(np.uint8)
    return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _from_float(array: np.ndarray) -> np.ndarray:
    scale = 255 if array.max() <= 1 else 1
    return np.clip(np.rint(array * scale), 0, 255).astype(np.uint8)


# --- view geometry -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ViewPlan:
    """Where one pair of views is cut: all offsets in pixels of the two resized pictures.

    Attributes:
        crop: (top, left) of the global crop in the 8s/7 × 8s/7 picture.
        rows: Vertical offset of the fragments inside their cell, one per grid row.
        columns: Horizontal offset of the fragments inside their cell, one per grid column.
        flip_global: Whether the global view is flipped left-right.
        flip_local: Whether the local view is flipped left-right, after its fragments are joined.
    """

    crop: tuple[int, int]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    flip_global: bool = False
    flip_local: bool = False


def local_picture_size(width: int, height: int, view_size: int = 224) -> tuple[int, int]:
    """Return (height, width) of the picture fragments come from: short side 3s, long side `int(3s·long/short)`."""
    short = 3 * view_size
    if width <= height:
        return int(short * height / width), short
    return short, int(short * width / height)


def plan_views(
    mode: ViewMode, local_size: tuple[int, int], view_size: int = 224, generator: np.random.Generator | None = None
) -> list[ViewPlan]:
    """Decide where the views of one picture are cut (method: two views of an image).

    Args:
        mode: `"center"`: one pair, everything centred. `"nine"`: nine pairs at fixed places. `"train"`: one pair at
            random places, each view flipped with probability ½.
        local_size: (height, width) of the local picture, from `local_picture_size`.
        view_size: Side s of the views, in pixels.
        generator: Source of randomness, required for `"train"` and used by nothing else.

    Returns:
        1 or 9 plans.

    Raises:
        ValueError: Unknown mode, or `"train"` without a generator.
    """
    fragment = view_size // GRID
    margin = 8 * view_size // 7 - view_size  # free room of the global crop
    room_y, room_x = (side // GRID - fragment for side in local_size)  # free room of a fragment in its cell
    if mode == "center":
        return [ViewPlan((margin // 2, margin // 2), (room_y // 2,) * GRID, (room_x // 2,) * GRID)]
    if mode == "nine":
        return [
            ViewPlan((margin * top // 2, margin * left // 2), (room_y * v // 2,) * GRID, (room_x * h // 2,) * GRID)
            for (top, left), (v, h) in zip(NINE_GLOBAL, NINE_LOCAL, strict=True)
        ]
    if mode != "train":
        raise ValueError(f"views must be one of {', '.join(map(repr, get_args(ViewMode)))}, not {mode!r}.")
    if generator is None:
        raise ValueError("views='train' draws random places: pass a numpy random Generator as `generator`.")
    top, left = generator.integers(0, margin, size=2, endpoint=True).tolist()
    rows = generator.integers(0, room_y, size=GRID).tolist()
    columns = generator.integers(0, room_x, size=GRID).tolist()
    flip_global, flip_local = (generator.random(2) < 0.5).tolist()
    return [ViewPlan((top, left), tuple(rows), tuple(columns), flip_global, flip_local)]


def resize_pictures(
    image: Image.Image, view_size: int = 224, backend: ResizeBackend = "torch"
) -> tuple[np.ndarray, np.ndarray | StripPicture]:
    """Make the two deterministic pictures that all views of an RGB image are cut from.

    Args:
        image: RGB, any size.
        view_size: Side s of the views.
        backend: `"pillow"` is the published resize bit for bit; `"torch"` is several times faster on large pictures
            and within 1 grey level on 99.99 % of the values, never more than 2 off.

    Returns:
        The global picture, uint8 (8s/7, 8s/7, 3), and the local picture, uint8 with short side 3s; above an aspect
        ratio of 8:1 the latter is a `StripPicture`, which computes only what is cut from it.
    """
    side = 8 * view_size // 7
    height, width = local_picture_size(*image.size, view_size)
    if max(height, width) > MAX_FULL_ASPECT * min(height, width):
        return _resize(image, (side, side), "pillow"), StripPicture(image, (height, width))
    return _resize(image, (side, side), backend), _resize(image, (height, width), backend)


def _resize(image: Image.Image, size: tuple[int, int], backend: ResizeBackend) -> np.ndarray:
    if backend == "pillow":
        return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))
    if backend != "torch":
        raise ValueError(f"resize backend must be 'torch' or 'pillow', not {backend!r}.")
    # The (1, 3, H, W) view of an H×W×3 array is channels-last, which is torch's fast path for uint8.
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).contiguous().numpy()


class StripPicture:
    """A local picture too long to be made whole: resizes only the seven strips that fragments lie in.

    A 20,000×50 panorama would otherwise become 268,800×672 pixels.

    Args:
        image: The RGB source.
        size: (height, width) of the local picture that this stands for.
    """

    def __init__(self, image: Image.Image, size: tuple[int, int]) -> None:
        self.image = image
        self.shape = (*size, 3)

    def take(self, ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
        """Return the pixels at rows `ys` and columns `xs`, both `GRID` ascending runs, as (len(ys), len(xs), 3)."""
        wide = self.shape[1] >= self.shape[0]
        runs = np.split(xs if wide else ys, GRID)
        strips = [self._strip(int(run[0]), int(run[-1]) + 1, wide) for run in runs]
        if wide:
            return np.concatenate(strips, axis=1)[ys]
        return np.concatenate(strips, axis=0)[:, xs]

    def _strip(self, start: int, stop: int, wide: bool) -> np.ndarray:
        height, width, _ = self.shape
        box: tuple[float, float, float, float]
        if wide:
            scale = self.image.width / width
            box, size = (start * scale, 0, stop * scale, self.image.height), (stop - start, height)
        else:
            scale = self.image.height / height
            box, size = (0, start * scale, self.image.width, stop * scale), (width, stop - start)
        return np.asarray(self.image.resize(size, Image.Resampling.BILINEAR, box=box))


def cut_views(
    global_picture: np.ndarray,
    local_picture: np.ndarray | StripPicture,
    plans: Sequence[ViewPlan],
    view_size: int = 224,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the global crops and join the fragments that the plans name.

    Returns:
        Global and local views, both uint8 (T, 3, s, s) for T plans.
    """
    fragment = view_size // GRID
    cell_y, cell_x = local_picture.shape[0] // GRID, local_picture.shape[1] // GRID
    global_views = np.empty((len(plans), 3, view_size, view_size), np.uint8)
    local_views = np.empty_like(global_views)
    for t, plan in enumerate(plans):
        top, left = plan.crop
        crop = global_picture[top : top + view_size, left : left + view_size]
        ys = _fragment_indices(plan.rows, cell_y, fragment)
        xs = _fragment_indices(plan.columns, cell_x, fragment)
        if isinstance(local_picture, StripPicture):
            joined = local_picture.take(ys, xs)
        else:
            # Runs of columns are copied whole: picking single pixels takes eight times as long.
            rows = local_picture[ys]
            joined = np.concatenate([rows[:, x : x + fragment] for x in xs[::fragment]], axis=1)
        global_views[t] = (crop[:, ::-1] if plan.flip_global else crop).transpose(2, 0, 1)
        local_views[t] = (joined[:, ::-1] if plan.flip_local else joined).transpose(2, 0, 1)
    return global_views, local_views


def _fragment_indices(offsets: Sequence[int], cell: int, fragment: int) -> np.ndarray:
    starts = np.arange(GRID) * cell + np.asarray(offsets)
    return (starts[:, None] + np.arange(fragment)).reshape(-1)


# --- the image processor -----------------------------------------------------------------------------------------


class SindImagesKwargs(ImagesKwargs, total=False):
    """Options of `SindImageProcessor` beyond those of every image processor.

    views: `"center"` (one pair of views a picture) or `"nine"` (nine pairs, whose scores the model averages).
    resize_backend: `"torch"` (fast) or `"pillow"` (the published resize, bit for bit).
    fast_decode: Whether to decode large JPEG files at a fraction of their size.
    """

    views: str | None
    resize_backend: str | None
    fast_decode: bool | None


class SindImageProcessor(PilBackend):
    """Turn pictures into the global and local views that a `SindModel` reads.

    Args:
        size: `{"height": s, "width": s}`, the side of both views. Default 224.
        views: `"center"` or `"nine"`.
        resize_backend: `"torch"` or `"pillow"`, see `resize_pictures`.
        fast_decode: Whether to decode JPEG files that are at least twice as large as the views need (short side 6s) at
            1/2, 1/4 or 1/8 of their size: several times faster, and slightly other scores. Off by default.
        do_rescale: Whether to scale pixels to [0, 1]. With `do_normalize=False` too, the views stay uint8 and the
            model normalises them on its own device.
        do_normalize: Whether to normalise with `image_mean` and `image_std` (ImageNet's).

    Example:
        >>> from PIL import Image
        >>> from sind_hf import SindImageProcessor
        >>> inputs = SindImageProcessor()(Image.new("RGB", (640, 480)), views="nine", return_tensors="pt")
        >>> tuple(inputs["local_pixel_values"].shape)
        (1, 9, 3, 224, 224)
    """

    valid_kwargs = SindImagesKwargs
    model_input_names = ["pixel_values", "local_pixel_values"]
    size = {"height": 224, "width": 224}
    views: ViewMode = "center"
    resize_backend: ResizeBackend = "torch"
    fast_decode = False
    do_rescale = True
    do_normalize = True
    image_mean = IMAGENET_MEAN
    image_std = IMAGENET_STD

    def __init__(self, **kwargs: Unpack[SindImagesKwargs]) -> None:
        super().__init__(**kwargs)  # type: ignore[misc]  # the base class takes all of `valid_kwargs`

    def __call__(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        """Make the views of one or several pictures.

        Args:
            images: One picture or several, see `each_picture`, in any form that `load_image` takes.
            *args: Passed on to `BaseImageProcessor.preprocess`.
            **kwargs: Options of this call, as in the constructor; `return_tensors="pt"` for tensors.

        Returns:
            `pixel_values` and `local_pixel_values`: (B, 3, s, s) for `"center"`, (B, 9, 3, s, s) for `"nine"`.

        Raises:
            ImageError: When a picture cannot be read.
            TypeError: On unknown options.
            ValueError: On unusable values of options.
        """
        return super().__call__(images, *args, **kwargs)

    @staticmethod
    def each_picture(images: Any) -> Iterator[Any]:
        """Go through one picture or several, whatever holds them: a list, a column, an array of paths, a generator.

        Strings, bytes, dicts, PIL images, open files, and arrays of numbers of up to three dimensions are one. Of a
        dataset of Hugging Face `datasets` the image column is gone through.

        Raises:
            ValueError: When a dataset has no image column, or several none of which is called `image`.
        """
        if hasattr(images, "column_names") and hasattr(images, "select_columns"):
            column = _image_column(images)
            return (row[column] for row in images.select_columns([column]))
        if isinstance(images, np.ndarray) and images.dtype.kind in "OSTU":  # of names, or of pictures
            return iter(images)
        if isinstance(images, (np.ndarray, torch.Tensor)):
            return iter([images] if images.ndim <= 3 else images)
        is_one = isinstance(images, _ONE_PICTURE) or not isinstance(images, Iterable)
        return iter([images] if is_one else images)

    def make_views(
        self, image: ImageSource, mode: ViewMode = "center", generator: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Load one picture and cut its views: uint8 (T, 3, s, s) each, before normalisation.

        Args:
            image: Anything that `load_image` takes.
            mode: `"center"`, `"nine"` or `"train"`.
            generator: For `"train"`: where the random places and flips are drawn from.

        Raises:
            ImageError: When the picture cannot be read.
        """
        side = self.size["height"]
        loaded = load_image(image, short_side=3 * side if self.fast_decode else None)
        return self._views_of(loaded, mode, side, self.resize_backend, generator)

    def _views_of(
        self,
        image: Image.Image,
        mode: ViewMode,
        view_size: int,
        backend: ResizeBackend,
        generator: np.random.Generator | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        global_picture, local_picture = resize_pictures(image, view_size, backend)
        plans = plan_views(mode, local_picture.shape[:2], view_size, generator)
        return cut_views(global_picture, local_picture, plans, view_size)

    def _prepare_image_like_inputs(self, images: Any, *args: Any, **kwargs: Any) -> list[Image.Image]:
        many = list(self.each_picture(images))
        if not many:
            raise ValueError("No pictures: give at least one.")
        short_side = 3 * kwargs["size"]["height"] if kwargs.get("fast_decode") else None
        return [load_image(image, short_side=short_side) for image in many]

    def _preprocess(  # type: ignore[override]  # of the options of all processors, those that views have
        self,
        images: list[Image.Image],
        size: Any = None,
        views: Any = "center",
        resize_backend: Any = "torch",
        do_rescale: bool | None = True,
        rescale_factor: float = 1 / 255,
        do_normalize: bool | None = True,
        image_mean: Any = None,
        image_std: Any = None,
        return_tensors: Any = None,
        **kwargs: Any,
    ) -> BatchFeature:
        side = size["height"]
        if not side or side != size["width"] or side % VIEW_STEP:
            raise ValueError(f"size is {dict(size)}: views are square, and their side is a multiple of {VIEW_STEP}.")
        if views not in ("center", "nine"):
            raise ValueError(f"views must be 'center' or 'nine', not {views!r}; for training views see make_views.")
        pairs = [self._views_of(image, views, side, resize_backend) for image in images]
        data = {}
        for name, arrays in zip(self.model_input_names, zip(*pairs, strict=True), strict=True):
            batch = np.stack([array[0] if views == "center" else array for array in arrays])
            if do_rescale:
                batch = batch * np.float32(rescale_factor)
            if do_normalize:
                channels = (3, 1, 1)
                batch = (batch - np.float32(image_mean).reshape(channels)) / np.float32(image_std).reshape(channels)
            data[name] = batch
        return BatchFeature(data=data, tensor_type=return_tensors)


def _image_column(dataset: Any) -> str:
    """Find the image column of a dataset, which is known by what it offers: this file imports no `datasets`."""
    features = dataset.features or {}
    found = [name for name, feature in features.items() if getattr(feature, "_type", None) == "Image"]
    if len(found) != 1 and "image" not in found:
        columns = ", ".join(map(printable, features)) or "unknown"
        raise ValueError(
            f"The dataset has {'several image columns' if found else 'no image column'} (columns: {columns}): "
            "pass one column of it, as in dataset['image']."
        )
    return "image" if "image" in found else found[0]


SindImageProcessor.register_for_auto_class("AutoImageProcessor")
