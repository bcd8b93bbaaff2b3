"""The Trainer's progress on our terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class TrainingProgress(TrainerCallback):
    """Reports every optimizer step to `update(done, total)`."""

    def __init__(self, update: Callable[[int, int], None]) -> None:
        self.update = update

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Report one more step."""
        if state.is_world_process_zero:
            self.update(state.global_step, state.max_steps)
