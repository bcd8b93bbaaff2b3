"""Adapters of PEFT, offloading and quantization: whatever replaces or wraps the head takes part in the score."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload

from sind_hf import SindConfig, SindModel

VIT = {"model_type": "vit", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}


def tiny_vit(**options: Any) -> SindModel:
    torch.manual_seed(0)
    vision = {**VIT, "num_attention_heads": 2}
    return SindModel(SindConfig(vision_config=vision, initializer_range=1.0, **options)).eval()


def views() -> tuple[torch.Tensor, torch.Tensor]:
    first, second = torch.randn(2, 2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    return first, second


def test_an_adapter_of_the_head_changes_score_and_map(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(
        tiny_vit(), peft.LoraConfig(r=2, target_modules=["quality_head", "q_proj"], init_lora_weights=False)
    ).eval()
    head = adapted.base_model.model.quality_head
    with torch.no_grad():
        found = adapted(*views(), output_quality_map=True)
        with adapted.disable_adapter():
            plain = adapted(*views(), output_quality_map=True)
        effective = head.base_layer.weight + head.get_delta_weight("default")
        total = head.base_layer.bias + found.global_embeds @ effective[0, :32] + found.quality_map.mean((1, 2))
    torch.testing.assert_close(found.quality, total, rtol=1e-4, atol=1e-4)
    assert (found.quality - plain.quality).abs().min() > 1e-3
    assert (found.quality_map - plain.quality_map).abs().max() > 1e-3
    adapted.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(tiny_vit(), tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(*views()).quality, found.quality, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_an_offloaded_model_scores_the_same(where: str, tmp_path: Path) -> None:
    model = tiny_vit()
    with torch.no_grad():
        expected = model(*views(), output_quality_map=True)
        if where == "cpu":
            cpu_offload(model, execution_device=torch.device("cpu"))
        else:
            disk_offload(model, tmp_path, execution_device=torch.device("cpu"))
        found = model(*views(), output_quality_map=True)
    torch.testing.assert_close(found.quality, expected.quality, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.quality_map, expected.quality_map, rtol=1e-5, atol=1e-5)


def test_a_dynamically_quantized_model_scores_nearly_the_same() -> None:
    model = tiny_vit()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces another module for it
        expected = model(*views()).quality
        quantized = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
        found = quantized(*views(), output_quality_map=True)
    assert not torch.equal(found.quality, expected)
    torch.testing.assert_close(found.quality, expected, rtol=0.05, atol=0.1)
