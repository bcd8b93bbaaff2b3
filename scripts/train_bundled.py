"""Train the checkpoint that comes with the package: from a folder of photographs to weights and results.

    python scripts/train_bundled.py --photos PHOTOGRAPHS --study STUDY crops
    torchrun --standalone --nproc_per_node 2 scripts/train_bundled.py --photos PHOTOGRAPHS --study STUDY pretrain
    torchrun --standalone --nproc_per_node 2 scripts/train_bundled.py --photos PHOTOGRAPHS --study STUDY ladders
    torchrun --standalone --nproc_per_node 2 scripts/train_bundled.py --photos PHOTOGRAPHS --study STUDY order
    python scripts/train_bundled.py --photos PHOTOGRAPHS --study STUDY whole
    python scripts/train_bundled.py --photos PHOTOGRAPHS --study STUDY again
    python scripts/train_bundled.py --photos PHOTOGRAPHS --study STUDY jpeg
    python scripts/train_bundled.py --photos PHOTOGRAPHS --study STUDY jpeg_again
    python scripts/train_bundled.py --photos PHOTOGRAPHS --study STUDY last
    python scripts/train_bundled.py --photos PHOTOGRAPHS --study STUDY last_again
    python scripts/train_bundled.py --photos PHOTOGRAPHS --study STUDY opinions
    python scripts/train_bundled.py --photos PHOTOGRAPHS --study STUDY results

or all of it with `all`. PHOTOGRAPHS is a folder of photographs, or of folders of them; STUDY has `scores.csv` (image,
mos, scene) and the rated pictures. Every step skips what is finished and goes on where it was interrupted.

1. `crops`: photographs are distorted in some forty ways, and scored against their originals by full-reference indices.
2. `pretrain`: a small network learns these scores (configs/bundled.yaml); every tenth photograph is held out.
3. `ladders`: it goes on with more crops, most of them in ladders of rising distortion (configs/bundled_ladders.yaml).
4. `order`: and on with the same, every step of a ladder being asked to lower the score (configs/bundled_order.yaml).
5. `whole`: from the mean of the weights after 3 and 4 it goes on with ladders that begin with the original and reach
   the end, some of them grey (configs/bundled_whole.yaml).
6. `again`: the same in another order, from the same mean.
7. `jpeg`: from the mean of the weights before and after 5 and 6 it goes on with more ladders of JPEG
   (configs/bundled_jpeg.yaml).
8. `jpeg_again`: the same in another order, from the same mean.
9. `last` and `last_again`: from the mean of the weights after 7 and 8, both once more (configs/bundled_last.yaml).
10. `opinions`: the weights after 9 are averaged; the head is fitted to the scores of the crops, and then to the
    opinions; in folds of scenes, too.
11. `results`: tables of all of these, and of ladders of rising distortion on the photographs that were held out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from accelerate import PartialState

from sind_hf.cli import terminal
from sind_hf.cli.training_progress import TrainingProgress
from sind_hf.experiments.config import RunConfig, load_config
from sind_hf.files import write_text
from sind_hf.pretraining.bundle import measure, results_markdown, write_bundle
from sind_hf.pretraining.recipe import TRAININGS, Recipe
from sind_hf.pretraining.steps import learn_opinions, prepare_data, pretrain

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
STEPS = ("crops", *TRAININGS, "opinions", "results")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the steps that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=[*STEPS, "all"])
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs without distortions")
    parser.add_argument("--study", type=Path, required=True, help="folder with scores.csv and the rated pictures")
    parser.add_argument("--output", type=Path, default=Path("runs/bundled"))
    parser.add_argument("--workers", type=int, default=1, help="processes that make the crops")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="STEP.KEY=VALUE", help="changes to the configuration of a training"
    )
    parser.add_argument("--bundle", type=Path, help="folder to copy the checkpoint to, such as src/sind_hf/bundled")
    options = parser.parse_args(arguments)
    for change in options.set:
        if change.partition(".")[0] not in TRAININGS:
            sys.exit(f"error: --set {change}: must begin with one of {', '.join(TRAININGS)}, and a dot.")
    for folder in (options.photos, options.study):
        if not folder.is_dir():
            sys.exit(f"error: {folder}: no such folder")
    terminal.quiet_libraries()
    try:
        run(options)
    except ValueError as error:
        sys.exit(f"error: {error}")


def run(options: argparse.Namespace) -> None:
    """Run the steps, those before them being done."""
    recipe = Recipe(options.photos, options.study, options.output)
    steps = STEPS if options.step == "all" else (options.step,)
    configs = {name: configuration(name, recipe, options.set) for name in TRAININGS}
    if "crops" in steps:
        view_size = int(configs["pretrain"].model.view_size or 224)
        for line in prepare_data(recipe, view_size=view_size, workers=options.workers, stage=terminal.stage).values():
            terminal.complain(line)
    main_process = PartialState().is_main_process
    for name, training in TRAININGS.items():
        if name in steps:
            with terminal.stage(training.title) as update:
                record = pretrain(name, configs[name], recipe, [TrainingProgress(update)])
            if main_process:
                terminal.say(f"photographs held out: {record['metrics']}")
    if "opinions" in steps:
        with terminal.stage("fitting the head to opinions"):
            learn_opinions(recipe)
    if "results" in steps:
        with terminal.stage("testing"):
            found = measure(recipe)
        text = results_markdown(found)
        write_text(recipe.output / "bundled_results.md", text)
        for line in text.splitlines():
            terminal.say(line)
    if options.bundle is not None:
        for path in write_bundle(recipe, options.bundle):
            terminal.say(f"{path}: {path.stat().st_size} bytes")


def configuration(name: str, recipe: Recipe, changes: Sequence[str]) -> RunConfig:
    """Load the configuration of a training, with the changes to it that the command line asks for."""
    asked = [change.removeprefix(f"{name}.") for change in changes if change.startswith(f"{name}.")]
    config = load_config(CONFIGS / f"{TRAININGS[name].config}.yaml", [*recipe.changes(name), *asked])
    config.training.disable_tqdm = True
    return config


if __name__ == "__main__":
    main()
