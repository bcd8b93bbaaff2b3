"""Batches for scene-aligned training: every batch holds k distinct scenes, with equally many images of each.

The alignment losses compare score distributions scene by scene, so a batch must hold several images of few scenes.
`SceneBatchSampler` builds such batches. `ShuffledBatchSampler` draws random batches for runs without scenes
(`scene_sampling=0`). Both are made for `DataLoader(batch_sampler=...)` and for `accelerate`'s `BatchSamplerShard`,
which gives process r every world_size-th batch. This requires that all processes see the same list, so the order
depends only on the labels, the seed and the epoch.

```python
sampler = SceneBatchSampler(dataset["scene"], batch_size=64, scenes_per_batch=2, seed=0)
for epoch in range(epochs):
    sampler.set_epoch(epoch)
    for batch in sampler:  # 64 draws: 32 images of one scene, 32 of another
        ...
```
"""

from __future__ import annotations

import heapq
import logging
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

logger = logging.getLogger(__name__)

Indices = npt.NDArray[np.int64]

# A scene with more groups than batches makes the epoch longer, up to this share. Beyond it, the scene takes more than
# one slot of some batches instead.
_LONGEST_EPOCH_PERCENT = 110


class Draw(NamedTuple):
    """One image of a batch, with the key of its augmentation.

    An image that is drawn twice in an epoch has two positions and so two augmentations. The key is passed on with the
    index, so the augmentation does not depend on the worker that loads the image.

    Attributes:
        index: Index of the image in the dataset.
        epoch: Epoch of the draw.
        position: Position in the epoch's list of images, over all processes together; unique within the epoch.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which is not used
    epoch: int
    position: int


class SceneStatistics(NamedTuple):
    """Summary of one epoch of a batch sampler.

    Attributes:
        batches: Number of batches.
        distinct_share: Share of the batches with exactly the wanted number of distinct scenes, in [0, 1].
        images_seen: Number of different images drawn.
        extra_images: Number of repeated draws, which fill up groups and batches.
    """

    batches: int
    distinct_share: float
    images_seen: int
    extra_images: int


class EpochBatchSampler(ABC):
    """A seeded sampler of full batches that has a new order in every epoch.

    Attributes:
        batch_size: Images per batch; no batch is smaller.
        drop_last: Always False. If the number of batches is not a multiple of the number of processes, `accelerate`
            repeats the first batches.
        seed: Seed of the order.
        epoch: Epoch of the next iteration.
    """

    drop_last = False

    def __init__(self, batch_size: int, seed: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration.

        In several processes, `accelerate` does not pass the epoch on to a custom batch sampler: call this in every
        process before each epoch.
        """
        self.epoch = epoch

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of batches of an epoch, over all processes; the same in every epoch."""

    def __iter__(self) -> Iterator[list[Draw]]:
        """Yield the batches of the current epoch, as lists of `batch_size` draws."""
        epoch = self.epoch
        plan = self._plan(np.random.default_rng([self.seed, epoch]))
        for number, indices in enumerate(plan):
            first = number * self.batch_size
            yield [Draw(index, epoch, first + slot) for slot, index in enumerate(indices.tolist())]

    @abstractmethod
    def _plan(self, rng: np.random.Generator) -> Indices:
        """Return the dataset indices of an epoch, shape (len(self), batch_size)."""


class SceneBatchSampler(EpochBatchSampler):
    """Batches of `scenes_per_batch` distinct scenes with `batch_size / scenes_per_batch` images of each.

    Every image is drawn at least once per epoch, over all processes together. Images are drawn in groups of one scene.
    If the size of a scene is not a multiple of the group size, its last group is filled with images of the same scene,
    and no image is drawn twice before all others were drawn. The scenes of a batch are distinct, unless one scene has
    more groups than 110 % of the number of batches; a warning names it. (The implementation published with the paper
    shuffles groups freely, which repeats scenes within batches; this is the sampling that the paper describes.)

    Args:
        scenes: Scene label of every image, in the order of the dataset.
        batch_size: Images per batch and process (n, published: 64).
        scenes_per_batch: Scenes per batch and process (k, published: 2); must divide `batch_size`.
        seed: Seed of the order.

    Raises:
        ValueError: If there are no images, or an image has no label. If `scenes_per_batch` is more than the number of
            scenes, or does not divide `batch_size`.
    """

    def __init__(self, scenes: Sequence[int | str], batch_size: int, scenes_per_batch: int, *, seed: int = 0) -> None:
        super().__init__(batch_size, seed)
        if scenes_per_batch < 1:
            raise ValueError(
                f"scenes_per_batch must be at least 1, got {scenes_per_batch}; use ShuffledBatchSampler for batches "
                "without scenes"
            )
        if batch_size % scenes_per_batch:
            raise ValueError(
                f"batch_size must be a multiple of scenes_per_batch, got {batch_size} and {scenes_per_batch}"
            )
        self.scenes_per_batch = scenes_per_batch
        self.group_size = batch_size // scenes_per_batch
        self._members = _images_by_scene(scenes)
        if not self._members:
            raise ValueError("scenes is empty: give the scene label of every image")
        if len(self._members) < scenes_per_batch:
            found = f"{scenes_per_batch} and {len(self._members)}"
            raise ValueError(f"scenes_per_batch must not exceed the number of scenes, got {found}")
        self._needed = [-(-len(images) // self.group_size) for images in self._members.values()]
        self._batches = self._count_batches()

    @property
    def scene_count(self) -> int:
        """Number of scenes."""
        return len(self._members)

    def __len__(self) -> int:
        return self._batches

    def _count_batches(self) -> int:
        """Return the number of batches for all groups, or one per group of the largest scene if that is cheap."""
        batches = -(-sum(self._needed) // self.scenes_per_batch)
        largest = max(self._needed)
        if largest <= batches:
            return batches
        if 100 * largest <= _LONGEST_EPOCH_PERCENT * batches:
            return largest
        logger.warning(
            "scene %r has %d groups of %d images for %d batches: some batches hold fewer than %d distinct scenes",
            list(self._members)[self._needed.index(largest)],
            largest,
            self.group_size,
            batches,
            self.scenes_per_batch,
        )
        return batches

    def _plan(self, rng: np.random.Generator) -> Indices:
        groups = self._share_out_slots(rng)
        slots = self._schedule(groups, rng)
        plan = np.empty((self._batches, self.scenes_per_batch, self.group_size), dtype=np.int64)
        for scene, (images, count) in enumerate(zip(self._members.values(), groups, strict=True)):
            plan[slots == scene] = _draw_groups(images, count, self.group_size, rng)
        return rng.permutation(plan.reshape(self._batches, self.batch_size))

    def _share_out_slots(self, rng: np.random.Generator) -> list[int]:
        """Return the number of groups of every scene: the groups that it needs, plus its share of the free slots.

        A free slot goes to the scene whose images it repeats the least, which is the largest scene first. Only scenes
        with fewer groups than batches can take one, because otherwise they would be twice in a batch. There is always
        such a scene, because there are at least `scenes_per_batch` scenes.
        """
        groups = list(self._needed)
        free = self._batches * self.scenes_per_batch - sum(groups)
        ties = rng.permutation(len(groups)).tolist()
        queue = [
            (1 / needed, tie, scene)
            for scene, (needed, tie) in enumerate(zip(groups, ties, strict=True))
            if needed < self._batches
        ]
        heapq.heapify(queue)
        for _ in range(free):
            _, tie, scene = heapq.heappop(queue)
            groups[scene] += 1
            if groups[scene] < self._batches:
                needed = self._needed[scene]
                heapq.heappush(queue, ((groups[scene] - needed + 1) / needed, tie, scene))
        return groups

    def _schedule(self, groups: Sequence[int], rng: np.random.Generator) -> Indices:
        """Return the scene of every slot, shape (batches, scenes_per_batch), for a number of groups of every scene.

        A scene with as many remaining groups as there are remaining batches must be in each of them. The other slots
        are drawn without replacement, weighted by the remaining groups. Two facts stay true from batch to batch: the
        remaining groups fill the remaining batches exactly, and no scene has more groups than there are batches. So
        the drawing always succeeds.
        """
        # A scene with more groups than batches is in every batch `each` times; its other groups are scheduled.
        each, left = np.divmod(np.asarray(groups, dtype=np.int64), self._batches)
        always = np.repeat(np.arange(len(groups)), each)
        drawn = self.scenes_per_batch - len(always)
        slots = np.empty((self._batches, self.scenes_per_batch), dtype=np.int64)
        slots[:, drawn:] = always
        if drawn == 0:
            return slots
        for number in range(self._batches):
            # Weighted drawing without replacement: the smallest of exponential variables divided by their weights.
            keys = np.full(len(groups), np.inf)
            np.divide(rng.standard_exponential(len(groups)), left, out=keys, where=left > 0)
            keys[left == self._batches - number] = -1.0
            chosen = np.argpartition(keys, drawn - 1)[:drawn]
            left[chosen] -= 1
            slots[number, :drawn] = chosen
        return slots


class ShuffledBatchSampler(EpochBatchSampler):
    """Random batches without scenes: every image once per epoch, and repeated images to fill the last batch.

    Args:
        length: Number of images of the dataset.
        batch_size: Images per batch and process.
        seed: Seed of the order.

    Raises:
        ValueError: If there are no images or `batch_size` is less than 1.
    """

    def __init__(self, length: int, batch_size: int, *, seed: int = 0) -> None:
        super().__init__(batch_size, seed)
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}: give the number of images")
        self.length = length

    def __len__(self) -> int:
        return -(-self.length // self.batch_size)

    def _plan(self, rng: np.random.Generator) -> Indices:
        return _draw_groups(np.arange(self.length), len(self), self.batch_size, rng)


def scene_statistics(
    batches: Iterable[Sequence[Draw]], scenes: Sequence[int | str], scenes_per_batch: int
) -> SceneStatistics:
    """Summarize one epoch of batches: the scenes in a batch and the repeated images.

    Args:
        batches: Batches of an epoch, for example a sampler.
        scenes: Scene label of every image, in the order of the dataset.
        scenes_per_batch: Wanted number of distinct scenes in a batch (k).

    Raises:
        ValueError: If there is no batch.
    """
    count = distinct = draws = 0
    seen: set[int] = set()
    for batch in batches:
        count += 1
        draws += len(batch)
        seen.update(draw.index for draw in batch)
        distinct += len({scenes[draw.index] for draw in batch}) == scenes_per_batch
    if count == 0:
        raise ValueError("batches is empty: give the batches of an epoch")
    return SceneStatistics(count, distinct / count, len(seen), draws - len(seen))


def _images_by_scene(scenes: Sequence[int | str]) -> dict[Hashable, Indices]:
    """Return the image indices of every scene; scenes are in the order of their first image."""
    # Elements of arrays and tensors become Python numbers, because equal elements of a tensor hash differently.
    labels = scenes.tolist() if hasattr(scenes, "tolist") else scenes
    members: dict[Hashable, list[int]] = {}
    for index, scene in enumerate(labels):
        if scene is None:
            raise ValueError(f"image {index} has no scene label; label all images, or sample without scenes")
        members.setdefault(scene, []).append(index)
    return {scene: np.asarray(indices, dtype=np.int64) for scene, indices in members.items()}


def _draw_groups(images: Indices, count: int, size: int, rng: np.random.Generator) -> Indices:
    """Draw `count` groups of `size` images, (count, size): all in random order, then all again, as often as needed.

    No image is drawn twice before every other image was drawn. If there are at least `size` images, no group has an
    image twice.
    """
    total = len(images)
    passes = -(-count * size // total)
    order = rng.permuted(np.broadcast_to(images, (passes, total)), axis=1)
    if total >= size:
        for number in range(1, passes):
            # The last images of a pass share a group with the first ones of the next pass, which must differ.
            head = number * total % size
            again = np.isin(order[number], order[number - 1, total - head :])
            order[number] = np.concatenate([order[number, ~again], order[number, again]])
    return order.reshape(-1)[: count * size].reshape(count, size)
