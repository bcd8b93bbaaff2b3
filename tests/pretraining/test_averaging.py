"""The mean of checkpoints: of the weights as they are, of BatchNorm's statistics as its layers meet them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from sind_hf import SindConfig, SindImageProcessor, SindModel
from sind_hf.data.manifest import Manifest, ManifestEntry
from sind_hf.data.preparation import prepare
from sind_hf.image_processing_sind import load_image
from sind_hf.pretraining import averaging
from sind_hf.pretraining.averaging import average_checkpoints

TINY = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}


def test_weights_are_averaged_and_statistics_are_measured(
    photographs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = SindImageProcessor(size={"height": 56, "width": 56})
    states = []
    for seed in (0, 1, 2):
        torch.manual_seed(seed)
        model = SindModel(SindConfig(vision_config=TINY, view_size=56))
        states.append(model.state_dict())
        model.save_pretrained(tmp_path / str(seed))
        processor.save_pretrained(tmp_path / str(seed))
    root = next(iter(photographs.values())).parent
    entries = [ManifestEntry(path.name, 0.0, "all", 0) for path in photographs.values()]
    manifests = [Manifest("some", entries[:5]), Manifest("others", entries[5:])]
    prepare(Manifest("all", entries), root, tmp_path / "prepared", view_size=56)
    monkeypatch.setattr(averaging, "_EVERY", 1)

    folders = [tmp_path / str(seed) for seed in (0, 1, 2)]
    model, found = average_checkpoints(folders, manifests, tmp_path / "prepared")
    assert not model.training and found.size == processor.size
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight, sum(state[name] for state in states) / 3)

    # The first BatchNorm meets what the first convolution makes of the views of all ten pictures.
    met: list[torch.Tensor] = []
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    norms[0].register_forward_pre_hook(lambda module, inputs: met.append(inputs[0]))
    pictures = [load_image(path) for path in photographs.values()]
    with torch.inference_mode():
        model(**found(pictures, do_rescale=False, do_normalize=False, return_tensors="pt", views="center"))
    torch.testing.assert_close(norms[0].running_mean, met[0].mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(norms[0].running_var, met[0].var((0, 2, 3)), rtol=1e-3, atol=1e-4)
    assert all(norm.momentum == 0.1 for norm in norms)  # as before, should it be trained further
