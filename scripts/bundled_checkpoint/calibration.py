"""Stage 4: turn the trained network into a SIND checkpoint whose scores use the scale from 1 to 5."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from backbone import MEAN, STD
from crops import Crops
from safetensors.torch import load_file, save_file
from studies import STUDIES, Study

from sind_hf import SindConfig, SindImageProcessor, SindModel
from sind_hf.files import write_json
from training import Quality, load_trained

FILES = ("config.json", "model.safetensors", "preprocessor_config.json")
REFERENCE = "reference_scores.json"


@dataclass
class CalibrationSettings:
    """Settings of the calibration, the keys of `calibration.yaml`.

    Attributes:
        clean: Score that only some clean crops exceed; most lie between it and 4.
        clean_share: Share of the clean crops below that score.
        ruined: Score of the median ruined crop.
        ruined_below: Share of the crops, by label, that counts as ruined.
        reference: Number of reference scores from each kind of image.
        seed: Seed of their choice.
    """

    clean: float = 4.6
    clean_share: float = 0.85
    ruined: float = 1.0
    ruined_below: float = 0.06
    reference: dict[str, int] = field(default_factory=dict)
    seed: int = 0


def make_checkpoint(training: Path, data: Path, folder: Path, settings: CalibrationSettings) -> None:
    """Write the checkpoint and its reference scores.

    Weights are rounded to 16 bits on disk, before anything is measured; in memory they are 32 bits wide.

    Args:
        training: Folder of the finished training.
        data: Folder with the views of crops and studies.
        folder: Folder of the checkpoint; other files in it are kept.
        settings: What to calibrate to.
    """
    network = load_trained(training)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())
    crops = Crops(data / "crops")
    rng = np.random.default_rng(settings.seed)
    clean = [index for index, row in enumerate(crops.rows) if not row["steps"]]
    ruined = np.flatnonzero(crops.labels <= np.quantile(crops.labels, settings.ruined_below))
    anchors = [
        float(np.quantile(network.score(crops, rng.choice(members, min(100, len(members)), replace=False)), share))
        for members, share in ((clean, settings.clean_share), (ruined, 0.5))
    ]
    scale = (settings.clean - settings.ruined) / (anchors[0] - anchors[1])
    if not scale > 0:
        raise ValueError(f"{training}: clean crops do not score higher than ruined ones, so nothing can be calibrated")
    shift = settings.clean - scale * anchors[0]
    _save(network, scale, shift, crops.local[0].shape[-1], folder)
    scores = _reference_scores(network, crops, data, settings)
    document = {
        "description": "Scores of the bundled checkpoint for varied images, to compare a score with",
        "views": "center",
        "scores": {kind: sorted(np.round(scale * values + shift, 3).tolist()) for kind, values in scores.items()},
    }
    write_json(folder / REFERENCE, document)


def _save(network: Quality, scale: float, shift: float, view_size: int, folder: Path) -> None:
    config = SindConfig(
        vision_config=network.backbone.config.to_dict(),
        view_size=view_size,
        image_mean=[MEAN] * 3,
        image_std=[STD] * 3,
        loss_type="plcc",
        score_range=[1.0, 5.0],
        score_scale=scale,
        score_shift=shift,
        freeze_batch_norm=True,  # fine-tuning goes on as the training did
    )
    model = SindModel(config)
    model.vision_model.load_state_dict(network.backbone.state_dict())
    model.quality_head.load_state_dict(network.head.state_dict())
    size = {"height": view_size, "width": view_size}
    processor = SindImageProcessor(size=size, image_mean=[MEAN] * 3, image_std=[STD] * 3, views="center")
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as saved:  # the code that is saved beside a checkpoint is in the package already
        model.save_pretrained(saved)
        processor.save_pretrained(saved)
        tensors = load_file(Path(saved) / "model.safetensors")
        halves = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
        save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
        for name in ("config.json", "preprocessor_config.json"):
            document = json.loads((Path(saved) / name).read_text(encoding="utf-8"))
            document.pop("_name_or_path", None)
            write_json(folder / name, document)


def _reference_scores(
    network: Quality, crops: Crops, data: Path, settings: CalibrationSettings
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(settings.seed + 1)
    clean = [index for index, row in enumerate(crops.rows) if not row["steps"]]
    sources = {"clean photographs": (crops, clean), "distorted photographs": (crops, range(len(crops)))}
    for name in STUDIES:
        study = Study(data / "studies" / name)
        sources[name] = (study, range(len(study)))
    found = {}
    for kind, count in settings.reference.items():
        views, members = sources[kind]
        chosen = np.sort(rng.choice(np.array(members), min(count, len(members)), replace=False))
        found[kind] = network.score(views, chosen.tolist())
    return found
