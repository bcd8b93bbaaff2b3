"""Script of test_two_process_experiment.py, started by `accelerate launch` with a configuration and a folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from accelerate import PartialState

from sind_hf.data.views import ViewDataset
from sind_hf.experiments.config import load_config
from sind_hf.experiments.runner import run_experiment

scored: list[str] = []


def main(config: str, folder: Path) -> None:
    torch.set_num_threads(1)
    original = ViewDataset.__getitem__

    def noted(self, key):
        if self.mode == "nine":
            scored.append(Path(self.image_name(int(key))).name)
        return original(self, key)

    ViewDataset.__getitem__ = noted
    records = run_experiment(load_config(config))
    again = run_experiment(load_config(config))  # nothing is left to do
    state = PartialState()
    seen = {"folds": [record["fold"] for record in records], "scored": scored, "same": records == again}
    try:
        run_experiment(load_config(config, ["learning_rate=0.5"]))
    except ValueError as error:  # the main process alone compares; both must stop
        seen["refused"] = str(error)
    (folder / f"process{state.process_index}.json").write_text(json.dumps(seen))
    if state.num_processes > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
