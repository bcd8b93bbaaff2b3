from __future__ import annotations

import logging
import time
from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard, prepare_data_loader
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from sind_hf.data.sampling import Draw, SceneBatchSampler, SceneStatistics, ShuffledBatchSampler, scene_statistics

SPAQ = (118, 2325, 1098, 797, 1196, 815, 1360, 2904, 512)
KONIQ10K = (2539, 376, 1576, 1813, 724, 736, 835, 1474)


def labels_of(sizes, seed=0):
    """Scene names in a mixed order, `sizes[s]` times `scene s`."""
    labels = np.repeat([f"scene {scene}" for scene in range(len(sizes))], sizes)
    return np.random.default_rng(seed).permutation(labels).tolist()


def shards(sampler, processes):
    return [list(BatchSamplerShard(sampler, processes, rank)) for rank in range(processes)]


def needed_groups(sizes, size):
    return [-(-images // size) for images in sizes]


def scenes_of(batch, labels):
    return Counter(labels[draw.index] for draw in batch)


@st.composite
def scene_sets(draw):
    """Scene sizes, scenes per batch and group size; one scene may dwarf the others."""
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=7))
    sizes[0] *= draw(st.sampled_from([1, 1, 10]))
    return tuple(sizes), draw(st.integers(1, len(sizes))), draw(st.integers(1, 9))


@settings(max_examples=200, deadline=None)
@given(scene_sets(), st.integers(1, 4), st.integers(0, 2**31), st.integers(0, 40))
@example(((33, 32, 25), 3, 1), 2, 0, 0)  # a longer epoch has more free slots than the middle scene may take
def test_an_epoch_over_all_processes(scene_set, processes, seed, epoch):
    sizes, k, size = scene_set
    labels = labels_of(sizes)
    sampler = SceneBatchSampler(labels, k * size, k, seed=seed)
    sampler.set_epoch(epoch)
    batches = list(sampler)

    needed = needed_groups(sizes, size)
    shortest = -(-sum(needed) // k)
    expected = max(needed) if max(needed) <= 1.1 * shortest else shortest
    assert len(sampler) == len(batches) == max(expected, shortest)

    # n/k images of each scene, the scenes distinct wherever the largest one lets them be
    surplus = 0
    for batch in batches:
        assert len(batch) == k * size
        counts = scenes_of(batch, labels)
        assert all(count % size == 0 for count in counts.values())
        surplus += k - len(counts)
    assert surplus == sum(max(0, groups - len(batches)) for groups in needed)

    # every image of a scene as often as the others, up to one time, so none is repeated before it is necessary
    seen = Counter(draw.index for batch in batches for draw in batch)
    for scene in set(labels):
        times = [seen[index] for index, label in enumerate(labels) if label == scene]
        assert min(times) >= 1
        assert max(times) - min(times) <= 1
    assert [draw.position for draw in chain(*batches)] == list(range(len(batches) * k * size))
    assert {draw.epoch for draw in chain(*batches)} == {epoch}

    # the processes together take the same list, whole batch by whole batch, and repeat the first ones at the end
    per_rank = shards(sampler, processes)
    assert (
        {len(own) for own in per_rank}
        == {-(-len(batches) // processes)}
        == {len(BatchSamplerShard(sampler, processes))}
    )
    taken = [batch for step in zip(*per_rank, strict=True) for batch in step]
    assert taken == [batches[number % len(batches)] for number in range(len(taken))]
    assert {draw.index for draw in chain(*taken)} == set(range(len(labels)))


@settings(max_examples=100, deadline=None)
@given(scene_sets())
def test_groups_do_not_repeat_images_of_large_enough_scenes(scene_set):
    sizes, k, size = scene_set
    labels = labels_of(sizes)
    for batch in SceneBatchSampler(labels, k * size, k):
        for start in range(0, k * size, size):
            group = [draw.index for draw in batch[start : start + size]]
            assert len({labels[index] for index in group}) == 1
            if labels.count(labels[group[0]]) >= size:
                assert len(set(group)) == size


@pytest.mark.parametrize("sizes", [SPAQ, KONIQ10K], ids=["spaq", "koniq10k"])
@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("epoch", [0, 1, 34])
def test_all_scenes_distinct_on_the_published_training_sets(sizes, k, epoch):
    labels = labels_of(sizes)
    sampler = SceneBatchSampler(labels, 64, k, seed=7)
    sampler.set_epoch(epoch)
    statistics = scene_statistics(sampler, labels, k)
    assert statistics.distinct_share == 1.0
    assert statistics.images_seen == sum(sizes)
    assert statistics.batches == len(sampler)
    assert statistics.extra_images == len(sampler) * 64 - sum(sizes)
    assert len(sampler) * 64 <= 1.1 * sum(sizes)


@pytest.mark.parametrize(
    "build",
    [lambda: SceneBatchSampler(labels_of(SPAQ), 64, 2, seed=3), lambda: ShuffledBatchSampler(1000, 64, seed=3)],
)
def test_order_depends_on_seed_and_epoch_only(build):
    one, two = build(), build()
    np.random.seed(1)
    torch.manual_seed(1)
    first = list(one)
    np.random.seed(2)
    torch.manual_seed(2)
    assert list(one) == first == list(two)

    indices = []
    for epoch in range(4):
        one.set_epoch(epoch)
        indices.append([draw.index for batch in one for draw in batch])
    assert len({tuple(order) for order in indices}) == 4
    one.set_epoch(0)
    assert list(one) == first

    one.seed += 1
    assert [draw.index for batch in one for draw in batch] != indices[0]


def test_scenes_meet_all_other_scenes():
    labels = labels_of((400, 400, 400, 400))
    sampler = SceneBatchSampler(labels, 16, 2)
    pairs = Counter(frozenset(scenes_of(batch, labels)) for batch in sampler)
    assert len(pairs) == 6
    assert min(pairs.values()) >= 10  # of 100 batches: 16.7 each on average


def test_batches_are_shuffled_at_the_end():
    # Weighted draws leave a large scene out too often at first; then it is forced. The list must not show that.
    labels = labels_of((720, 480, 400))
    missing = []
    for epoch in range(10):
        sampler = SceneBatchSampler(labels, 16, 2)
        sampler.set_epoch(epoch)
        missing += [number for number, batch in enumerate(sampler) if "scene 0" not in scenes_of(batch, labels)]
    assert len(missing) == 10 * 10  # in 10 of the 100 batches of an epoch
    assert 40 < np.mean(missing) < 60  # without the shuffle: 20


def test_a_dominating_scene_takes_only_the_slots_it_needs(caplog):
    sizes = (300, 40, 40)  # groups of ten: 30, 4 and 4, in 19 batches of two
    labels = labels_of(sizes)
    with caplog.at_level(logging.WARNING):
        sampler = SceneBatchSampler(labels, 20, 2)
    assert "'scene 0' has 30 groups of 10 images for 19 batches" in caplog.text
    assert len(sampler) == 19
    assert sum(len(scenes_of(batch, labels)) == 1 for batch in sampler) == 11


def test_a_slightly_too_large_scene_lengthens_the_epoch(caplog):
    sizes = (210, 100, 100)  # 21 groups in ceil(41 / 2) = 21; with 220 it is 22 groups in 21 batches: one batch more
    assert len(SceneBatchSampler(labels_of(sizes), 20, 2)) == 21
    labels = labels_of((220, 100, 100))
    sampler = SceneBatchSampler(labels, 20, 2)
    assert len(sampler) == 22
    assert scene_statistics(sampler, labels, 2) == SceneStatistics(22, 1.0, 420, 20)
    labels = labels_of((220, 90, 90))  # exactly 10 % longer
    assert len(SceneBatchSampler(labels, 20, 2)) == 22
    labels = labels_of((230, 90, 90))  # 23 groups for 21 batches: 9.5 %
    assert len(SceneBatchSampler(labels, 20, 2)) == 23
    labels = labels_of((240, 90, 90))  # 24 groups for 21 batches: 14 %
    assert not caplog.text
    assert len(SceneBatchSampler(labels, 20, 2)) == 21
    assert "fewer than 2 distinct scenes" in caplog.text


def test_labels_of_any_kind_that_a_dataset_column_comes_in():
    numbers = [300, 301, 300, 301, 300, 302]
    plain = list(SceneBatchSampler(numbers, 4, 2))
    assert list(SceneBatchSampler(np.array(numbers), 4, 2)) == plain
    assert list(SceneBatchSampler(torch.tensor(numbers), 4, 2)) == plain
    assert list(SceneBatchSampler([str(number) for number in numbers], 4, 2)) == plain


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 200), st.integers(1, 32), st.integers(1, 4))
def test_plain_sampling(length, batch_size, processes):
    sampler = ShuffledBatchSampler(length, batch_size, seed=5)
    batches = list(sampler)
    assert len(batches) == len(sampler) == -(-length // batch_size)
    assert {len(batch) for batch in batches} == {batch_size}
    drawn = [draw.index for batch in batches for draw in batch]
    assert set(drawn[:length]) == set(range(length))
    if length >= batch_size:
        assert all(len({draw.index for draw in batch}) == batch_size for batch in batches)
    assert [draw.position for draw in chain(*batches)] == list(range(len(drawn)))
    taken = [draw.index for own in shards(sampler, processes) for batch in own for draw in batch]
    assert set(taken) == set(range(length))


class Echo(torch.utils.data.Dataset):
    """Returns what the batch sampler asked for."""

    def __len__(self):
        return sum(KONIQ10K)

    def __getitem__(self, draw):
        return draw.index, draw.epoch, draw.position


def test_a_data_loader_prepared_by_accelerate():
    labels = labels_of(KONIQ10K)
    sampler = SceneBatchSampler(labels, 64, 2)
    plan = list(sampler)
    # As in a real run: every process has its own sampler and its own loader.
    loaders = [
        prepare_data_loader(
            DataLoader(Echo(), batch_sampler=SceneBatchSampler(labels, 64, 2), collate_fn=list),
            num_processes=2,
            process_index=rank,
            put_on_device=False,
            rng_types=[],
        )
        for rank in range(2)
    ]
    assert [len(loader) for loader in loaders] == [len(sampler) // 2] * 2
    assert loaders[0].total_batch_size == 128
    for rank, loader in enumerate(loaders):
        assert list(loader) == plan[rank::2]


def test_workers_carry_the_keys():
    sampler = SceneBatchSampler(labels_of((30, 20)), 8, 2)
    sampler.set_epoch(3)
    loader = DataLoader(Echo(), batch_sampler=sampler, num_workers=2, collate_fn=list)
    assert [draw for batch in loader for draw in batch] == [tuple(draw) for draw in chain(*sampler)]


def test_statistics_count_repeated_scenes_and_images():
    labels = ["a", "a", "b", "b", "c"]
    batches = [[Draw(0, 0, 0), Draw(1, 0, 1)], [Draw(2, 0, 2), Draw(4, 0, 3)], [Draw(0, 0, 4), Draw(3, 0, 5)]]
    assert scene_statistics(batches, labels, 2) == SceneStatistics(3, 2 / 3, 5, 1)
    assert scene_statistics(batches, labels, 1).distinct_share == 1 / 3
    with pytest.raises(ValueError, match="batches is empty"):
        scene_statistics([], labels, 2)


@pytest.mark.parametrize(
    ("scenes", "batch_size", "k", "message"),
    [
        (["a", "b", "c"], 64, 3, "batch_size must be a multiple of scenes_per_batch, got 64 and 3"),
        (["a", "b", "a"], 64, 4, "scenes_per_batch must not exceed the number of scenes, got 4 and 2"),
        (["a", "b"], 64, 0, "scenes_per_batch must be at least 1, got 0"),
        (["a", "b"], 64, -2, "scenes_per_batch must be at least 1, got -2"),
        (["a", "b"], 0, 1, "batch_size must be at least 1, got 0"),
        ([], 64, 2, "scenes is empty"),
        (["a", None, "b"], 64, 2, "image 1 has no scene label"),
    ],
)
def test_bad_arguments_name_rule_and_values(scenes, batch_size, k, message):
    with pytest.raises(ValueError, match=message) as error:
        SceneBatchSampler(scenes, batch_size, k)
    assert "\n" not in str(error.value)


def test_bad_arguments_of_plain_sampling():
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        ShuffledBatchSampler(0, 64)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        ShuffledBatchSampler(10, 0)
    with pytest.raises(ValueError, match="seed must not be negative, got -1"):
        ShuffledBatchSampler(10, 1, seed=-1)


def test_an_epoch_takes_milliseconds():
    sampler = SceneBatchSampler(labels_of(SPAQ), 64, 2)
    seconds = []
    for _ in range(5):
        start = time.process_time()
        for _batch in sampler:
            pass
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.05
