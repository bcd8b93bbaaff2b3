"""The recipe of the small checkpoint that comes with the package: crops, trainings, means of weights.

`sind_hf.pretraining.steps` follows it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from sind_hf.pretraining.crops import CropRecipe, Part

HELD_OUT = "held_out"
HELD_OUT_EVERY = 10
# Kinds whose ladders are learned finely: what a picture of every day goes through. JPEG, whose blocks small views
# hardly see, comes twice.
LADDERS = (
    *("jpeg", "jpeg", "webp", "avif", "jpeg2000", "video_like"),
    *("gaussian_blur", "lens_blur", "motion_blur", "downscaling", "white_noise", "high_iso_noise"),
)
# Kinds of the whole ladders, from the crop as it is to the strongest level: what the others did not teach well.
WHOLE_LADDERS = (
    *("jpeg", "jpeg", "jpeg", "jpeg", "avif", "avif", "avif", "webp", "webp", "jpeg2000", "jpeg2000", "jpeg2000"),
    *("motion_blur", "motion_blur", "gaussian_blur", "lens_blur", "downscaling"),
    *("white_noise", "white_noise", "high_iso_noise"),
)
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


class CropSet(NamedTuple):
    """A manifest of the recipe: its name as a data set, the folder of its crops, and which of them (`label_crops`)."""

    title: str
    folder: str
    part: Part = "all"


SETS = {
    "train": CropSet("train crops", "crops"),
    HELD_OUT: CropSet("held-out crops", "crops"),
    "more": CropSet("more crops", "more", "others"),
    "ladders": CropSet("ladders", "more", "ladders"),
    "whole": CropSet("whole ladders", "whole", "whole ladders"),
    "jpeg": CropSet("ladders of JPEG", "jpeg", "whole ladders"),
}
#: Sets in which every scene is a ladder, and how often its steps count when the head is fitted.
IN_LADDERS = {"ladders": 1, "whole": 1, "jpeg": 3}


class Training(NamedTuple):
    """A part of the training without opinions.

    Attributes:
        title: What is shown while it runs.
        config: Its configuration, `configs/<config>.yaml`.
        checkpoint: Folder of what it makes.
        data: Of the `SETS`.
        start: Folder of what it goes on from.
        order: Weight of the order of the levels in ladders, see `PretrainingTrainer`.
        seed: In the place of the configuration's.
    """

    title: str
    config: str
    checkpoint: str
    data: tuple[str, ...]
    start: str | None = None
    order: float = 0.0
    seed: int | None = None


_MORE = ("train", "more", "ladders")
_WHOLE = (*_MORE, "whole")
_ALL = (*_WHOLE, "jpeg")
_AGAIN = "the same in another order"
TRAININGS = {
    "pretrain": Training("training on distorted crops", "bundled", "pretrained", ("train",)),
    "ladders": Training("training on ladders", "bundled_ladders", "laddered", _MORE, "pretrained"),
    "order": Training("training on the order of levels", "bundled_order", "ordered", _MORE, "laddered", 1.0),
    "whole": Training("training on whole ladders", "bundled_whole", "whole_ladders", _WHOLE, "middle", 1.0),
    "again": Training(_AGAIN, "bundled_whole", "whole_ladders_again", _WHOLE, "middle", 1.0, seed=3),
    "jpeg": Training("training on ladders of JPEG", "bundled_jpeg", "jpeg_ladders", _ALL, "late", 4.0),
    "jpeg_again": Training(_AGAIN, "bundled_jpeg", "jpeg_ladders_again", _ALL, "late", 4.0, seed=6),
    "last": Training("training on all of it once more", "bundled_last", "last", _ALL, "later", 4.0),
    "last_again": Training(_AGAIN, "bundled_last", "last_again", _ALL, "later", 4.0, seed=8),
}


class Mean(NamedTuple):
    """A checkpoint whose weights are the mean of others.

    Attributes:
        of: Folders of those; one that stands here several times weighs as much.
        data: Of the `SETS`, for BatchNorm's statistics.
    """

    of: tuple[str, ...]
    data: tuple[str, ...]


#: By their folder.
MEANS = {
    "middle": Mean(("laddered", "ordered"), _MORE),
    "late": Mean(("middle", "whole_ladders", "whole_ladders_again"), _WHOLE),
    "later": Mean(("jpeg_ladders", "jpeg_ladders_again"), _ALL),
    "averaged": Mean(("last", "last_again"), _ALL),
}


@dataclass(frozen=True)
class Recipe:
    """Where everything is.

    Attributes:
        photographs: Folder of photographs without distortions, or of folders of them.
        study: Folder with `scores.csv` (image, mos, scene) and its pictures; None to do without opinions.
        output: Folder for all that is made.
        crops: What is made of each photograph.
        more: What else is made of each photograph that is not held out, for the second part of the training.
        whole: And for the fourth.
        jpeg: And for the last.
        score_range: Scale of the study's opinions.
    """

    photographs: Path
    study: Path | None
    output: Path
    crops: CropRecipe = CropRecipe()
    more: CropRecipe = CropRecipe(
        crops=8, ladders=1, rungs=8, singles=3, doubles=2, longest=576, share=0.45, kinds=LADDERS
    )
    whole: CropRecipe = CropRecipe(
        crops=6,
        ladders=1,
        rungs=8,
        singles=0,
        doubles=0,
        shortest=400,
        longest=576,
        share=0.6,
        kinds=WHOLE_LADDERS,
        levels=(0.3, 5.6),
        grey=0.15,
        seed=1,
    )
    jpeg: CropRecipe = replace(whole, crops=4, longest=640, kinds=("jpeg",), levels=(2.0, 5.6), seed=2)
    score_range: tuple[float, float] = (1.0, 5.0)

    def changes(self, name: str) -> list[str]:
        """Return the changes to the configuration of one of the `TRAININGS`: its places in this output, its seed."""
        training = TRAININGS[name]
        changes = [
            f"data.image_root={self.output / 'prepared'}",
            f"data.train=[{', '.join(str(self.output / f'{each}.json') for each in training.data)}]",
            f"data.test=[{self.output / 'held_out.json'}]",
            f"training.output_dir={self.output / training.checkpoint}",
        ]
        if training.start is not None:
            changes.append(f"model.checkpoint={self.output / training.start}")
        if training.seed is not None:
            changes.append(f"training.seed={training.seed}")
        return changes

    def files(self) -> dict[str, Path]:
        """Return the photographs by name: the path below the folder, with dashes.

        Raises:
            ValueError: When there are none.
        """
        found = {
            path.relative_to(self.photographs).with_suffix("").as_posix().replace("/", "-"): path
            for path in sorted(self.photographs.rglob("*"))
            if path.suffix.lower() in SUFFIXES
        }
        if len(found) < HELD_OUT_EVERY:
            raise ValueError(f"{self.photographs}: {len(found)} photographs; at least {HELD_OUT_EVERY} are needed.")
        return found
