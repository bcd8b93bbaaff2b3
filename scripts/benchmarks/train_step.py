"""Time of one training step: as published, with both views in one backbone call, in bfloat16, compiled.

    python scripts/benchmarks/train_step.py [--backbone vit-b16] [--batch-size 64] [--rounds 7] [--compile]

Prints a Markdown table; runs on the GPU where there is one. Views are random uint8; a step is forward, loss, backward
and Adam. `published` is written from its description: two backbone calls, attention without a fused kernel, float32
throughout, normalized pixels as input. Before anything is timed, the scores of every way are compared with it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from rounds import machine, time_in_turn

from sind_hf import SindConfig, SindModel
from sind_hf.losses import by_scene

BACKBONES: dict[str, dict[str, Any]] = {
    "vit-b16": {"model_type": "clip_vision_model", "patch_size": 16},
    "vit-small": {
        "model_type": "clip_vision_model",
        "patch_size": 16,
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "projection_dim": 128,
    },
    "vit-l14": {
        "model_type": "clip_vision_model",
        "patch_size": 14,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "projection_dim": 768,
    },
    "resnet-50": {"model_type": "resnet"},
}
# Of the scores' standard deviation over the batch.
TOLERANCE = {"one call": 1e-3, "bfloat16": 0.1, "bfloat16, compiled": 0.1}


class PublishedSteps:
    """The published forward pass: one call per view."""

    def __init__(self, model: SindModel) -> None:
        self.model = model
        model.set_attn_implementation("eager")

    def __call__(self, views: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        model = self.model
        pixels = [(view.float() / 255 - model.image_mean) / model.image_std for view in views]
        (global_last, global_pooled), (local_last, _) = (
            model._tokens_and_pooled(model.vision_model(pixel_values=each)) for each in pixels
        )
        embeds = torch.cat(
            [model._class_token(global_last, global_pooled), model._patch_tokens(local_last).mean(1)], dim=-1
        )
        return model.quality_head(embeds).squeeze(-1)


def ways(backbone: str, device: str, compiled: bool) -> dict[str, tuple[SindModel, Callable[..., torch.Tensor], bool]]:
    """Model, forward pass and whether it is in bfloat16, by name; all with the same weights."""
    torch.manual_seed(0)
    config = SindConfig(vision_config=BACKBONES[backbone])
    first = SindModel(config).to(device)
    names = ["published", "one call", "bfloat16", *(["bfloat16, compiled"] if compiled else [])]
    models = {name: SindModel(config).to(device) for name in names}
    for model in models.values():
        model.load_state_dict(first.state_dict())
    if compiled:
        models["bfloat16, compiled"].compile()

    def ours(model: SindModel) -> Callable[..., torch.Tensor]:
        return lambda views: model(*views).quality

    found: dict[str, tuple[SindModel, Callable[..., torch.Tensor], bool]] = {
        "published": (models["published"], PublishedSteps(models["published"]), False)
    }
    return found | {name: (models[name], ours(models[name]), "bfloat16" in name) for name in names[1:]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=list(BACKBONES), default="vit-b16")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="also with torch.compile, which takes minutes")
    parser.add_argument("--threads", type=int, help="of torch, on a CPU")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    generator = torch.Generator().manual_seed(0)
    shape = (2, options.batch_size, 3, 224, 224)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(device)
    views, target = (pixels[0], pixels[1]), torch.rand(options.batch_size, generator=generator).to(device)

    found = ways(options.backbone, device, options.compile)
    scores = {}
    for name, (model, forward, half) in found.items():
        model.eval()  # BatchNorm's statistics are those of both views together in one way, apart in the other
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16) if half else nullcontext():
            scores[name] = forward(views).float()
        model.train()
    for name, tolerance in TOLERANCE.items():
        if name in scores:
            difference = float((scores[name] - scores["published"]).abs().max() / scores["published"].std())
            if difference > tolerance:
                raise SystemExit(f"error: the scores of {name} are off by {difference:.3f} of their deviation")

    def step_of(name: str) -> Callable[[int], None]:
        model, forward, half = found[name]
        optimizer = torch.optim.Adam(
            model.parameters(), lr=1e-5, fused=device == "cuda" and name != "published" or None
        )

        def step(number: int) -> None:
            with torch.autocast(device, torch.bfloat16) if half else nullcontext():
                quality = forward(views)
            by_scene(quality, target, None, "scale_shift").backward()
            optimizer.step()
            optimizer.zero_grad()
            wait()

        return step

    timed = time_in_turn({name: step_of(name) for name in found}, options.rounds, warm_up=2 if device == "cuda" else 1)
    what = f"{options.backbone}, batches of {options.batch_size}"
    print(f"One training step, {what} ({machine()}; medians of {options.rounds} rounds)\n")
    print("| way | images/s | of the published step's time |")
    print("| --- | ---: | ---: |")
    for name in found:
        rate = options.batch_size / timed.median(name)
        print(f"| {name} | {rate:.1f} | {timed.ratio(name, 'published'):.2f}× |")


if __name__ == "__main__":
    main()
