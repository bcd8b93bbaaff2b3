"""Does alignment help? SIND against plain l1 and plcc on real laboratory opinions, on scenes that no model saw.

    python scripts/real_opinions.py --start CHECKPOINT --study STUDY --jobs 2

1. A network that saw no opinions of this study is fine-tuned on it in folds of scenes, with each loss
   (configs/real_opinions.yaml).
2. The same, with an annotator bias of growing strength on the training scores; tested on the true opinions.

STUDY has `scores.csv` (image, mos, scene) and the pictures. Whatever is finished is not done again, and an interrupted
training goes on. Tables and figures are written to `--output` (runs/real_opinions): results.md, results.json,
bias.png, scores.png.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sind_hf import metrics
from sind_hf.checkpoints import load_checkpoint
from sind_hf.cli import terminal
from sind_hf.data.importing.importer import import_manifest
from sind_hf.data.manifests.manifest import Manifest, ScoreInfo
from sind_hf.data.prepared.prepare import prepare
from sind_hf.data.splits.library import write_folds
from sind_hf.data.splits.splits import k_folds
from sind_hf.data.synthetic.annotator_bias import with_annotator_bias
from sind_hf.experiments.bootstrap import bootstrap_mean, paired_bootstrap, steiger_test
from sind_hf.experiments.config import RunConfig, load_config
from sind_hf.experiments.evaluation import evaluate_manifest
from sind_hf.experiments.plots import curves, fit_scatter
from sind_hf.experiments.records import load_records, read_scores
from sind_hf.experiments.runner import run_experiment
from sind_hf.files import write_json, write_text
from sind_hf.image_processing_sind import load_image
from sind_hf.run_record import RESULTS

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
# loss -> scenes per batch: plain l1 as it is trained without SIND, the others within scenes
LOSSES = {"l1": 0, "plcc": 8, "scale_shift": 8}
STRENGTHS = (0.0, 1.0, 2.0)


@dataclass(frozen=True)
class Run:
    """One experiment: a loss, a strength of annotator bias, some seeds."""

    loss: str
    strength: float
    seeds: tuple[int, ...]

    def folder(self, output: Path) -> Path:
        """Where its folds and its report lie."""
        return output / f"{self.loss}_{self.strength:g}"


def read_study(folder: Path, score_range: tuple[float, float] | None = (1.0, 5.0)) -> Manifest:
    """Return the opinions of a study, higher is better; no split separates the images of one scene.

    Args:
        folder: Folder with `scores.csv` (image, mos, scene).
        score_range: Range of the opinions.
    """
    score = ScoreInfo("MOS", score_range)
    found = import_manifest(folder / "scores.csv", dataset=folder.resolve().name, score=score).manifest
    return replace(found, entries=[replace(entry, reference=entry.scene) for entry in found.entries])


def runs(seeds: int, bias_seeds: int, losses: Sequence[str], strengths: Sequence[float]) -> Iterator[Run]:
    """Yield the experiments, those without bias first."""
    for strength in sorted(strengths):
        for loss in losses:
            yield Run(loss, strength, tuple(range(bias_seeds if strength else seeds)))


def prepare_data(start: Path, study: Path, output: Path, strengths: Sequence[float], folds: int) -> None:
    """Prepare the study's pictures, write folds of scenes for every strength of bias."""
    _, processor = load_checkpoint(str(start), device="cpu")
    manifest = read_study(study)
    manifest.save(output / "study.json")
    with terminal.stage("resizing the pictures once") as update:
        size = processor.size["height"]
        prepare(manifest, study, output / "study_prepared", view_size=size, progress=update)
    opinions = Manifest.load(output / "study.json")
    for strength in strengths:
        biased = {entry.image: entry for entry in with_annotator_bias(opinions, strength).entries}
        # Trained on what biased observers said, tested on the truth; the scale of the former is not declared.
        score = replace(opinions.score, range=None) if strength else opinions.score
        found = []
        for fold in k_folds(opinions, folds):
            entries = [biased[entry.image] for entry in fold.train.entries]
            found.append(replace(fold, train=replace(fold.train, score=score, entries=entries)))
        write_folds(found, output / f"folds_{strength:g}", "k-folds")


def settings(run: Run, start: Path, output: Path, dataset: str, extra: Sequence[str]) -> RunConfig:
    """Return the configuration of an experiment."""
    return load_config(
        CONFIGS / "real_opinions.yaml",
        [
            f"model.checkpoint={start}",
            f"data.image_root={output / 'study_prepared'}",
            f"data.json_dir={output / f'folds_{run.strength:g}'}",
            f"data.train=[{dataset}]",
            f"training.output_dir={run.folder(output)}",
            f"training.loss_type={run.loss}",
            f"training.scene_sampling={LOSSES[run.loss]}",
            f"training.score_range={'[1, 5]' if not run.strength else 'null'}",
            f"experiment.seeds={list(run.seeds)}",
            f"experiment.name={run.loss}, bias {run.strength:g}",
            *extra,
        ],
    )


def execute(run: Run, start: Path, output: Path, dataset: str, extra: Sequence[str], threads: int | None) -> Run:
    """Run one experiment, or what is missing of it; `threads` where several share the machine."""
    if threads is not None:
        torch.set_num_threads(threads)
    terminal.quiet_libraries()
    config = settings(run, start, output, dataset, extra)
    config.training.disable_tqdm = True
    run_experiment(config)
    return run


def pooled(run: Run, output: Path, seed: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Every picture's score by the model that did not see its scene: images, predictions, opinions."""
    images: list[str] = []
    predictions: list[float] = []
    targets: list[float] = []
    records = sorted(run.folder(output).glob(f"*/seed_{seed}" if len(run.seeds) > 1 else "*/"))
    for folder in (path for path in records if (path / RESULTS).is_file()):
        scores = read_scores(next(folder.glob("scores_*.csv")))
        images += scores.images
        predictions += scores.predictions
        targets += scores.targets
    order = np.argsort(images)
    return sorted(images), np.array(predictions)[order], np.array(targets)[order]


def summary(run: Run, output: Path) -> dict[str, Any]:
    """Mean, deviation and bootstrap interval over folds and seeds, and the figures over all pictures at once."""
    records = load_records(run.folder(output))
    row: dict[str, Any] = {"loss": run.loss, "strength": run.strength, "runs": len(records)}
    for name in ("srcc", "plcc", "within_scene_srcc"):
        values = [record["metrics"][test][name] for record in records for test in record["metrics"]]
        low, high = bootstrap_mean(values)
        row[name] = {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)), "low": low, "high": high}
    found = [pooled(run, output, seed) for seed in run.seeds]
    row["pooled_srcc"] = float(np.mean([metrics.srcc(prediction, target) for _, prediction, target in found]))
    return row


def baselines(start: Path, study: Path, output: Path, folds: int) -> list[dict[str, Any]]:
    """Laplacian variance, and the network before fine-tuning: on the same folds, and over all pictures."""
    opinions = Manifest.load(output / "study.json")
    model, processor = load_checkpoint(str(start), device="cpu")
    whole = evaluate_manifest(model, processor, opinions, output / "study_prepared", views="nine")
    found = {"before fine-tuning": dict(zip(whole.images, whole.predictions, strict=True))}
    found["log Laplacian variance"] = {e.image: _sharpness(study / e.image) for e in opinions.entries}
    rows = []
    for name, scores in found.items():
        reports = []
        for fold in k_folds(opinions, folds):
            entries = fold.test.entries
            reports.append(
                metrics.report(
                    [scores[entry.image] for entry in entries],
                    [entry.score for entry in entries],
                    scene=[entry.scene for entry in entries],
                )
            )
        row: dict[str, Any] = {"loss": name, "strength": 0.0, "runs": folds}
        for metric in ("srcc", "plcc", "within_scene_srcc"):
            values = [r["within_scene"]["srcc"] if metric.startswith("within") else r[metric] for r in reports]
            low, high = bootstrap_mean(values)
            row[metric] = {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)), "low": low}
            row[metric]["high"] = high
        targets = [entry.score for entry in opinions.entries]
        row["pooled_srcc"] = metrics.srcc([scores[entry.image] for entry in opinions.entries], targets)
        rows.append(row)
    return rows


def _sharpness(path: Path) -> float:
    grey = np.asarray(load_image(path).convert("L"), np.float64)
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    return float(np.log(laplacian.var() + 1e-6))


def markdown(rows: Sequence[dict[str, Any]], tests: Sequence[dict[str, Any]]) -> str:
    """The tables as Markdown."""
    unseen = [row for row in rows if not row["strength"]]
    head = (
        "trained with",
        "runs",
        "SRCC, mean ± std",
        "95 % interval",
        "PLCC",
        "SRCC in scenes",
        "SRCC, all pictures",
    )
    lines = ["| " + " | ".join(head) + " |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in unseen:
        srcc, plcc, within = row["srcc"], row["plcc"], row["within_scene_srcc"]
        lines.append(
            f"| {row['loss']} | {row['runs']} | {srcc['mean']:.3f} ± {srcc['std']:.3f} | {srcc['low']:.3f} to "
            f"{srcc['high']:.3f} | {plcc['mean']:.3f} | {within['mean']:.3f} | {row['pooled_srcc']:.3f} |"
        )
    lines += ["", "| compared over all pictures | SRCC difference | 95 % interval | p, bootstrap | p, Steiger |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    for test in tests:
        lines.append(
            f"| {test['first']} − {test['second']} | {test['difference']:+.3f} | {test['low']:+.3f} to "
            f"{test['high']:+.3f} | {test['p_bootstrap']:.3f} | {test['p_steiger']:.3f} |"
        )
    strengths = sorted({row["strength"] for row in rows})
    if len(strengths) > 1:
        lines += ["", "| trained with | " + " | ".join(f"bias {strength:g}" for strength in strengths) + " |"]
        lines.append("| --- |" + " ---: |" * len(strengths))
        for loss in LOSSES:
            cells = {row["strength"]: row["srcc"] for row in rows if row["loss"] == loss}
            shown = [f"{cells[s]['mean']:.3f} ± {cells[s]['std']:.3f}" if s in cells else "" for s in strengths]
            lines.append(f"| {loss} | " + " | ".join(shown) + " |")
    return "\n".join([*lines, ""])


def compare(done: Sequence[Run], output: Path) -> list[dict[str, Any]]:
    """Tests between the losses without bias, on the mean over the seeds of every picture's score."""
    plain = {run.loss: run for run in done if not run.strength}
    means = {}
    for loss, run in plain.items():
        found = [pooled(run, output, seed) for seed in run.seeds]
        means[loss] = (np.mean([prediction for _, prediction, _ in found], axis=0), found[0][2])
    tests = []
    for first, second in (("scale_shift", "l1"), ("plcc", "l1"), ("scale_shift", "plcc")):
        if first in means and second in means:
            (a, target), (b, _) = means[first], means[second]
            found = paired_bootstrap(a, b, target)
            tests.append(
                {"first": first, "second": second, "difference": found.difference, "low": found.low}
                | {"high": found.high, "p_bootstrap": found.p_value, "p_steiger": steiger_test(a, b, target).p_value}
            )
    return tests


def write_results(done: Sequence[Run], start: Path, study: Path, output: Path, folds: int) -> None:
    """Write tables and figures of all experiments that are finished."""
    rows = [*baselines(start, study, output, folds), *(summary(run, output) for run in done)]
    tests = compare(done, output)
    write_json(output / "results.json", {"rows": rows, "tests": tests})
    text = markdown(rows, tests)
    write_text(output / "results.md", text)
    for line in text.splitlines():
        terminal.say(line)
    series = {}
    for loss in dict.fromkeys(run.loss for run in done):
        points = sorted((row for row in rows if row["loss"] == loss), key=lambda row: row["strength"])
        series[loss] = [(row["strength"], *(row["srcc"][key] for key in ("mean", "low", "high"))) for row in points]
    curves(
        output / "bias.png",
        series,
        x_label="strength of the annotator bias on the training scores",
        y_label="SRCC with true opinions, unseen scenes",
        title="What alignment is worth against scenes that are rated differently",
    )
    for run in done:
        if run.loss == "scale_shift" and not run.strength:
            _, prediction, target = pooled(run, output, run.seeds[0])
            fit_scatter(
                output / "scores.png",
                target.tolist(),
                prediction.tolist(),
                truth_label="mean opinion score",
                title="Each picture scored by a model that never saw its scene",
            )
    terminal.say(f"results.md, results.json, bias.png and scores.png are in {output}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=Path, required=True, help="checkpoint that saw none of the study's opinions")
    parser.add_argument("--study", type=Path, required=True, help="folder with scores.csv and the rated pictures")
    parser.add_argument("--output", type=Path, default=Path("runs/real_opinions"))
    parser.add_argument("--losses", nargs="+", choices=list(LOSSES), default=list(LOSSES))
    parser.add_argument("--strengths", nargs="+", type=float, default=list(STRENGTHS))
    parser.add_argument("--folds", type=int, default=5, help="folds of scenes")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each fold without bias")
    parser.add_argument("--bias-seeds", type=int, default=1, help="trainings of each fold with bias")
    parser.add_argument("--jobs", type=int, default=1, help="experiments at a time, each on one core")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changes to the configuration")
    options = parser.parse_args(arguments)
    for folder in (options.start, options.study):
        if not folder.is_dir():
            sys.exit(f"error: {folder}: no such folder")
    terminal.quiet_libraries()
    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    start: Path = options.start
    prepare_data(start, options.study, output, options.strengths, options.folds)
    wanted = list(runs(options.seeds, options.bias_seeds, options.losses, options.strengths))
    dataset = Manifest.load(output / "study.json").dataset
    with terminal.stage("fine-tuning") as update:
        if options.jobs > 1:
            with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
                jobs = [pool.submit(execute, run, start, output, dataset, options.set, 1) for run in wanted]
                for number, job in enumerate(jobs, start=1):
                    job.result()
                    update(number, len(wanted))
        else:
            for number, run in enumerate(wanted, start=1):
                execute(run, start, output, dataset, options.set, None)
                update(number, len(wanted))
    write_results(wanted, start, options.study, output, options.folds)


if __name__ == "__main__":
    main()
