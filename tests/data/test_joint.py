from __future__ import annotations

from collections import Counter

from sind_hf.data.manifests.manifest import Manifest, ManifestEntry
from sind_hf.data.training_sets import joint_rows, with_dataset_domains


def manifest_of(dataset, domains):
    entries = [
        ManifestEntry(f"{dataset}/{number}.png", float(number), f"scene {domain}", domain)
        for number, domain in enumerate(domains)
    ]
    names = {domain: f"scene {domain}" for domain in domains}
    return Manifest(dataset=dataset, entries=entries, domain_names=names)


def test_the_data_set_is_the_domain():
    # As published, BID and CID2013 collide under domain_id // 100, and PIPAL falls in two.
    bid, cid, pipal = (
        manifest_of("bid", [400, 403]),
        manifest_of("cid2013", [450]),
        manifest_of("pipal", [1599, 1600]),
    )
    result = with_dataset_domains([pipal, bid, cid])
    assert [manifest.dataset for manifest in result] == ["pipal", "bid", "cid2013"]
    domains = [{(entry.domain_id, entry.scene) for entry in manifest.entries} for manifest in result]
    assert all(len(pairs) == 1 for pairs in domains)
    assert len(set.union(*domains)) == 3
    for manifest, ((domain, scene),) in zip(result, domains, strict=True):
        assert scene == manifest.dataset
        assert manifest.domain_names == {domain: scene}
    # neither the order nor the split decides on the ids
    again = with_dataset_domains([bid, bid, pipal, cid])
    assert [again[0], again[2], again[3]] == [result[1], result[0], result[2]]
    assert again[1] == again[0]


def test_spaq_keeps_its_scenes():
    spaq = manifest_of("spaq", [0, 1, 100, 108])
    spaq.domain_names[2] = "a scene of another fold"
    result = with_dataset_domains([spaq, manifest_of("koniq10k", [300, 301]), manifest_of("live", [700])])
    assert result[0] == spaq
    others = {entry.domain_id for manifest in result[1:] for entry in manifest.entries}
    assert len(others) == 2
    assert not others & {0, 1, 2, 100, 108}


def test_live_and_csiq_are_repeated_in_joint_training():
    sets = [manifest_of(name, [1, 1]) for name in ("live", "bid", "csiq")]
    rows = joint_rows(sets)
    merged = [entry.image for manifest in sets for entry in manifest.entries]
    times = Counter(merged[row] for row in rows)
    assert times == {
        f"{name}/{n}.png": count for name, count in (("live", 4), ("bid", 1), ("csiq", 4)) for n in (0, 1)
    }
    assert joint_rows(sets[:1]) == [0, 1]
    assert joint_rows([sets[0], sets[0]]) == [0, 1, 2, 3]


def test_rows_are_those_of_the_merged_manifest():
    sets = with_dataset_domains([manifest_of("spaq", [100, 101]), manifest_of("live", [700])])
    merged = sets[0].merge(*sets[1:])
    drawn = [merged.entries[row] for row in joint_rows(sets)]
    assert [entry.scene for entry in drawn] == ["scene 100", "scene 101", "live", "live", "live", "live"]
    names, classes = merged.scene_classes()
    assert len(names) == 3
    assert len({classes[row] for row in joint_rows(sets)}) == 3
