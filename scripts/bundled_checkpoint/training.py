"""Stage 3: fine-tune the backbone on crops and studies together, each of them a domain that is aligned on its own.

A step takes a batch of crops and a batch of one study. Their losses are independent, so each is computed by its own
thread, on its own core: two threads with one core each do more than one thread with two.
"""

from __future__ import annotations

import ctypes
import json
import math
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from backbone import MEAN, STD, features, load_backbone
from crops import Crops
from studies import STUDIES, Study
from torch import Tensor, nn
from views import Views

from sind_hf.losses import FLOOR, by_scene

FOLDS = 5
_LADDERS, _RUNGS = 2, 4
_SAVE_EVERY = 25
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # options of glibc's mallopt


@dataclass
class TrainingSettings:
    """Settings of a training, the keys of `training.yaml`.

    Attributes:
        backbone: Size of EfficientNet-Lite.
        frozen: Blocks of the backbone, from the first on, that keep their weights.
        steps: Optimizer steps.
        warmup: Steps until the learning rates are reached; they then follow a cosine.
        start: Training whose weights to start from, a folder beside this one's; `null` starts from ImageNet's.
        crops: Images in a batch of crops, 8 of them in two ladders; 0 for none.
        crops_only: Share of the steps that take a second batch of crops in place of a batch of a study.
        opinions: Images in a batch of a study.
        within_generators: Share of the batches of AGIQA-3K whose images all come from one generator.
        studies: Share of the batches of studies that each study gets.
        loss: Loss of a domain, a name of `sind_hf.losses.LOSSES`.
        order: Weight of the order within ladders.
        backbone_rate: Learning rate of the backbone.
        head_rate: Learning rate of the head.
        ema: Decay of the averaged weights.
        fold: Fold of scenes and photographs to hold out; `null` holds out nothing.
        generators: Generators of AGIQA-3K to hold out.
        without: Study to leave out altogether.
        seed: Seed of every random choice.
    """

    backbone: str = "lite0"
    frozen: int = 3
    steps: int = 400
    warmup: int = 20
    start: str | None = None
    crops: int = 16
    crops_only: float = 0.0
    opinions: int = 16
    within_generators: float = 0.5
    studies: dict[str, float] = field(default_factory=dict)
    loss: str = "plcc"
    order: float = 0.5
    backbone_rate: float = 2e-4
    head_rate: float = 1e-3
    ema: float = 0.98
    fold: int | None = None
    generators: Sequence[str] = ()
    without: str | None = None
    seed: int = 0


class Quality(nn.Module):
    """The network of SIND over EfficientNet-Lite: a linear head on the mean cell of the global and the local view."""

    def __init__(self, backbone: str = "lite0", frozen: int = 0) -> None:
        super().__init__()
        self.frozen = frozen
        self.backbone = load_backbone(backbone).to(memory_format=torch.channels_last)
        if frozen:
            for part in (self.backbone.embeddings, *self.backbone.encoder.blocks[:frozen]):
                part.requires_grad_(False)
        self.head = nn.Linear(2 * self.backbone.config.hidden_dim, 1)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, whole: Tensor, local: Tensor) -> Tensor:
        """Return raw scores, (B,), of uint8 views, (B, 3, s, s)."""
        device = self.head.weight.device
        pixels = torch.cat([whole, local]).to(device).float().div_(255).sub_(MEAN).div_(STD)
        cells = features(self.backbone, pixels.contiguous(memory_format=torch.channels_last), self.frozen)
        return self.head(torch.cat(cells.mean((2, 3)).chunk(2), 1))[:, 0]

    @torch.no_grad()
    def score(self, views: Views, indices: Sequence[int], batch_size: int = 16) -> npt.NDArray[np.float64]:
        """Return the raw scores of images, by their centered views."""
        parts = [indices[first : first + batch_size] for first in range(0, len(indices), batch_size)]
        return np.concatenate([self(*views.centered(part)).double().cpu().numpy() for part in parts])


def fold_of(name: str) -> int:
    """Return the fold of a scene or a photograph, which depends on its name alone."""
    return zlib.crc32(name.encode()) % FOLDS


def held_out(groups: Sequence[str], study: str, settings: TrainingSettings) -> npt.NDArray[np.bool_]:
    """Return which images of a study a training does not see."""
    if study == settings.without:
        return np.ones(len(groups), bool)
    if study == "agiqa3k":
        return np.isin(groups, list(settings.generators))
    return np.array([settings.fold is not None and fold_of(group) == settings.fold for group in groups])


def order_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Ask that each step of a ladder lowers the score by half of what it lowers the label, and at least by a little.

    Args:
        scores: Scores of ladders in units of the deviation of the batch, (ladders, rungs).
        labels: Their labels in such units, falling.
    """
    falls, asked = -scores.diff(dim=1), -labels.diff(dim=1)
    return F.relu((0.5 * asked).clamp_min(0.05) - falls).mean()


def crops_loss(
    model: Quality, crops: Crops, allowed: npt.NDArray[np.bool_], settings: TrainingSettings, rng: np.random.Generator
) -> Tensor:
    """Return the loss of a batch of crops: aligned over photographs and distortions, and ordered in ladders."""
    ladders = [ladder for ladder in crops.ladders if allowed[ladder[0]]]
    indices: list[int] = []
    for ladder in rng.choice(len(ladders), _LADDERS, replace=False):
        rungs = np.sort(rng.choice(len(ladders[ladder]), _RUNGS, replace=False))
        indices += [ladders[ladder][rung] for rung in rungs]
    indices += rng.choice(np.flatnonzero(allowed), settings.crops - len(indices), replace=False).tolist()
    scores, labels = _scored(model, crops, indices, rng)
    aligned = by_scene(scores, labels, None, settings.loss)
    scores, labels = (values / values.detach().std().clamp_min(FLOOR) for values in (scores, labels))
    in_ladders = _LADDERS * _RUNGS
    ordered = order_loss(scores[:in_ladders].view(_LADDERS, _RUNGS), labels[:in_ladders].view(_LADDERS, _RUNGS))
    return aligned + settings.order * ordered


def study_loss(
    model: Quality, study: Study, allowed: npt.NDArray[np.bool_], settings: TrainingSettings, rng: np.random.Generator
) -> Tensor:
    """Return the aligned loss of a batch of one study."""
    members = np.flatnonzero(allowed)
    if "AGIQA-3K" in study.images[0] and rng.random() < settings.within_generators:
        members = members[study.groups[members] == rng.choice(np.unique(study.groups[members]))]
    indices = rng.choice(members, settings.opinions, replace=False).tolist()
    return by_scene(*_scored(model, study, indices, rng), None, settings.loss)


def _scored(model: Quality, views: Views, indices: list[int], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return scores, and labels standardized over the domain, which matters to losses that do not align."""
    scores = model(*views.drawn(indices, rng))
    labels = (views.labels[indices] - views.labels.mean()) / views.labels.std()
    return scores, torch.tensor(labels, dtype=torch.float32, device=scores.device)


def _gradients(job: Callable[[], Tensor], parameters: list[Tensor]) -> tuple[float, tuple[Tensor, ...]]:
    loss = job()
    return float(loss.detach()), torch.autograd.grad(loss, parameters)


def train(settings: TrainingSettings, data: Path, output: Path, device: str = "cpu") -> Path:
    """Train, or go on from the last saved state; return the file of the averaged weights.

    Args:
        settings: What to train.
        data: Folder with the views of crops and studies.
        output: Folder of this training.
        device: Where to train.
    """
    finished, state = output / "weights.pt", output / "state.pt"
    if finished.is_file():
        return finished
    output.mkdir(parents=True, exist_ok=True)
    (output / "settings.json").write_text(json.dumps(asdict(settings), indent=1))
    torch.manual_seed(settings.seed)
    torch.set_num_threads(1)
    keep_memory()
    crops = Crops(data / "crops")
    studies = {name: Study(data / "studies" / name) for name in STUDIES}
    allowed = {name: ~held_out(study.groups, name, settings) for name, study in studies.items()}
    allowed["crops"] = np.array(
        [settings.fold is None or fold_of(name) != settings.fold for name in crops.photographs]
    )
    shares = np.array([settings.studies[name] * allowed[name].any() for name in STUDIES])
    shares /= shares.sum()

    model = Quality(settings.backbone, settings.frozen).eval().to(device)  # the statistics of BatchNorm stay
    if settings.start:
        model.load_state_dict(torch.load(output.parent / settings.start / "weights.pt", weights_only=True))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rates = [settings.backbone_rate, settings.head_rate]
    optimizer = torch.optim.Adam(
        [{"params": parameters[:-2], "lr": rates[0]}, {"params": parameters[-2:], "lr": rates[1]}]
    )
    average = [parameter.detach().clone() for parameter in parameters]
    start, losses = 0, []
    if state.is_file():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        average, start, losses = saved["average"], saved["step"], saved["losses"]
    with ThreadPoolExecutor(2) as pool:
        for step in range(start, settings.steps):
            _set_rates(optimizer, rates, step, settings)
            rng = np.random.default_rng([settings.seed, step])
            name = STUDIES[int(rng.choice(len(STUDIES), p=shares))]
            second = settings.crops > 0 and rng.random() < settings.crops_only
            jobs: list[Callable[[], Tensor]] = []
            if not second:
                jobs.append(partial(study_loss, model, studies[name], allowed[name], settings, rng.spawn(1)[0]))
            for _ in range((settings.crops > 0) + second):
                jobs.append(partial(crops_loss, model, crops, allowed["crops"], settings, rng.spawn(1)[0]))
            done = [job.result() for job in [pool.submit(_gradients, job, parameters) for job in jobs]]
            for parameter, *gradients in zip(parameters, *(gradients for _, gradients in done), strict=True):
                parameter.grad = sum(gradients[1:], gradients[0])
            optimizer.step()
            _update(average, parameters, min(settings.ema, (1 + step) / (10 + step)))
            losses.append(float(np.mean([loss for loss, _ in done])))
            if (step + 1) % _SAVE_EVERY == 0:
                print(f"step {step + 1}: mean loss {np.mean(losses[-_SAVE_EVERY:]):.3f}", flush=True)
                document = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average}
                _save(document | {"step": step + 1, "losses": losses}, state)
    _update(parameters, average, 0.0)
    _save(model.state_dict(), finished)
    return finished


def keep_memory() -> None:
    """Let the C library keep what it frees; otherwise each large tensor is fetched from the kernel page by page.

    It makes a training step on a CPU about 1.6 times as fast. Other C libraries have no such options.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_ARENA_MAX, 1)):
            mallopt(option, value)


def _set_rates(optimizer: torch.optim.Optimizer, rates: list[float], step: int, settings: TrainingSettings) -> None:
    cosine = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * min(1, (step + 1) / settings.warmup) * max(cosine, 0.01)


@torch.no_grad()
def _update(average: list[Tensor], parameters: list[Tensor], decay: float) -> None:
    for mean, parameter in zip(average, parameters, strict=True):
        mean.lerp_(parameter, 1 - decay)


def _save(document: object, path: Path) -> None:
    part = path.with_suffix(".part")
    torch.save(document, part)
    part.replace(path)


def load_trained(output: Path) -> Quality:
    """Return the network of a finished training, with its averaged weights."""
    settings = json.loads((output / "settings.json").read_text())
    model = Quality(settings["backbone"], settings["frozen"]).eval()
    model.load_state_dict(torch.load(output / "weights.pt", weights_only=True))
    return model
