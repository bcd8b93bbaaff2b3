from __future__ import annotations

import hashlib
import json
import resource
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from transformers import AutoImageProcessor
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from sind_hf import ImageError, SindImageProcessor, differentiable_views, load_image
from sind_hf import image_processing_sind as module
from sind_hf.configuration_sind import IMAGENET_MEAN, IMAGENET_STD
from sind_hf.image_processing_sind import (
    StripImage,
    ViewPlan,
    cut_views,
    local_image_size,
    plan_views,
    resize_images,
)

# --- views equal the published ones ----------------------------------------------------------------------------------


def assert_within_two_levels(found: np.ndarray, expected: np.ndarray, share_within_one: float) -> None:
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 2
    assert (difference <= 1).mean() >= share_within_one


@pytest.mark.parametrize("mode", ["center", "nine"])
@pytest.mark.parametrize("name", ["landscape", "portrait", "square"])
def test_views_equal_the_published_ones(shared: Path, name: str, mode: Any) -> None:
    folder = shared / "reference/parity"
    published = load_file(folder / "views_uint8.safetensors")
    for backend in ("pillow", "torch"):
        found = SindImageProcessor(resize_backend=backend).make_views(folder / f"view_{name}.png", mode)
        for views, kind in zip(found, ("global", "local"), strict=True):
            expected = published[f"{name}.{mode}.{kind}"].reshape(views.shape)
            if backend == "pillow":
                np.testing.assert_array_equal(views, expected)
            else:
                assert_within_two_levels(views, expected, 0.9999)


SIZES = [(641, 483), (350, 620), (512, 512), (90, 60), (1500, 120)]


def digests(image: Image.Image, view_size: int) -> dict[str, str]:
    processor = SindImageProcessor(size=view_size, resize_backend="pillow")
    found = {}
    for mode in ("center", "nine"):
        for kind, views in zip(("global", "local"), processor.make_views(image, mode), strict=True):
            found[f"{mode}.{kind}"] = hashlib.sha256(views.tobytes()).hexdigest()[:16]
    return found


def test_views_equal_the_committed_ones(golden: Path, draw: Any) -> None:
    for case in json.loads((golden / "views.json").read_text()):
        for name, digest in digests(draw(case["width"], case["height"]), case["view_size"]).items():
            assert digest in case["views"][name], f"{name}, {case['width']}x{case['height']} at {case['view_size']}"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("view_size", [224, 112, 336])
def test_torch_resizes_as_pillow_does(draw: Any, size: tuple[int, int], view_size: int) -> None:
    fast, exact = (
        SindImageProcessor(size=view_size, resize_backend=backend).make_views(draw(*size), "nine")
        for backend in ("torch", "pillow")
    )
    for found, expected in zip(fast, exact, strict=True):
        assert found.shape == (9, 3, view_size, view_size) and found.dtype == np.uint8
        assert_within_two_levels(found, expected, 0.9998)  # the drawn texture is harsher than a photograph


# --- geometry --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "height", "view_size", "expected"),
    [
        (640, 480, 224, (672, 896)),
        (480, 640, 224, (896, 672)),
        (500, 500, 224, (672, 672)),
        (1000, 667, 224, (672, 1007)),  # int(1007.49...)
        (640, 480, 112, (336, 448)),
        (640, 480, 336, (1008, 1344)),
        (1, 1, 224, (672, 672)),
    ],
)
def test_local_image_size(width: int, height: int, view_size: int, expected: tuple[int, int]) -> None:
    assert local_image_size(width, height, view_size) == expected


@pytest.mark.parametrize("view_size", [224, 112, 336])
def test_the_global_image_is_the_whole_image_in_a_square(draw: Any, view_size: int) -> None:
    image = draw(640, 400)
    found, _ = resize_images(image, view_size, "pillow")
    side = {224: 256, 112: 128, 336: 384}[view_size]
    np.testing.assert_array_equal(found, np.asarray(image.resize((side, side), Image.Resampling.BILINEAR)))


def test_center_is_centered() -> None:
    (plan,) = plan_views("center", (672, 901))  # cells of 96 × 128 pixels; the last five columns are ignored
    assert plan == ViewPlan((16, 16), (32,) * 7, (48,) * 7, False, False)
    (odd,) = plan_views("center", (679, 672))  # cells of 97: (97 - 32) // 2
    assert odd.rows == (32,) * 7 and odd.columns == (32,) * 7


def test_nine_walks_the_two_views_in_the_published_orders() -> None:
    plans = plan_views("nine", (672, 896))  # free room of a fragment: 64 vertically, 96 horizontally
    crops = [(0, 0), (0, 16), (0, 32), (16, 0), (16, 16), (16, 32), (32, 0), (32, 16), (32, 32)]
    places = [(0, 0), (0, 96), (64, 0), (64, 96), (32, 48), (32, 0), (32, 96), (0, 48), (64, 48)]
    assert [plan.crop for plan in plans] == crops
    assert [(plan.rows, plan.columns) for plan in plans] == [((v,) * 7, (h,) * 7) for v, h in places]
    assert not any(plan.flip_global or plan.flip_local for plan in plans)


@pytest.fixture(scope="module")
def drawn() -> list[ViewPlan]:
    generator = np.random.default_rng(5)
    return [plan_views("train", (672, 896), generator=generator)[0] for _ in range(4000)]


def test_training_places_fill_their_ranges(drawn: list[ViewPlan]) -> None:
    crops = np.array([plan.crop for plan in drawn])
    rows, columns = np.array([plan.rows for plan in drawn]), np.array([plan.columns for plan in drawn])
    assert rows.shape == columns.shape == (4000, 7)
    for values, first, last in ((crops, 0, 32), (rows, 0, 63), (columns, 0, 95)):
        assert (values.min(), values.max()) == (first, last)
        counts = np.bincount(values.ravel(), minlength=last + 1)
        expected = values.size / (last + 1)
        # Six deviations of a count: one of these 193 fails by chance less than once in a million runs.
        assert np.abs(counts - expected).max() < 6 * expected**0.5


def test_training_places_are_independent(drawn: list[ViewPlan]) -> None:
    columns = [np.array([plan.crop for plan in drawn]), np.array([plan.rows for plan in drawn])]
    columns.append(np.array([plan.columns for plan in drawn]))
    columns.append(np.array([(plan.flip_global, plan.flip_local) for plan in drawn]))
    correlation = np.corrcoef(np.concatenate(columns, axis=1).astype(float), rowvar=False)
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 6 / 4000**0.5


def test_each_view_is_flipped_half_of_the_time_by_itself(drawn: list[ViewPlan]) -> None:
    flips = np.array([(plan.flip_global, plan.flip_local) for plan in drawn])
    counts = np.bincount(flips[:, 0] * 2 + flips[:, 1], minlength=4)
    assert np.abs(counts / 4000 - 0.25).max() < 0.04


def test_train_needs_a_generator_and_repeats_with_its_state(draw: Any) -> None:
    processor = SindImageProcessor()
    with pytest.raises(ValueError, match="pass a numpy random Generator"):
        processor.make_views(draw(320, 240), "train")
    first, again, other = (
        processor.make_views(draw(320, 240), "train", np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    for views, same, different in zip(first, again, other, strict=True):
        assert views.shape == (1, 3, 224, 224)
        np.testing.assert_array_equal(views, same)
        assert (views != different).any()


def test_unknown_modes_are_named() -> None:
    with pytest.raises(ValueError, match="'train', 'center', 'nine', not 'five'"):
        plan_views("five", (672, 672))  # type: ignore[arg-type]


def coordinates(height: int, width: int) -> np.ndarray:
    """An image whose pixels say where they are: (y, x) in 24 bits."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y % 256, x % 256, y // 256 * 16 + x // 256], axis=-1).astype(np.uint8)


def places(view: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low_y, low_x, high = view.astype(int)
    return high // 16 * 256 + low_y, high % 16 * 256 + low_x


@pytest.mark.parametrize("flip_global", [False, True])
@pytest.mark.parametrize("flip_local", [False, True])
def test_every_pixel_of_a_view_comes_from_its_place(flip_global: bool, flip_local: bool) -> None:
    rows, columns = (3, 9, 0, 63, 5, 40, 22), (1, 95, 0, 7, 50, 33, 60)
    plan = ViewPlan((5, 27), rows, columns, flip_global, flip_local)
    global_views, local_views = cut_views(coordinates(256, 256), coordinates(672, 901), [plan])
    for v, u in ((0, 0), (31, 31), (32, 31), (100, 200), (223, 0), (223, 223), (96, 95)):
        y, x = places(global_views[0])
        assert (y[v, u], x[v, u]) == (5 + v, 27 + (223 - u if flip_global else u))
        y, x = places(local_views[0])
        source = 223 - u if flip_local else u
        assert y[v, u] == v // 32 * 96 + rows[v // 32] + v % 32
        assert x[v, u] == source // 32 * 128 + columns[source // 32] + source % 32


# --- very long images ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1000, 100), (100, 1000), (2400, 150), (77, 803)])
def test_strips_equal_the_whole_image(draw: Any, size: tuple[int, int]) -> None:
    image = draw(*size)
    global_image, strips = resize_images(image)
    height, width = local_image_size(*size)
    assert isinstance(strips, StripImage) and strips.shape == (height, width, 3)
    whole = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    plans = plan_views("nine", (height, width)) + plan_views("center", (height, width))
    plans += plan_views("train", (height, width), generator=np.random.default_rng(1))
    _, found = cut_views(global_image, strips, plans)
    _, expected = cut_views(global_image, whole, plans)
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert (found == expected).mean() > 0.9  # ties of the last rounding may fall either way, nothing more


def test_eight_to_one_is_still_made_whole(draw: Any) -> None:
    assert isinstance(resize_images(draw(800, 100))[1], np.ndarray)
    assert isinstance(resize_images(draw(100, 808))[1], StripImage)


@pytest.mark.parametrize("size", [(20_000, 50), (50, 20_000)])
def test_panoramas_take_little_time_and_memory(draw: Any, size: tuple[int, int]) -> None:
    image = draw(*size)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    for views in SindImageProcessor().make_views(image, "nine"):
        assert views.shape == (9, 3, 224, 224)
    assert time.perf_counter() - start < 5
    # KiB here; the whole image would be 268,800 × 672 × 3 bytes, 517 MiB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (1, 30), (5000, 1)])
def test_tiny_images_have_views(size: tuple[int, int]) -> None:
    for mode in ("center", "nine"):
        for views in SindImageProcessor().make_views(Image.new("RGB", size, (9, 80, 200)), mode):
            assert (views == np.array([9, 80, 200])[:, None, None]).all()


# --- the processor ---------------------------------------------------------------------------------------------------


def test_shapes_and_numbers_of_a_mixed_batch(image_files: list[str]) -> None:
    processor = SindImageProcessor()
    batch = processor(image_files, return_tensors="pt")
    nine = processor(image_files, views="nine", return_tensors="pt")
    assert list(batch) == ["pixel_values", "local_pixel_values"] == processor.model_input_names
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    for slot, name in enumerate(batch):
        assert batch[name].shape == (5, 3, 224, 224) and batch[name].dtype == torch.float32
        assert nine[name].shape == (5, 9, 3, 224, 224)
        for row, file in enumerate(image_files):
            for found, mode in ((batch[name][row], "center"), (nine[name][row], "nine")):
                views = torch.from_numpy(processor.make_views(file, mode)[slot])
                expected = ((views / 255 - mean) / std).reshape(found.shape)
                torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_raw_views_stay_uint8(draw: Any) -> None:
    processor = SindImageProcessor()
    raw = processor(draw(320, 240), do_rescale=False, do_normalize=False, return_tensors="pt")
    for views, expected in zip(raw.values(), processor.make_views(draw(320, 240)), strict=True):
        assert views.dtype == torch.uint8
        np.testing.assert_array_equal(views.numpy(), expected)
    scaled = processor(draw(320, 240), do_normalize=False, return_tensors="pt")
    torch.testing.assert_close(scaled["pixel_values"], raw["pixel_values"] / 255)


@pytest.mark.parametrize("do_normalize", [True, False])
@pytest.mark.parametrize("do_rescale", [True, False])
@pytest.mark.parametrize("form", ["PIL", "array", "tensor", "channels first", "floats", "float tensor"])
def test_values_equal_those_of_a_stock_processor(do_rescale: bool, do_normalize: bool, form: str) -> None:
    """An image of one color is the same in both views and in a stock one, whatever the geometry."""
    array = np.full((224, 224, 3), (10, 80, 200), np.uint8)
    images: dict[str, Any] = {
        "PIL": Image.fromarray(array),
        "array": array,
        "tensor": torch.from_numpy(array),
        "channels first": array.transpose(2, 0, 1),
        "floats": array / 255,
        "float tensor": torch.from_numpy(array).permute(2, 0, 1) / 255,
    }
    options: dict[str, Any] = {"do_rescale": do_rescale, "do_normalize": do_normalize, "return_tensors": "np"}
    stock = ViTImageProcessorPil(image_mean=list(IMAGENET_MEAN), image_std=list(IMAGENET_STD))
    is_float = form.startswith("float")
    # Where stock processors scale floats in [0, 1] down once more, these are taken for what they are.
    given = array if is_float and (do_rescale or not do_normalize) else images[form]
    changes: list[dict[str, Any]] = [
        {},
        {"rescale_factor": 1 / 510},
        {"image_mean": 0.5, "image_std": [0.1, 0.2, 0.3]},
    ]
    for option in changes:
        expected = stock(given, **options, **option)["pixel_values"]
        for name, views in SindImageProcessor()(images[form], **options, **option).items():
            assert views.dtype == expected.dtype, name
            np.testing.assert_allclose(views, expected, rtol=1e-5, atol=1e-5)


def test_floats_and_bytes_of_one_batch_are_scaled_each_by_its_own_range(draw: Any) -> None:
    array = np.asarray(draw(300, 260))
    images = [array / 255, array, Image.fromarray((array[..., 0] / 255).astype(np.float32))]
    found = SindImageProcessor()(images, do_rescale=False, image_mean=0.0, image_std=1.0, return_tensors="np")
    for views in found.values():
        np.testing.assert_allclose(views[0] * 255, views[1], rtol=1e-5)
        assert views[0].max() <= 1 < views[1].max() and views[2].max() <= 1


def test_bytes_normalized_with_a_mean_for_floats_are_warned_about(draw: Any, caplog: Any) -> None:
    module.logger.warning_once.cache_clear()
    with patch.object(module.logger, "warning") as warning:
        SindImageProcessor()(draw(90, 60), do_rescale=False, image_mean=[123.0, 116.0, 104.0], image_std=58.0)
        SindImageProcessor()(np.asarray(draw(90, 60)) / 255, do_rescale=False)
        assert not warning.called
        SindImageProcessor()(draw(90, 60), do_rescale=False)
        assert "do_rescale=False" in warning.call_args.args[0]


def test_options_that_change_nothing_are_named(draw: Any) -> None:
    module.logger.warning_once.cache_clear()
    with patch.object(module.logger, "warning") as warning:
        SindImageProcessor()(draw(90, 60), do_resize=True, resample=2, do_center_crop=False)
        assert not warning.called
        SindImageProcessor()(draw(90, 60), do_resize=False, resample=3)
        assert "ignores do_resize, resample" in warning.call_args.args[0]


def test_the_layout_of_an_array_can_be_said() -> None:
    array = np.random.default_rng(0).integers(0, 256, (3, 90, 3)).astype(np.uint8)
    for image in (array, torch.from_numpy(array)):
        first, last = (
            SindImageProcessor()(image, input_data_format=layout, return_tensors="np")["pixel_values"]
            for layout in ("channels_first", "channels_last")
        )
        expected = (SindImageProcessor()(x, return_tensors="np") for x in (array.transpose(1, 2, 0).copy(), array))
        for found, views in zip((first, last), expected, strict=True):
            np.testing.assert_array_equal(found, views["pixel_values"])


def test_options_of_one_call_do_not_stay(draw: Any) -> None:
    processor = SindImageProcessor()
    call: dict[str, Any] = {
        "size": 112,
        "image_mean": [0.0, 0.0, 0.0],
        "image_std": [1.0, 1.0, 1.0],
        "resize_backend": "pillow",
    }
    found = processor(draw(320, 240), return_tensors="np", **call)["local_pixel_values"]
    expected = SindImageProcessor(size=112, resize_backend="pillow").make_views(draw(320, 240))[1]
    np.testing.assert_allclose(found, expected / 255, atol=1e-6)
    assert processor(draw(320, 240), return_tensors="np")["pixel_values"].shape == (1, 3, 224, 224)


@pytest.mark.parametrize("size", [(400, 300), (70_000, 2), (3, 500), (1, 1)])
def test_pixels_are_copied_whole(draw: Any, size: tuple[int, int]) -> None:
    np.testing.assert_array_equal(module._as_array(draw(*size)), np.asarray(draw(*size)))


def test_an_image_becomes_an_array_once(draw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = Mock(wraps=module._as_array)
    monkeypatch.setattr(module, "_as_array", copies)
    SindImageProcessor().make_views(draw(400, 300))
    assert copies.call_count == 1


def test_backends_differ_and_are_chosen_by_name(draw: Any) -> None:
    exact = SindImageProcessor(resize_backend="pillow").make_views(draw(641, 483))
    fast = SindImageProcessor(resize_backend="torch").make_views(draw(641, 483))
    default = SindImageProcessor().make_views(draw(641, 483))
    np.testing.assert_array_equal(fast[1], default[1])
    assert any((a != b).any() for a, b in zip(exact, fast, strict=True))


def test_one_image_and_whatever_holds_several_are_accepted(draw: Any) -> None:
    processor, image = SindImageProcessor(), draw(300, 300)
    array = np.asarray(image)
    one = processor(image, return_tensors="pt")["local_pixel_values"]
    column = datasets.Dataset.from_dict({"image": [image, image]})["image"]
    for images, count in (
        *(((image, image), 2), (np.stack([array, array]), 2), (array, 1), ([array], 1)),
        *((torch.from_numpy(array.copy()), 1), (column, 2), ((image for _ in range(3)), 3)),
    ):
        found = processor(images, return_tensors="pt")["local_pixel_values"]
        assert found.shape == (count, 3, 224, 224)
        torch.testing.assert_close(found[-1:], one, rtol=0, atol=0)


def test_an_open_file_is_refused_for_what_it_is(tmp_path: Path, draw: Any) -> None:
    draw(90, 60).save(tmp_path / "a.png")
    with (tmp_path / "a.png").open("rb") as file, pytest.raises(ImageError, match="read an image from Buffered"):
        SindImageProcessor()(file)


def test_save_and_load_keep_every_option(tmp_path: Path, draw: Any) -> None:
    processor = SindImageProcessor(size=112, views="nine", resize_backend="pillow", image_mean=[0.5, 0.4, 0.3])
    processor.save_pretrained(tmp_path)
    assert "local_pixel_values" in SindImageProcessor.from_pretrained(tmp_path)(draw(90, 60), return_tensors="pt")
    for again in (SindImageProcessor.from_pretrained(tmp_path), AutoImageProcessor.from_pretrained(tmp_path)):
        assert isinstance(again, SindImageProcessor)
        assert (again.views, again.resize_backend) == ("nine", "pillow")
        expected, found = (x(draw(90, 60), return_tensors="pt") for x in (processor, again))
        assert found["pixel_values"].shape == (1, 9, 3, 112, 112)
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": "train"}, "views must be 'center' or 'nine', not 'train'"),
        ({"views": "ten"}, "not 'ten'"),
        ({"resize_backend": "opencv"}, "'torch' or 'pillow', not 'opencv'"),
        ({"size": 100}, "multiple of 56"),
        ({"image_mean": [0.5, 0.5]}, "image_mean is .*: it must be one number, or one number for each of the three"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std is .*: all its values must be positive"),
        ({"size": {"height": 224, "width": 112}}, "views are square"),
        ({"size": {"shortest_edge": 224}}, "views are square"),
    ],
)
def test_unusable_options_are_one_line(draw: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        SindImageProcessor()(draw(64, 64), return_tensors="pt", **options)
    assert "\n" not in str(error.value)


def test_no_images_and_unknown_options_are_refused(draw: Any) -> None:
    with pytest.raises(ValueError, match="No images"):
        SindImageProcessor()([])
    with pytest.raises(TypeError, match="sharpen"):
        SindImageProcessor()(draw(64, 64), sharpen=True)


def test_the_rescale_factor_is_applied(draw):
    image = draw(300, 260)
    raw = SindImageProcessor()(image, do_rescale=False, do_normalize=False)["pixel_values"]
    halved = SindImageProcessor()(image, rescale_factor=1 / 510, do_normalize=False)["pixel_values"]
    np.testing.assert_allclose(halved, np.asarray(raw) / 510, atol=1e-7)


@pytest.mark.parametrize("side", [56, 112])
def test_fast_decoding_changes_pixels_a_little_and_travels_with_the_processor(
    draw: Any, tmp_path: Path, side: int
) -> None:
    file = tmp_path / "large.jpg"
    draw(24, 18).resize((2048, 1536), Image.Resampling.BICUBIC).save(file, quality=95)
    size = {"height": side, "width": side}
    plain, fast = SindImageProcessor(size=size), SindImageProcessor(size=size, fast_decode=True)
    for views in zip(plain.make_views(file), fast.make_views(file), strict=True):
        difference = np.abs(views[0].astype(int) - views[1])
        assert 0 < difference.mean() < 3
    fast.save_pretrained(tmp_path)
    again = SindImageProcessor.from_pretrained(tmp_path)
    np.testing.assert_array_equal(again(file)["pixel_values"], fast(file)["pixel_values"])
    np.testing.assert_array_equal(plain(file, fast_decode=True)["pixel_values"], fast(file)["pixel_values"])
    np.testing.assert_array_equal(fast(file, fast_decode=False)["pixel_values"], plain(file)["pixel_values"])
    assert (plain(file)["pixel_values"] != fast(file)["pixel_values"]).any()


def test_fast_decoding_auto_begins_at_four_megapixels(draw: Any, tmp_path: Path) -> None:
    auto, plain = SindImageProcessor(size=56, fast_decode="auto"), SindImageProcessor(size=56)
    for name, size, is_fast in (("large.jpg", (2500, 1600), True), ("smaller.jpg", (2499, 1600), False)):
        draw(25, 16).resize(size, Image.Resampling.BICUBIC).save(tmp_path / name, quality=95)
        expected = SindImageProcessor(size=56, fast_decode=True) if is_fast else plain
        np.testing.assert_array_equal(auto.make_views(tmp_path / name), expected.make_views(tmp_path / name))
        np.testing.assert_array_equal(auto(tmp_path / name)["pixel_values"], expected(tmp_path / name)["pixel_values"])
    assert (np.array(auto.make_views(tmp_path / "large.jpg")) != plain.make_views(tmp_path / "large.jpg")).any()
    auto.save_pretrained(tmp_path)
    assert SindImageProcessor.from_pretrained(tmp_path).fast_decode == "auto"
    with pytest.raises(ValueError, match="fast_decode must be True, False or 'auto', not 'always'"):
        plain(tmp_path / "large.jpg", fast_decode="always")


def test_color_management_is_an_option_that_travels_and_may_be_missing(tmp_path: Path, draw: Any) -> None:
    image = draw(90, 60)
    managed, plain = SindImageProcessor(size=56), SindImageProcessor(size=56, color_management=False)
    calls: list[bool] = []

    def load(source: Any, *, color_management: bool, **options: Any) -> Image.Image:
        calls.append(color_management)
        return load_image(source, **options)

    with patch.object(module, "load_image", load):
        managed(image), plain(image), managed(image, color_management=False), managed.make_views(image)
        plain.make_views(image)
        assert calls == [True, False, False, True, False]
    plain.save_pretrained(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    saved = json.loads(file.read_text())
    assert saved["color_management"] is False
    assert SindImageProcessor.from_pretrained(tmp_path).color_management is False
    del saved["color_management"]
    file.write_text(json.dumps(saved))
    assert SindImageProcessor.from_pretrained(tmp_path).color_management is True


# --- views with gradients --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["center", "nine"])
@pytest.mark.parametrize("size", [(641, 483), (90, 140), (1500, 120)])
def test_differentiable_views_equal_the_processors_within_two_levels(draw: Any, size: Any, mode: Any) -> None:
    options: dict[str, Any] = {"size": 112, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.3, 0.2, 0.1]}
    processor = SindImageProcessor(views=mode, **options)
    images = [draw(*size), Image.fromarray(np.ascontiguousarray(np.asarray(draw(*size))[::-1]))]
    expected = processor(images, return_tensors="pt")
    tensor = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images]) / 255
    std = torch.tensor(options["image_std"]).view(3, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        found = differentiable_views(tensor, processor)
    assert list(found) == list(expected)
    for name, views in found.items():
        assert views.shape == expected[name].shape and views.dtype == torch.float32
        levels = (views - expected[name]).abs() * std * 255
        assert levels.max() < 2 and levels.mean() < 0.5
    other = differentiable_views(tensor, processor, views="nine" if mode == "center" else "center")
    assert other["pixel_values"].ndim == (5 if mode == "center" else 4)
    assert differentiable_views(tensor)["pixel_values"].shape == (2, 3, 224, 224)


def test_gradients_of_differentiable_views_are_exact() -> None:
    images = torch.rand(1, 3, 70, 90, dtype=torch.float64).requires_grad_()
    views = differentiable_views(images, SindImageProcessor(size=56, image_mean=0.0, image_std=1.0))
    sum(view.sum() for view in views.values()).backward()
    assert images.grad is not None
    # The weights of every view pixel add up to one, so the whole gradient is the number of view pixels.
    assert float(images.grad.sum()) == pytest.approx(2 * 3 * 56 * 56, rel=1e-5)
    assert (images.grad >= 0).all() and (images.grad > 0).float().mean() > 0.5


@pytest.mark.parametrize(
    "images", [torch.zeros(3, 8, 8), torch.zeros(1, 4, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)]
)
def test_differentiable_views_of_other_tensors_are_refused(images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected a floating-point tensor \(B, 3, H, W\)"):
        differentiable_views(images)
