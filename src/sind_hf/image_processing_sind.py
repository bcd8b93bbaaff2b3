"""Load images, cut the two views of SIND, and the image processor that does both.

An image goes through three steps, each with its own function: `load_image` (any source to RGB), `resize_images` (the
two resized images that every view is cut from) and `cut_views` (crops and fragments at the places in a `ViewPlan`).
Arrays are uint8, height × width × 3.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import io
import ipaddress
import math
import os
import re
import socket
import stat
import struct
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO, Literal, NamedTuple, Unpack, get_args

import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import ChannelDimension
from transformers.processing_utils import ImagesKwargs
from transformers.utils import logging

from .configuration_sind import GRID, IMAGENET_MEAN, IMAGENET_STD, VIEW_STEP, resolve_checkpoint

logger = logging.get_logger(__name__)

ImageSource = str | os.PathLike | bytes | dict | Image.Image | np.ndarray | torch.Tensor
ViewMode = Literal["train", "center", "nine"]
ResizeBackend = Literal["torch", "pillow"]

# Above this aspect ratio, only the parts of the local image that fragments are cut from are computed.
MAX_FULL_ASPECT = 8
# (vertical, horizontal) places in halves of the free room. The published code visits those of the two views in
# different orders.
NINE_GLOBAL = tuple((i, j) for i in (0, 1, 2) for j in (0, 1, 2))
NINE_LOCAL = ((0, 0), (0, 2), (2, 0), (2, 2), (1, 1), (1, 0), (1, 2), (0, 1), (2, 1))
# The turn that makes an image upright, by EXIF orientation.
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
_TIFF_SHORT = 3  # the type of a tag that holds 16-bit integers


class ImageFormat(NamedTuple):
    """A format of image files. Without decoders it is known, but never decoded."""

    name: str
    suffixes: str  # extensions of its files, separated by blanks
    decoders: tuple[str, ...] = ()  # names of Pillow's decoders
    package: str | None = None  # adds the decoder to Pillow, where Pillow has none
    module: str | None = None  # of that package


# Every format that is known, decoded or not: the only list of them. Pillow has more decoders. Some of those start a
# program (Ghostscript for EPS, whatever the name of the file), and icons are decoded while they are opened, before
# they can be refused.
KNOWN_FORMATS = (
    ImageFormat("JPEG", ".jpg .jpeg .jpe .jfif .mpo", ("JPEG", "MPO")),
    ImageFormat("PNG", ".png .apng", ("PNG",)),
    ImageFormat("WebP", ".webp", ("WEBP",)),
    ImageFormat("AVIF", ".avif .avifs", ("AVIF",), "pillow-avif-plugin", "pillow_avif"),
    ImageFormat("HEIC", ".heic .heif .heics .heifs .hif", ("HEIF",), "pillow-heif", "pillow_heif"),
    ImageFormat("JPEG XL", ".jxl", ("JXL",), "pillow-jxl-plugin", "pillow_jxl"),
    ImageFormat("TIFF", ".tif .tiff", ("TIFF",)),
    ImageFormat("BMP", ".bmp .dib", ("BMP", "DIB")),
    ImageFormat("GIF", ".gif", ("GIF",)),
    ImageFormat("JPEG 2000", ".jp2 .j2k .jpc .jpf .jpx .j2c", ("JPEG2000",)),
    ImageFormat("PPM", ".ppm .pgm .pbm .pnm .pfm", ("PPM",)),
    ImageFormat("TGA", ".tga .icb .vda .vst", ("TGA",)),
    ImageFormat("AVC", ".avci .avcs"),
    ImageFormat("high-throughput JPEG 2000", ".jph .jhc"),
    ImageFormat("JPEG XR", ".jxr .wdp .hdp"),
    ImageFormat("JPEG XS", ".jxs"),
    ImageFormat("OpenEXR", ".exr"),
    ImageFormat("Radiance HDR", ".hdr"),
    ImageFormat("SVG", ".svg .svgz"),
    ImageFormat("EPS", ".eps .epsf"),
    ImageFormat("Photoshop", ".psd .psb"),
    ImageFormat("GIMP", ".xcf"),
    ImageFormat("PCX", ".pcx .dcx"),
    ImageFormat("SGI", ".sgi .rgb .rgba .bw"),
    ImageFormat("Sun raster", ".ras"),
    ImageFormat("DDS", ".dds"),
    ImageFormat("QOI", ".qoi"),
    ImageFormat("ICNS", ".icns"),
    ImageFormat("ICO", ".ico"),
    ImageFormat("X11", ".xbm .xpm"),
    ImageFormat("FITS", ".fits .fit"),
    ImageFormat("BPG", ".bpg"),
    ImageFormat(
        "raw",
        ".dng .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .orf .rw2 .rwl .raf .pef .srw .raw .3fr .fff .erf .kdc .dcr "
        ".k25 .mos .mef .mrw .x3f .iiq .gpr",
    ),
)
# Formats that are decoded, as Pillow names them.
IMAGE_FORMATS: tuple[str, ...] = tuple(name for known in KNOWN_FORMATS for name in known.decoders)
_FORMAT_OF_SUFFIX = {suffix: known for known in KNOWN_FORMATS for suffix in known.suffixes.split()}
FORMAT_OF_DECODER = {name: known for known in KNOWN_FORMATS for name in known.decoders}
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"}
_JXL_CODESTREAM, _JXL_CONTAINER = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"
JXL_BOXES = 10_000  # boxes of a container in which the codestream must begin
# Width over height, by the code in the header of a JPEG XL file.
_JXL_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
# Modes whose colors an ICC profile describes, and the mode that is converted.
_COLOR_MODES = {"RGB": "RGB", "RGBA": "RGB", "P": "RGB", "PA": "RGB", "L": "L", "LA": "L", "CMYK": "CMYK"}
ICC_LIMIT = 2**22  # bytes of a profile; printers' have about 2 million
# A profile is sRGB if it changes no color of a grid of these levels by more than this many levels.
SRGB_LEVELS = (0, 16, 51, 102, 153, 204, 255)
SRGB_TOLERANCE = 2
# What one image may cost. Images with more pixels are refused: 1.5 GB of RGB. Pillow refuses more than 179 million,
# unless told otherwise.
PIXEL_LIMIT = 500_000_000
FILE_LIMIT = 2**30  # bytes
# A large image needs some bytes for its pixels: photographs have less than 50 pixels a byte.
CHEAP_PIXELS = 32_000_000
PIXELS_PER_BYTE = 200
EXIF_LIMIT = 2**16  # bytes; one segment of a JPEG file
# Work before and while pixels are decoded: calls of `read`, and seconds of this thread's processor time.
HEADER_READS = 100_000
HEADER_SECONDS = 5.0
SECONDS_PER_PIXEL = 1e-6
STRIP_PIXELS = 2**22
FAST_DECODE_PIXELS = 4_000_000  # fast_decode="auto" decodes JPEG files of so many pixels at a fraction of their size
COPIED_PIXELS = 2**16  # a copy of so many pixels stays in the processor's cache
# What one download may cost.
DOWNLOAD_LIMIT = 100 * 2**20  # bytes
DOWNLOAD_SECONDS = 30.0
REDIRECT_LIMIT = 5
_URL = re.compile("https?://", re.IGNORECASE)
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # IPv4 addresses in IPv6
_ASSIGNED = ipaddress.ip_network("2000::/3")  # all other public IPv6 addresses
# Options of every image processor that change nothing here, with the values that ask for nothing else.
_FIXED_OPTIONS = {"do_resize": True, "do_center_crop": False, "do_pad": False, "resample": Image.Resampling.BILINEAR}
# Types that can be iterated over and still mean one image, or none.
_ONE_IMAGE = (str, os.PathLike, bytes, bytearray, memoryview, dict, io.IOBase, Image.Image)


class ImageError(ValueError):
    """An image cannot be used; the message says which one and why."""


# --- loading -----------------------------------------------------------------------------------------------------


def load_image(
    source: ImageSource,
    *,
    short_side: int | None = None,
    min_pixels: int = 0,
    private_addresses: bool = False,
    color_management: bool = True,
) -> Image.Image:
    """Load one image of any form as upright 8-bit RGB.

    EXIF orientation is applied, colors are converted from an embedded ICC profile to sRGB, transparency is composited
    on white, and gray, palette, CMYK and 16-bit images are converted. The first frame of an animation is taken. The
    content decides about the format, which must be one of `IMAGE_FORMATS`.

    Args:
        source: A path, an http(s) URL, encoded bytes, a `{"path", "bytes"}` dict as `datasets` stores it, a PIL image,
            or an array or tensor: (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels; uint8, uint16, or
            floating point in [0, 1]. The path of a dict is always a file.
        short_side: Decode a JPEG file at 1/2, 1/4 or 1/8 of its size, which is several times faster, as long as its
            short side keeps this many pixels. `None`: decode it at its full size.
        min_pixels: Decode JPEG files of fewer pixels at their full size in any case.
        private_addresses: Whether a URL may lead to an address that is not public, such as this machine's own.
        color_management: Whether to convert colors from the embedded ICC profile (Display P3, Adobe RGB, a printer's
            CMYK …) to sRGB. The published code does not. A profile that is sRGB, damaged or of another kind of image
            changes nothing.

    Returns:
        A PIL image of mode RGB.

    Raises:
        ImageError: If the source is missing, not a regular file, not an image, damaged, of a wrong shape, or larger
            than `FILE_LIMIT`, `PIXEL_LIMIT` or Pillow's `MAX_IMAGE_PIXELS` allow; or if its download fails or leads to
            an address that is not public.
    """
    if isinstance(source, Image.Image):
        return _from_pil(source, color_management)
    if isinstance(source, torch.Tensor):
        source = source.detach().cpu().float().numpy() if source.is_floating_point() else source.detach().cpu().numpy()
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source), "array")
    name: object = "bytes"
    if isinstance(source, dict):
        source, name = _source_in_dict(source)
    elif isinstance(source, str) and _URL.match(source):
        source, name = _download(source, private_addresses), source
    elif isinstance(source, (str, os.PathLike)):
        name = source
    if not isinstance(source, (str, os.PathLike, bytes)):
        raise ImageError(f"Cannot read an image from {type(source).__name__}: give a path, bytes, PIL image or array.")
    with open_image(source, name) as image:
        size = len(source) if isinstance(source, bytes) else os.path.getsize(source)
        _require_affordable(*image.size, size, printable(name))
        if short_side is not None and image.width * image.height >= min_pixels:
            # Decoders other than JPEG's do nothing here; JPEG's takes a scale that leaves at least this much.
            factor = short_side / min(image.size)
            image.draft(image.mode, (math.ceil(image.width * factor), math.ceil(image.height * factor)))
        return _to_rgb(image, printable(name), color_management)


def _source_in_dict(source: dict) -> tuple[bytes | str | os.PathLike, object]:
    """Return the content or the path in a `{"path", "bytes"}` dict, and the name for messages."""
    data, path = source.get("bytes"), source.get("path")
    if data and isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data), path or "bytes"
    if not data and path and isinstance(path, (str, os.PathLike)):
        return path, path
    raise ImageError("An image given as a dict must hold 'bytes' or 'path'.")


@contextmanager
def open_image(source: bytes | str | os.PathLike, name: object = None) -> Iterator[Image.Image]:
    """Read the header of an image; pixels are decoded on first use. `load_image` refuses costly images before that.

    Args:
        source: Encoded bytes, or the path of a file.
        name: Name of the image in messages. Default: the path, or `bytes`.

    Yields:
        A PIL image as Pillow opens it: `size`, `mode` and `format` are known.

    Raises:
        ImageError: If the image cannot be opened or, in the `with` block, decoded.
    """
    shown = printable(("bytes" if isinstance(source, bytes) else source) if name is None else name)
    with _opened(source, shown) as file, warnings.catch_warnings(), _damage_named(shown):
        # The limits above raise errors. Pillow's warning would not name the file.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        size = file.seek(0, io.SEEK_END)
        if size > FILE_LIMIT:
            raise ImageError(f"{shown}: {size:,} bytes is over the limit of {FILE_LIMIT:,}")
        file.seek(0)
        head = file.read(64)
        Image.init()
        _load_plugin(head, shown)
        file.seek(0)
        if _plugin_decoder(head) == "JXL":
            _require_affordable(*_jxl_size(file.read()), size, shown)
            file.seek(0)
        metered = _MeteredFile(file, size, shown)
        try:
            image = Image.open(metered, formats=[kind for kind in IMAGE_FORMATS if kind in Image.OPEN])
        except UnidentifiedImageError:
            raise ImageError(f"{shown}: {'not an image in a supported format' if size else 'is empty'}") from None
        with image:
            metered.header_is_read(image.width * image.height)
            yield image


def _opened(source: bytes | str | os.PathLike, name: str) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    try:
        return open_regular_file(source)
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: is a folder, not an image") from None
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else None
        raise ImageError(f"{name}: cannot be read ({what or error})") from error


def open_regular_file(path: str | os.PathLike) -> io.BufferedReader:
    """Open a file to read its bytes. Refuse everything but regular files before it is opened.

    Opening a named pipe waits for a writer, and reading a device may never end.

    Raises:
        OSError: If the file does not exist, may not be read, or is not a regular file; `strerror` says which.
    """
    _require_regular(os.stat(path), path)
    # If it has become a pipe by now, opening it must not wait.
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        _require_regular(os.fstat(file.fileno()), path)
    except OSError:
        file.close()
        raise
    return file


def _require_regular(state: os.stat_result, path: str | os.PathLike) -> None:
    if stat.S_ISDIR(state.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(state.st_mode):
        kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(state.st_mode), "a device")
        raise OSError(errno.EINVAL, f"it is {kind}; only regular files are read", os.fspath(path))


def image_suffixes() -> frozenset[str]:
    """Return the extensions of files that can be read with the packages that are installed, in lower case."""
    return frozenset(suffix for suffix, known in _FORMAT_OF_SUFFIX.items() if _is_readable(known))


def why_not_read(suffix: str) -> str | None:
    """Say why image files with an extension (with its dot) are not read.

    Returns:
        One sentence; None when they are read, or when the extension is not one of images.
    """
    known = _FORMAT_OF_SUFFIX.get(suffix.lower())
    if known is None or _is_readable(known):
        return None
    if known.package:
        return f"{known.name} images need the package {known.package}; run: pip install {known.package}"
    return f"{known.name} images are not read; convert it to JPEG, PNG or TIFF"


def _is_readable(known: ImageFormat) -> bool:
    Image.init()
    # MPO has no decoder: the one for JPEG recognizes it.
    return any(name in Image.OPEN for name in known.decoders) or (
        known.module is not None and importlib.util.find_spec(known.module) is not None
    )


def _load_plugin(head: bytes, name: str) -> None:
    """Register the decoder that a file needs, if Pillow lacks it. `head` holds the first bytes of the file."""
    decoder = _plugin_decoder(head)
    if decoder is None or decoder in Image.OPEN:
        return
    known = FORMAT_OF_DECODER[decoder]
    try:
        module = importlib.import_module(str(known.module))
    except ImportError as error:
        raise ImageError(f"{name}: {why_not_read(known.suffixes.split()[0]) or error}") from error
    if decoder == "HEIF":  # the other packages register themselves
        module.register_heif_opener()


def _plugin_decoder(head: bytes) -> str | None:
    """Return which decoder that Pillow may lack a file needs."""
    if head.startswith((_JXL_CODESTREAM, _JXL_CONTAINER)):
        return "JXL"
    if head[4:8] != b"ftyp":
        return None
    brands = {head[start : start + 4] for start in range(8, len(head), 4)}
    return "AVIF" if brands & _AVIF_BRANDS else "HEIF" if brands & _HEIC_BRANDS else None


def _jxl_size(data: bytes) -> tuple[int, int]:
    """Read width and height from the header of a JPEG XL file, whose decoder would decode it at once."""
    if data.startswith(_JXL_CONTAINER):
        data = _jxl_codestream(data)
    if not data.startswith(_JXL_CODESTREAM):
        raise ValueError("no header of JPEG XL")
    bits, place = int.from_bytes(data[2:14].ljust(12, b"\0"), "little"), 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return bits >> (place - count) & (1 << count) - 1

    is_small = read(1)

    def read_side() -> int:
        return (read(5) + 1) * 8 if is_small else read((9, 13, 18, 30)[read(2)]) + 1

    height = read_side()
    ratio = read(3)
    if ratio:
        across, down = _JXL_RATIOS[ratio]
        return height * across // down, height
    return read_side(), height


def _jxl_codestream(data: bytes) -> bytes:
    """Return the first bytes of the codestream in a container of JPEG XL, which may be cut into parts."""
    found, place = b"", 0
    for _ in range(JXL_BOXES):
        if place + 16 > len(data):
            break
        size, kind, long_size = struct.unpack_from(">L4sQ", data, place)
        header = 16 if size == 1 else 8
        end = place + (long_size if size == 1 else size) if size else len(data)
        if end < place + header:
            break
        if kind in (b"jxlc", b"jxlp"):
            start = place + header + (4 if kind == b"jxlp" else 0)  # a number comes before each part
            found += data[start : min(end, start + 16)]
        if len(found) >= 16:
            break
        place = end
    return found


class _MeteredFile:
    """A file for Pillow's decoders that stops them when an image costs far more than its size suggests.

    A few megabytes of comments, metadata that point at the same bytes again and again, or thousands of scans over the
    same pixels would otherwise hold a process for minutes, or take all its memory.
    """

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self._file = file
        self._name = name
        self._bytes_left = 4 * size + 2**24
        self._reads_left: float = HEADER_READS
        self._exif = 0
        self._end = time.thread_time() + HEADER_SECONDS

    def header_is_read(self, pixels: int) -> None:
        """Allow as much work as decoding that many pixels may take."""
        self._reads_left = math.inf
        self._end = time.thread_time() + HEADER_SECONDS + pixels * SECONDS_PER_PIXEL

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self._reads_left -= 1
        self._bytes_left -= len(data)
        if data.startswith(b"Exif\0\0"):  # a segment of a JPEG file; Pillow joins them
            self._exif += len(data)
        if self._exif > EXIF_LIMIT:
            raise ImageError(f"{self._name}: more than {EXIF_LIMIT:,} bytes of EXIF; save it without metadata")
        if self._reads_left < 0 or self._bytes_left < 0 or time.thread_time() > self._end:
            raise ImageError(f"{self._name}: takes far more work to decode than an image of its size; save it again")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _require_affordable(width: int, height: int, size: int, name: str) -> None:
    """Refuse an image by what its header says, before memory is taken for its pixels. `size` is the file's."""
    pixels = width * height
    if pixels > PIXEL_LIMIT:
        raise ImageError(f"{name}: {width}x{height} pixels is over the limit of {PIXEL_LIMIT}")
    if pixels > CHEAP_PIXELS and pixels > PIXELS_PER_BYTE * size:
        raise ImageError(
            f"{name}: {width}x{height} pixels from {size:,} bytes is more than {PIXELS_PER_BYTE} pixels a "
            "byte; scale the image down"
        )


@contextmanager
def _damage_named(name: str) -> Iterator[None]:
    """Turn what Pillow's decoders raise on damaged data into an `ImageError` of one line."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ImageError(
            f"{name}: more pixels than Pillow's limit of {limit:,}; scale it down, or raise PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except Exception as error:  # decoders raise whatever damaged data leads them to
        text = error.strerror if isinstance(error, OSError) else str(error)  # without the name that it repeats
        what = printable(" ".join((text or str(error)).split())) or type(error).__name__
        raise ImageError(f"{name}: damaged or unreadable image ({what})") from error


def printable(text: object, length: int = 300) -> str:
    """Make a name, a path or a message safe to print: one line of at most `length` characters that steer no terminal.

    Control characters (line ends and ESC among them), bidirectional overrides, and the bytes of a name that is not
    UTF-8 are written as escapes. The middle of a long text, such as a base64 string given as a path, is left out.
    """
    whole = os.fsdecode(text) if isinstance(text, (bytes, os.PathLike)) else str(text)
    if len(whole) > 2 * length:  # cut first: the text may have millions of characters
        whole = whole[:length] + whole[-length:]
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in whole)
    if len(escaped) <= length:
        return escaped
    tail = length // 2  # the end of a path tells more than its middle
    return f"{escaped[: length - tail - 1]}…{escaped[-tail:]}"


def _from_pil(image: Image.Image, color_management: bool) -> Image.Image:
    name = printable(getattr(image, "filename", "") or "image")
    # A file that Pillow has opened is decoded only here. For PostScript, Pillow would start a program.
    if getattr(image, "tile", None) and image.format not in IMAGE_FORMATS:
        raise ImageError(f"{name}: images in the format {image.format} are not decoded; call its load() before")
    with _damage_named(name):
        found = _to_rgb(image, name, color_management)
        return found.copy() if found is image else found


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (3, 4)) or 0 in array.shape:
        raise ImageError(f"array: shape {array.shape} is not an image; expected (H, W), (H, W, C) or (C, H, W)")
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


def _to_rgb(image: Image.Image, name: str, color_management: bool = False) -> Image.Image:
    if 0 in image.size:
        raise ImageError(f"{name}: the image has no pixels ({image.width}x{image.height})")
    image = _upright(image)
    if image.mode.startswith("I"):
        # Wider integers hold 8-bit levels unless one is above 255.
        is_deep = image.mode != "I" or image.getextrema()[1] > 255  # type: ignore[operator]
        levels = _high_byte if is_deep else _low_byte
        image = _in_strips(image, lambda strip: Image.fromarray(levels(np.asarray(strip))))
    elif image.mode == "F":
        if not all(np.isfinite(np.asarray(image.crop(box))).all() for box in _strips(image)):
            raise ImageError(f"{name}: floating-point pixels must be finite")
        scale = 255 if is_in_unit_range(image) else 1
        image = _in_strips(image, lambda strip: Image.fromarray(_low_byte(np.rint(np.asarray(strip) * scale))))
    transform = _srgb_transform_of(image) if color_management else None
    if transform is not None:
        return _in_strips(image, lambda strip: _in_srgb(strip, transform))
    if image.has_transparency_data:
        return _in_strips(image, _on_white)
    return image if image.mode == "RGB" else image.convert("RGB")


def _srgb_transform_of(image: Image.Image) -> ImageCms.ImageCmsTransform | None:
    """Return the transform of an image from its embedded profile to sRGB; None if none is needed."""
    profile = image.info.get("icc_profile")
    mode = _COLOR_MODES.get(image.mode)
    if mode is None or not isinstance(profile, bytes) or not 0 < len(profile) <= ICC_LIMIT:
        return None
    return _srgb_transform(profile, mode)


@lru_cache(maxsize=8)
def _srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Make the transform from a profile to sRGB; None if the profile is sRGB, damaged or of another mode.

    The images of a camera share one profile, so it is made once.
    """
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if transform is None or mode == "CMYK":
            return transform
        levels = np.array(SRGB_LEVELS, np.uint8)
        grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
        colors = Image.fromarray(grid if mode == "RGB" else levels[None])
        changed = np.asarray(ImageCms.applyTransform(colors, transform), int) - np.asarray(colors.convert("RGB"))
    except (ImageCms.PyCMSError, ImportError, OSError, TypeError, ValueError):
        return None
    return transform if np.abs(changed).max() > SRGB_TOLERANCE else None


def _in_srgb(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    """Convert colors to sRGB, then composite what is transparent on white."""
    # By way of RGBA, since Pillow would mix a palette's transparent colors in.
    colors = image.convert("RGBA").convert("RGB") if image.mode in ("P", "PA") else image
    converted = ImageCms.applyTransform(colors.convert(_COLOR_MODES[image.mode]), transform)
    assert converted is not None  # only a conversion in place returns nothing
    if not image.has_transparency_data:
        return converted
    converted.putalpha(image.convert("RGBA").getchannel("A"))
    return _on_white(converted)


def is_in_unit_range(source: Any) -> bool:
    """Tell whether the pixels of a source are floating-point numbers in [0, 1]. Those of files never are."""
    if isinstance(source, torch.Tensor):
        return source.is_floating_point()
    if isinstance(source, np.ndarray):
        return bool(np.issubdtype(source.dtype, np.floating))
    return isinstance(source, Image.Image) and source.mode == "F" and source.getextrema()[1] <= 1  # type: ignore[operator]


def _strips(image: Image.Image, pixels: int = STRIP_PIXELS) -> Iterator[tuple[int, int, int, int]]:
    """Yield boxes that cover an image, each as wide as the image and of about so many pixels."""
    rows = max(1, pixels // image.width)
    for top in range(0, image.height, rows):
        yield 0, top, image.width, min(top + rows, image.height)


def _in_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert an image to RGB strip by strip, since a large one would be in memory several times."""
    whole = Image.new("RGB", image.size)
    for box in _strips(image):
        whole.paste(convert(image.crop(box)).convert("RGB"), box)
    return whole


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)


def _upright(image: Image.Image) -> Image.Image:
    """Turn an image as EXIF says. Pillow's `exif_transpose` rewrites all of EXIF, and fails on tags of odd types."""
    image.load()  # some formats keep EXIF behind the pixels
    turn = _TURNS.get(_orientation(image))
    if turn is None:
        return image
    turned = image.transpose(turn)
    for name in _ORIENTATION_IS_IN:  # it is upright now
        turned.info.pop(name, None)
    return turned


def _orientation(image: Image.Image) -> object:
    """Return the EXIF orientation, or None if the image has none.

    Other tags are not read: `Image.getexif` copies the values of all of them, which may overlap, so that a megabyte
    of EXIF can take gigabytes.
    """
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        return None  # its decoder has turned it, and EXIF does not count
    if "exif" not in image.info and len(image.info.get("Raw profile type exif", "")) > 2 * EXIF_LIMIT:
        return None
    try:
        exif = image.info.get("exif") or b""
        if not exif and "Raw profile type exif" in image.info:
            exif = bytes.fromhex("".join(image.info["Raw profile type exif"].split("\n")[3:]))
        found = _orientation_in(exif.removeprefix(b"Exif\0\0"))
    except (AttributeError, IndexError, TypeError, ValueError, struct.error):
        found = None  # EXIF that cannot be read has no orientation
    if found is None and (tags := getattr(image, "tag_v2", None)) is not None:  # a TIFF file is made of such tags
        found = tags.get(ExifTags.Base.Orientation)
    if found is None:
        xmp = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp") or b""
        text = xmp.decode("latin-1") if isinstance(xmp, bytes) else str(xmp)
        if match := re.search(r'tiff:Orientation(?:="|>)([0-9])', text):
            found = int(match[1])
    return found


def _orientation_in(exif: bytes) -> int | None:
    """Find the orientation in the first list of tags of EXIF data, which is a TIFF file without pixels."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return None
    (place,) = struct.unpack_from(f"{order}L", exif, 4)
    (count,) = struct.unpack_from(f"{order}H", exif, place)
    for number in range(count):
        tag, kind, length, value = struct.unpack_from(f"{order}HHLH", exif, place + 2 + 12 * number)
        if tag == ExifTags.Base.Orientation and kind == _TIFF_SHORT and length == 1:
            return int(value)
    return None


def _high_byte(array: np.ndarray) -> np.ndarray:
    """Map 16-bit gray levels to 8 bits."""
    return ((np.clip(array, 0, 65535).astype(np.uint32) + 128) // 257).astype(np.uint8)


def _low_byte(array: np.ndarray) -> np.ndarray:
    return np.clip(array, 0, 255).astype(np.uint8)


# --- downloading -------------------------------------------------------------------------------------------------


def _download(address: str, private_addresses: bool) -> bytes:
    """Download what a URL leads to, within `DOWNLOAD_LIMIT`, `DOWNLOAD_SECONDS` and `REDIRECT_LIMIT`."""
    name = printable(address)
    try:
        # Needed for URLs alone. huggingface_hub depends on them, and transformers on huggingface_hub.
        import httpcore
        import httpx
    except ImportError as error:
        raise ImageError(f"{name}: downloading an image needs the package httpx; run: pip install httpx") from error
    network = _BoundedNetwork(httpcore.SyncBackend(), time.monotonic() + DOWNLOAD_SECONDS)
    try:
        url = httpx.URL(address)  # quotes blanks and characters beyond ASCII
        for _ in range(REDIRECT_LIMIT + 1):
            if url.scheme not in ("http", "https") or not url.host:
                raise ImageError(f"{name}: leads to {printable(url)}, which is not an http(s) URL")
            proxy = _proxy(url.scheme, url.host)
            # A proxy looks up the name and connects; a host that is an address is checked here, too.
            network.public_only = not (private_addresses or proxy)
            if proxy and not private_addresses and _is_local(url.host):
                raise _NotPublicError(f"{url.host} is not a public address")
            target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
            headers: list[tuple[bytes | str, bytes | str]] = [
                ("Host", url.netloc),
                ("User-Agent", "sind-hf"),
                ("Accept-Encoding", "identity"),
            ]
            with (
                httpcore.ConnectionPool(
                    ssl_context=httpx.create_ssl_context()
                    if "https" in (url.scheme, proxy.partition(":")[0])
                    else None,
                    proxy=httpcore.Proxy(proxy) if proxy else None,
                    network_backend=network,  # type: ignore[arg-type]
                ) as pool,
                pool.stream("GET", target, headers=headers) as response,
            ):
                received = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in response.headers}
                if response.status in (301, 302, 303, 307, 308) and "location" in received:
                    url = url.join(received["location"])
                    continue
                if response.status != 200:
                    raise ImageError(f"{name}: download failed (HTTP status {response.status})")
                if received.get("content-encoding", "identity") != "identity":
                    raise ImageError(f"{name}: download failed (the server compresses what it was asked not to)")
                return _body(response.iter_stream(), received.get("content-length", ""), name)
        raise ImageError(f"{name}: more than {REDIRECT_LIMIT} redirects")
    except _NotPublicError as error:
        raise ImageError(f"{name}: {error}; pass private_addresses=True to allow it") from None
    except ImageError:
        raise
    except (TimeoutError, httpcore.TimeoutException):
        raise ImageError(f"{name}: download failed (it takes longer than {DOWNLOAD_SECONDS:g} seconds)") from None
    except Exception as error:  # of the client, of TLS and of the operating system
        what = printable(" ".join(str(error).split())) or type(error).__name__
        raise ImageError(f"{name}: download failed ({what})") from None


def _body(blocks: Iterable[bytes], announced: str, name: str) -> bytes:
    too_large = ImageError(f"{name}: the download is larger than the limit of {DOWNLOAD_LIMIT:,} bytes")
    if announced.isdecimal() and int(announced[:20]) > DOWNLOAD_LIMIT:
        raise too_large
    body = bytearray()
    for block in blocks:
        body += block
        if len(body) > DOWNLOAD_LIMIT:
            raise too_large
    return bytes(body)


def _proxy(scheme: str, host: str) -> str:
    """Return the proxy that the environment names for a host, empty for none."""
    if urllib.request.proxy_bypass(host):
        return ""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(scheme) or proxies.get("all") or ""
    return proxy if "://" in proxy or not proxy else f"http://{proxy}"


class _NotPublicError(Exception):
    """A host has an address of this machine, of a private network, or of another kind that is not public."""


class _BoundedNetwork:
    """A network for httpcore that connects to public addresses only, and ends in time, whatever a server sends."""

    def __init__(self, network: Any, end: float) -> None:
        self.network = network  # of httpcore
        self.end = end  # by `time.monotonic`
        self.public_only = True

    def seconds_left(self) -> float:
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def connect_tcp(
        self, host: str, port: int, timeout: Any = None, local_address: Any = None, socket_options: Any = None
    ) -> _BoundedStream:
        self.seconds_left()
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(place[0]) for *_, place in found))
        if self.public_only and (bad := [address for address in addresses if not _is_public(address)]):
            behind = "" if bad[0] == host else f" is at {bad[0]}, which"
            raise _NotPublicError(f"{host}{behind} is not a public address")
        for number, address in enumerate(addresses, start=1):
            try:
                # Connect to the address that was checked, not to what the name server answers a second time.
                stream = self.network.connect_tcp(
                    address, port, self.seconds_left(), local_address, socket_options=socket_options
                )
                return _BoundedStream(stream, self)
            except Exception:
                if number == len(addresses):
                    raise
        raise OSError(f"{host} has no address")


class _BoundedStream:
    """A connection of `_BoundedNetwork`."""

    def __init__(self, stream: Any, network: _BoundedNetwork) -> None:
        self.stream = stream
        self.network = network

    def read(self, max_bytes: int, timeout: Any = None) -> bytes:
        return self.stream.read(max_bytes, self.network.seconds_left())

    def write(self, buffer: bytes, timeout: Any = None) -> None:
        self.stream.write(buffer, self.network.seconds_left())

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: Any = None) -> _BoundedStream:
        left = self.network.seconds_left()
        return _BoundedStream(self.stream.start_tls(ssl_context, server_hostname, left), self.network)

    def close(self) -> None:
        self.stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self.stream.get_extra_info(info)


def _is_public(address: str) -> bool:
    """Tell whether an IP address is public, and with it every IPv4 address that an IPv6 address contains."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        behind = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in _TRANSLATED or int(ip) < 2**32:  # the IPv4-compatible addresses of old
            behind.append(ipaddress.IPv4Address(int(ip) % 2**32))
        if not all(_is_public(str(inner)) for inner in behind if inner is not None):
            return False
        if ip.ipv4_mapped is not None:
            return True
        if ip not in _ASSIGNED and ip not in _TRANSLATED:
            return False
    return ip.is_global and not ip.is_multicast


def _is_local(host: str) -> bool:
    """Tell whether a host that a proxy would connect to is certainly not public: `localhost` or such an address."""
    host = host.strip("[]").rstrip(".")
    with suppress(OSError):
        host = socket.inet_ntoa(socket.inet_aton(host))  # also written as 127.1, 2130706433 or 0x7f000001
    try:
        return not _is_public(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


# --- view geometry -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ViewPlan:
    """Where one pair of views is cut. All offsets are in pixels of the two resized images.

    Attributes:
        crop: (top, left) of the global crop in the 8s/7 × 8s/7 image.
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


def local_image_size(width: int, height: int, view_size: int = 224) -> tuple[int, int]:
    """Return (height, width) of the local image: short side 3s, long side `int(3s·long/short)`."""
    short = 3 * view_size
    if width <= height:
        return int(short * height / width), short
    return short, int(short * width / height)


def plan_views(
    mode: ViewMode, local_size: tuple[int, int], view_size: int = 224, generator: np.random.Generator | None = None
) -> list[ViewPlan]:
    """Decide where the views of an image are cut (method: two views of an image).

    Args:
        mode: `"center"`: one pair, everything centered. `"nine"`: nine pairs at fixed places. `"train"`: one pair at
            random places, each view flipped with probability ½.
        local_size: (height, width) of the local image, from `local_image_size`.
        view_size: Side s of the views, in pixels.
        generator: Source of randomness, required for `"train"` and unused otherwise.

    Returns:
        1 or 9 plans.

    Raises:
        ValueError: If the mode is unknown, or `"train"` comes without a generator.
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


def resize_images(
    image: Image.Image, view_size: int = 224, backend: ResizeBackend = "torch"
) -> tuple[np.ndarray, np.ndarray | StripImage]:
    """Make the two resized images that all views of an RGB image are cut from.

    Args:
        image: RGB, any size.
        view_size: Side s of the views.
        backend: `"pillow"` is the published resize bit for bit; `"torch"` is several times faster on large images
            and within 1 gray level on 99.99 % of the values, never more than 2 off.

    Returns:
        The global image, uint8 (8s/7, 8s/7, 3), and the local image, uint8 with short side 3s. Above an aspect ratio
        of 8:1, the latter is a `StripImage`, which computes only what is cut from it.
    """
    side = 8 * view_size // 7
    height, width = local_image_size(*image.size, view_size)
    if max(height, width) > MAX_FULL_ASPECT * min(height, width):
        return _resize(image, (side, side)), StripImage(image, (height, width))
    if backend == "pillow":
        return _resize(image, (side, side)), _resize(image, (height, width))
    if backend != "torch":
        raise ValueError(f"resize backend must be 'torch' or 'pillow', not {backend!r}.")
    # Adding the batch dimension first makes the strides channels-last: torch's fast path for uint8, without a copy.
    pixels = torch.from_numpy(_as_array(image))[None].permute(0, 3, 1, 2)
    resized = (
        torch.nn.functional.interpolate(pixels, size=size, mode="bilinear", antialias=True)[0]
        for size in ((side, side), (height, width))
    )
    global_image, local_image = (each.permute(1, 2, 0).numpy() for each in resized)
    return global_image, local_image


def _resize(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))


def _as_array(image: Image.Image) -> np.ndarray:
    """Copy the pixels of an RGB image, a few rows at a time: Pillow's own way copies the whole image thrice."""
    array = np.empty((image.height, image.width, 3), np.uint8)
    for box in _strips(image, COPIED_PIXELS):
        _, top, _, bottom = box
        array[top:bottom] = np.asarray(image.crop(box))
    return array


class StripImage:
    """A local image of a size (height, width) too large to make: only the seven strips with fragments are resized.

    A 20,000×50 panorama would otherwise become 268,800×672 pixels.
    """

    def __init__(self, image: Image.Image, size: tuple[int, int]) -> None:
        self.image = image
        self.shape = (*size, 3)

    def take(self, ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
        """Return the pixels at rows `ys` and columns `xs`, both `GRID` ascending runs, as (len(ys), len(xs), 3)."""
        height, width, _ = self.shape
        if width >= height:
            scale = self.image.width / width
            strips = [
                self._resized((run[0] * scale, 0, (run[-1] + 1) * scale, self.image.height), (len(run), height))
                for run in np.split(xs, GRID)
            ]
            return np.concatenate(strips, axis=1)[ys]
        scale = self.image.height / height
        strips = [
            self._resized((0, run[0] * scale, self.image.width, (run[-1] + 1) * scale), (width, len(run)))
            for run in np.split(ys, GRID)
        ]
        return np.concatenate(strips, axis=0)[:, xs]

    def _resized(self, box: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
        return np.asarray(self.image.resize(size, Image.Resampling.BILINEAR, box=box))


def cut_views(
    global_image: np.ndarray,
    local_image: np.ndarray | StripImage,
    plans: Sequence[ViewPlan],
    view_size: int = 224,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the global crops and join the fragments that the plans name.

    Returns:
        Global and local views, both uint8 (T, 3, s, s) for T plans.
    """
    fragment = view_size // GRID
    cell_y, cell_x = local_image.shape[0] // GRID, local_image.shape[1] // GRID
    global_views = np.empty((len(plans), 3, view_size, view_size), np.uint8)
    local_views = np.empty_like(global_views)
    for t, plan in enumerate(plans):
        top, left = plan.crop
        crop = global_image[top : top + view_size, left : left + view_size]
        ys = _fragment_indices(plan.rows, cell_y, fragment)
        xs = _fragment_indices(plan.columns, cell_x, fragment)
        if isinstance(local_image, StripImage):
            joined = local_image.take(ys, xs)
        else:
            # Runs of columns are copied whole: picking single pixels takes eight times as long.
            rows = local_image[ys]
            joined = np.concatenate([rows[:, x : x + fragment] for x in xs[::fragment]], axis=1)
        global_views[t] = (crop[:, ::-1] if plan.flip_global else crop).transpose(2, 0, 1)
        local_views[t] = (joined[:, ::-1] if plan.flip_local else joined).transpose(2, 0, 1)
    return global_views, local_views


def _fragment_indices(offsets: Sequence[int], cell: int, fragment: int) -> np.ndarray:
    starts = np.arange(GRID) * cell + np.asarray(offsets)
    return (starts[:, None] + np.arange(fragment)).reshape(-1)


# --- the image processor -----------------------------------------------------------------------------------------


def _decoded_fraction(fast_decode: Any, view_size: int) -> dict[str, Any]:
    """Return the options of `load_image` for a setting of `fast_decode`."""
    if fast_decode not in (True, False, None, "auto"):
        raise ValueError(f"fast_decode must be True, False or 'auto', not {fast_decode!r}.")
    if not fast_decode:
        return {}
    return {"short_side": 3 * view_size, "min_pixels": FAST_DECODE_PIXELS if fast_decode == "auto" else 0}


class SindImagesKwargs(ImagesKwargs, total=False):
    """Options beyond those of every image processor; `SindImageProcessor` describes them."""

    views: str | None
    resize_backend: str | None
    fast_decode: bool | str | None
    color_management: bool | None


class SindImageProcessor(PilBackend):
    """Turn images into the global and local views that a `SindModel` reads.

    Args:
        size: `{"height": s, "width": s}`, the side of both views. Default 224.
        views: `"center"` (one pair of views per image) or `"nine"` (nine pairs, whose scores the model averages).
        resize_backend: `"torch"` or `"pillow"`, see `resize_images`.
        fast_decode: Whether to decode JPEG files that are at least twice as large as the views need (short side 6s) at
            1/2, 1/4 or 1/8 of their size: several times faster, and slightly other scores. `"auto"` does so from 4
            megapixels on, where it saves the most time. Off by default.
        color_management: Whether to convert colors from embedded ICC profiles to sRGB, see `load_image`. On by
            default; off, images are read as the published code reads them.
        do_rescale: Whether to multiply pixels, which are 0 to 255 then, by `rescale_factor`. Otherwise they keep the
            range in which they were given: arrays and tensors of floating-point numbers are in [0, 1].
        do_normalize: Whether to normalize with `image_mean` and `image_std` (ImageNet's). With neither, the views are
            uint8 whatever was given, and the model normalizes them on its own device.

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
    fast_decode: bool | Literal["auto"] = False
    color_management = True
    do_rescale = True
    do_normalize = True
    image_mean = IMAGENET_MEAN
    image_std = IMAGENET_STD

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the options of the base class, passed on
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> Any:
        """Load the image processor of a checkpoint: a folder, a Hub repository ID, or `"bundled"`."""
        return super().from_pretrained(resolve_checkpoint(pretrained_model_name_or_path), **kwargs)

    def __init__(self, **kwargs: Unpack[SindImagesKwargs]) -> None:
        super().__init__(**kwargs)  # type: ignore[misc]  # the base class takes all of `valid_kwargs`

    def __call__(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        """Make the views of one or several images.

        Args:
            images: One image or several (see `each_image`), in any form that `load_image` takes.
            *args: Passed on to `BaseImageProcessor.preprocess`.
            **kwargs: Options of this call, as in the constructor; `return_tensors="pt"` for tensors.

        Returns:
            `pixel_values` and `local_pixel_values`: (B, 3, s, s) for `"center"`, (B, 9, 3, s, s) for `"nine"`.

        Raises:
            ImageError: If an image cannot be read.
            TypeError: If an option is unknown.
            ValueError: If the value of an option cannot be used.
        """
        return super().__call__(images, *args, **kwargs)

    @staticmethod
    def each_image(images: Any) -> Iterator[Any]:
        """Iterate over one image or several in any container: a list, a column, an array of paths, a generator.

        Strings, bytes, dicts, PIL images, open files, and arrays of numbers of up to three dimensions are one image.
        For a dataset of Hugging Face `datasets`, its image column is used.

        Raises:
            ValueError: If a dataset has no image column, or has several of which none is called `image`.
        """
        if hasattr(images, "column_names") and hasattr(images, "select_columns"):
            column = _image_column(images)
            images = images.select_columns([column])
            feature: Any = (images.features or {}).get(column)
            if hasattr(images, "__len__") and getattr(feature, "_type", None) == "Image":
                # Undecoded, so that `load_image` alone decides which formats are decoded.
                images = images.cast_column(column, type(feature)(decode=False))
            return (row[column] for row in images)
        if isinstance(images, np.ndarray) and images.dtype.kind in "OSTU":  # an array of names or of images
            return iter(images)
        if isinstance(images, (np.ndarray, torch.Tensor)):
            return iter([images] if images.ndim <= 3 else images)
        is_one = isinstance(images, _ONE_IMAGE) or not isinstance(images, Iterable)
        return iter([images] if is_one else images)

    def make_views(
        self, image: ImageSource, mode: ViewMode = "center", generator: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Load an image and cut its views: uint8 (T, 3, s, s) each, before normalization.

        Args:
            image: Anything that `load_image` takes.
            mode: `"center"`, `"nine"` or `"train"`.
            generator: Source of the random places and flips, for `"train"`.

        Raises:
            ImageError: If the image cannot be read.
        """
        side = self.size["height"]
        fraction = _decoded_fraction(self.fast_decode, side)
        loaded = load_image(image, color_management=self.color_management, **fraction)
        return self._views_of(loaded, mode, side, self.resize_backend, generator)

    def _views_of(
        self,
        image: Image.Image,
        mode: ViewMode,
        view_size: int,
        backend: ResizeBackend,
        generator: np.random.Generator | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        global_image, local_image = resize_images(image, view_size, backend)
        plans = plan_views(mode, local_image.shape[:2], view_size, generator)
        return cut_views(global_image, local_image, plans, view_size)

    def _prepare_image_like_inputs(self, images: Any, *args: Any, **kwargs: Any) -> list[tuple[Image.Image, bool]]:
        """Load the images. Return with each whether its pixels were floating-point numbers in [0, 1]."""
        many = list(self.each_image(images))
        if not many:
            raise ValueError("No images: give at least one.")
        fraction = _decoded_fraction(kwargs.get("fast_decode"), kwargs["size"]["height"])
        layout = kwargs.get("input_data_format")
        options = {"color_management": kwargs.get("color_management", True), **fraction}
        return [(load_image(_channels_last(image, layout), **options), is_in_unit_range(image)) for image in many]

    def _preprocess(  # type: ignore[override]  # of the options of all processors, those that views have
        self,
        images: list[tuple[Image.Image, bool]],
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
        if ignored := sorted(name for name, usual in _FIXED_OPTIONS.items() if kwargs.get(name) not in (None, usual)):
            logger.warning_once(f"SindImageProcessor ignores {', '.join(ignored)}: its views are always cut one way.")
        # Views hold 8-bit levels. Without rescaling, pixels keep the range in which they were given.
        factors = [rescale_factor if do_rescale else 1 / 255 if in_unit_range else 1 for _, in_unit_range in images]
        if do_normalize:
            mean, std = _per_channel("image_mean", image_mean), _per_channel("image_std", image_std)
            if (std <= 0).any():
                raise ValueError(f"image_std is {image_std}: all its values must be positive.")
            if not do_rescale and 1 in factors and mean.max() <= 1:
                logger.warning_once(
                    "Pixels from 0 to 255 are normalized with a mean for pixels from 0 to 1, because of "
                    "do_rescale=False: scores will be wrong. Leave do_rescale out, or give pixels from 0 to 1."
                )
        pairs = [self._views_of(image, views, side, resize_backend) for image, _ in images]
        data = {}
        for name, arrays in zip(self.model_input_names, zip(*pairs, strict=True), strict=True):
            batch = np.stack([array[0] if views == "center" else array for array in arrays])
            if do_rescale or do_normalize:
                each = np.asarray(factors, np.float32).reshape(-1, *(1,) * (batch.ndim - 1))
                batch = np.multiply(batch, each, dtype=np.float32)
            if do_normalize:
                # In place, since the memory of a new array costs more than the arithmetic.
                batch -= mean
                batch /= std
            data[name] = batch
        return BatchFeature(data=data, tensor_type=return_tensors)


def differentiable_views(
    images: torch.Tensor, processor: SindImageProcessor | None = None, views: ViewMode | None = None
) -> BatchFeature:
    """Cut the views of a tensor in such a way that gradients reach its pixels: SIND as a loss or a reward.

    Values agree with those of the processor within 2 gray levels, since nothing is rounded to 8 bits on the way.
    Computed in float32 on the device of the images, autocast or not.

    Args:
        images: (B, 3, H, W), floating point, RGB in [0, 1].
        processor: Image processor of the checkpoint, for the size of the views, mean and standard deviation. Default:
            views of 224 pixels, normalized with ImageNet's.
        views: `"center"` or `"nine"`. Default: the processor's own setting.

    Returns:
        `pixel_values` and `local_pixel_values`, normalized float32: (B, 3, s, s) for `"center"`, (B, 9, 3, s, s) for
        `"nine"`.

    Raises:
        ValueError: If the images have another shape or type, or `views` is neither.

    Example:
        >>> import torch
        >>> from sind_hf import differentiable_views
        >>> images = torch.rand(2, 3, 120, 160, requires_grad=True)
        >>> differentiable_views(images)["pixel_values"].sum().backward()
        >>> tuple(images.grad.shape)
        (2, 3, 120, 160)
    """
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape or not images.is_floating_point():
        raise ValueError(
            f"images have shape {tuple(images.shape)} and type {images.dtype}: expected a floating-point tensor "
            "(B, 3, H, W) with values in [0, 1]."
        )
    processor = processor or SindImageProcessor()
    mode = views or processor.views
    if mode not in ("center", "nine"):
        raise ValueError(f"views must be 'center' or 'nine', not {mode!r}.")
    side = processor.size["height"]
    height, width = images.shape[2:]
    square = (8 * side // 7, 8 * side // 7)
    local = local_image_size(width, height, side)
    cell_y, cell_x, fragment = local[0] // GRID, local[1] // GRID, side // GRID
    mean, std = (
        torch.from_numpy(_per_channel(name, getattr(processor, name)).copy()).to(images.device)
        for name in ("image_mean", "image_std")
    )

    def cut(rows: np.ndarray, columns: np.ndarray, resized: tuple[int, int]) -> torch.Tensor:
        # Resizing is linear: only the pixels that a view keeps are computed, whatever the shape of the image.
        vertical = _resize_weights(rows, height, resized[0]).to(images.device)
        horizontal = _resize_weights(columns, width, resized[1]).to(images.device)
        return (vertical @ pixels @ horizontal.T - mean) / std

    global_views, local_views = [], []
    with torch.autocast(images.device.type, enabled=False):
        pixels = images.float()
        for plan in plan_views(mode, local, side):
            top, left = plan.crop
            global_views.append(cut(top + np.arange(side), left + np.arange(side), square))
            rows = _fragment_indices(plan.rows, cell_y, fragment)
            columns = _fragment_indices(plan.columns, cell_x, fragment)
            local_views.append(cut(rows, columns, local))
        joined = (v[0] if mode == "center" else torch.stack(v, dim=1) for v in (global_views, local_views))
        return BatchFeature(dict(zip(SindImageProcessor.model_input_names, joined, strict=True)))


def _resize_weights(places: np.ndarray, source: int, target: int) -> torch.Tensor:
    """Return the matrix (len(places), source) that makes pixels of a row resized from `source` to `target` pixels.

    The triangle of Pillow's and torch's antialiased bilinear resize: as wide as an output pixel, at least as an input
    pixel.
    """
    scale = source / target
    centers = (torch.from_numpy(places).double() + 0.5) * scale
    distance = (torch.arange(source, dtype=torch.float64) + 0.5 - centers[:, None]).abs()
    weights = (1 - distance / max(scale, 1)).clamp_min(0)
    return (weights / weights.sum(1, keepdim=True)).float()


def _image_column(dataset: Any) -> str:
    """Return the name of a dataset's image column. This file does not import `datasets`."""
    features = dataset.features or {}
    found = [name for name, feature in features.items() if getattr(feature, "_type", None) == "Image"]
    if len(found) != 1 and "image" not in found:
        columns = ", ".join(map(printable, features)) or "unknown"
        raise ValueError(
            f"The dataset has {'several image columns' if found else 'no image column'} (columns: {columns}): "
            "pass one column of it, as in dataset['image']."
        )
    return "image" if "image" in found else found[0]


def _channels_last(image: Any, layout: Any) -> Any:
    """Move the channels of an array or a tensor last where `input_data_format` says that they come first."""
    if not isinstance(image, (np.ndarray, torch.Tensor)) or image.ndim != 3 or layout is None:
        return image
    if ChannelDimension(layout) is ChannelDimension.LAST:
        return image
    return image.permute(1, 2, 0) if isinstance(image, torch.Tensor) else np.moveaxis(image, 0, -1)


def _per_channel(name: str, values: Any) -> np.ndarray:
    """Return one number, or one number per channel, as (3, 1, 1)."""
    array = np.float32(values).reshape(-1, 1, 1)
    if len(array) not in (1, 3):
        raise ValueError(f"{name} is {values}: it must be one number, or one number for each of the three channels.")
    return np.broadcast_to(array, (3, 1, 1))


SindImageProcessor.register_for_auto_class("AutoImageProcessor")
