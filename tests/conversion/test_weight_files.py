"""Files of weights from strangers: nothing in them runs, and what cannot be read is named."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sind_hf.conversion.convert import convert_checkpoint
from sind_hf.conversion.weight_files import listed, read_weights


class Payload:
    """Makes a file when it is unpickled by whoever lets it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


class Evaluated(Payload):
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"open({str(self.mark)!r}, 'w').close()",)


def refused(path: Path, *words: str) -> None:
    with pytest.raises(ValueError) as error:
        read_weights(path)
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("payload", [Payload, Evaluated])
@pytest.mark.parametrize("kind", ["pickle", "zip", "legacy", "among tensors", "wrapped", "renamed"])
def test_pickles_that_hold_more_than_tensors_are_refused_unrun(tmp_path: Path, kind: str, payload: Any) -> None:
    mark, file = tmp_path / "mark", tmp_path / ("w.safetensors" if kind == "renamed" else "w.pth")
    content: Any = payload(mark)
    if kind == "pickle":
        file.write_bytes(pickle.dumps(content))
    elif kind in ("zip", "renamed"):
        torch.save(content, file)
    elif kind == "legacy":
        torch.save({"head.weight": content}, file, _use_new_zipfile_serialization=False)
    elif kind == "among tensors":
        torch.save({"head.weight": torch.ones(1, 2), "head.bias": content}, file)
    else:
        torch.save({"state_dict": {"head.weight": torch.ones(1, 2)}, "args": content}, file)
    refused(
        file,
        "cannot be read as safetensors" if kind == "renamed" else "refused, because it contains more than tensors",
    )
    with pytest.raises(ValueError):
        convert_checkpoint(file, tmp_path / "out")
    assert not mark.exists() and not (tmp_path / "out").exists()
    # The payload is a live one: a careless reader runs it.
    careless = file.rename(tmp_path / "careless.pth")
    if kind == "pickle":
        pickle.loads(careless.read_bytes())
    else:
        torch.load(careless, weights_only=False)
    assert mark.exists()


def test_a_module_is_not_a_state_dict(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 1), tmp_path / "module.pth")
    refused(tmp_path / "module.pth", "torch.nn.modules.linear.Linear", "state_dict()")


def test_a_program_is_refused(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning) if torch.__version__ >= "2.10" else pytest.MonkeyPatch.context():
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 1)), str(tmp_path / "clip.pt"))
    refused(tmp_path / "clip.pt", "TorchScript", "torch.jit.load")


def test_damaged_and_empty_files(tmp_path: Path) -> None:
    refused(tmp_path / "gone.pth", "no such file")
    refused(tmp_path, "no such file")
    whole = tmp_path / "whole.pth"
    torch.save({"a": torch.ones(1000)}, whole)
    (tmp_path / "cut.pth").write_bytes(whole.read_bytes()[:2000])
    refused(tmp_path / "cut.pth", "damaged")
    (tmp_path / "text.pth").write_text("version https://git-lfs.github.com/spec/v1\n")
    refused(tmp_path / "text.pth", "damaged")
    (tmp_path / "nothing.bin").write_bytes(b"")
    refused(tmp_path / "nothing.bin", "damaged")
    (tmp_path / "bad.safetensors").write_bytes(whole.read_bytes())
    refused(tmp_path / "bad.safetensors", "safetensors")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([torch.ones(1)], ["contains a list"]),
        (torch.ones(1), ["contains a Tensor"]),
        ({}, ["no weights", "nothing"]),
        ({"epoch": 3, "lr": 0.1}, ["no weights", "epoch, lr"]),
        ({"state_dict": {"note": "x"}}, ["no weights", "note"]),
        ({"a": torch.ones(1), "epoch": 3}, ["epoch", "entries that are not tensors"]),
        ({"a": torch.ones(1), 5: torch.ones(1)}, ["5", "entries that are not tensors"]),
    ],
)
def test_contents_that_are_not_weights(tmp_path: Path, content: Any, words: list[str]) -> None:
    torch.save(content, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", *words)


def test_wrappings_are_taken_off(tmp_path: Path) -> None:
    weights = {"head.weight": torch.arange(3.0), "module.bias": torch.ones(1)}
    for number, content in enumerate(
        [
            weights,
            {"epoch": 3, "state_dict": weights, "optimizer": {"lr": 1}},
            {"step": torch.tensor(4), "model": {f"module._orig_mod.{key}": value for key, value in weights.items()}},
            {"net": {"module": {f"model.{key}": value for key, value in weights.items()}}},
        ]
    ):
        torch.save(content, tmp_path / f"{number}.pth")
        found = read_weights(tmp_path / f"{number}.pth")
        assert found.keys() == weights.keys()
        assert torch.equal(found["head.weight"], weights["head.weight"])
    save_file({f"module.{key}": value for key, value in weights.items()}, tmp_path / "w.safetensors")
    assert read_weights(tmp_path / "w.safetensors").keys() == weights.keys()


def test_long_lists_are_cut() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcdef")) == "a, b, c, d … (6 in all)"
