"""`sind-hf evaluate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from sind_hf.cli import terminal
from sind_hf.cli.options import BUNDLED, BatchSizeOption, DeviceOption, DtypeOption, ModelOption, Views, WorkersOption

COLUMNS = ("srcc", "plcc", "krcc", "rmse", "plcc_logistic4", "plcc_logistic5", "n")


def evaluate(
    context: typer.Context,
    manifest: Annotated[list[Path], typer.Option(help="Manifest of a dataset. Repeat for several.")],
    image_root: Annotated[Path, typer.Option(help="Folder that the image paths of the manifests start from.")],
    model: ModelOption = BUNDLED,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the report to this JSON file.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder for the figures of every dataset.")] = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Fit the checkpoint's scores to the scale of the manifest, and store the result in its folder.",
        ),
    ] = False,
    views: Annotated[Views, typer.Option(help="Views of each image: nine, as published, or center.")] = "nine",
    device: DeviceOption = None,
    dtype: DtypeOption = "float32",
    batch_size: BatchSizeOption = 8,
    workers: WorkersOption = 0,
) -> None:
    """Compare a model's scores with opinion scores: SRCC, PLCC, KRCC, RMSE, overall and per scene.

    Example: [bold]sind-hf evaluate --model runs/koniq --manifest data_json/livec/all.json --image-root data[/bold]

    With --calibrate, the scale and shift that fit the scores to the opinion scores are stored with the declared range
    in config.json of the checkpoint. The table shows the model before calibration.
    """
    from sind_hf.checkpoints import load_scorer
    from sind_hf.configuration_sind import resolve_checkpoint
    from sind_hf.data.manifests.manifest import Manifest
    from sind_hf.distributed import keep_freed_memory
    from sind_hf.experiments.checkpoint_calibration import calibrate_checkpoint, check_calibration
    from sind_hf.experiments.evaluation import evaluate_manifest
    from sind_hf.experiments.figures import draw_evaluation, prepare_figures
    from sind_hf.files import counted, sole_use, write_json

    terminal.quiet_libraries()
    keep_freed_memory()
    model = resolve_checkpoint(model)
    if calibrate:
        check_calibration(model, len(manifest))
    if output is not None:
        context.with_resource(sole_use(output))  # an output that cannot be written is refused before the work
    manifests = [Manifest.load(path) for path in manifest]
    if plots is not None:
        prepare_figures(plots, [each.dataset for each in manifests])
    scorer, processor = load_scorer(model, device=device, dtype=dtype)
    evaluations = []
    for each in manifests:
        with terminal.progress(each.dataset) as update:
            evaluation = evaluate_manifest(
                scorer,
                processor,
                each,
                image_root,
                views=views,
                batch_size=batch_size,
                workers=workers,
                progress=update,
            )
        evaluations.append(evaluation)
        for line in evaluation.failures:
            terminal.complain(line)
        rows = [[evaluation.dataset, *_cells(evaluation.report)]]
        rows += [[f"  {scene}", *_cells(values)] for scene, values in evaluation.report["by_scene"].items()]
        terminal.show_table("", ["", *COLUMNS], rows)
        within = evaluation.report["within_scene"]
        scenes = counted(within["scenes"], "scene")
        terminal.say(f"mean within {scenes}: SRCC {within['srcc']:.4f}, PLCC {within['plcc']:.4f}")
        terminal.say()
    if output is not None:
        datasets = [asdict(evaluation) for evaluation in evaluations]
        for dataset in datasets:
            dataset["left_out"] = dataset.pop("failures")
        write_json(output, {"model": model, "views": views, "datasets": datasets})
        terminal.say(f"report written to {output}")
    incomplete = any(evaluation.failures for evaluation in evaluations)
    if calibrate:
        config = cast(Any, scorer.config)  # of a folder, as was checked
        calibration = calibrate_checkpoint(model, config, evaluations[0], manifests[0].oriented_range())
        for line in calibration.summary():
            terminal.say(line)
        incomplete = incomplete or not calibration.stored
    if plots is not None:
        for each, evaluation in zip(manifests, evaluations, strict=True):
            for path in draw_evaluation(evaluation, each, plots):
                terminal.say(f"figure written to {path}")
    if incomplete:
        raise typer.Exit(1)


def _cells(values: dict[str, float]) -> list[str]:
    return [
        ("" if name not in values else f"{values[name]:.4f}" if name != "n" else f"{values[name]}") for name in COLUMNS
    ]
