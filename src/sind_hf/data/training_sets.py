"""Several datasets trained on together: datasets as domains, small datasets repeated.

```python
manifests = [manifest.oriented() for manifest in manifests]  # before they are split
parts = with_dataset_domains([random_split(manifest)[0].train for manifest in manifests])
dataset = parts[0].merge(*parts[1:]).to_dataset(image_root).select(joint_rows(parts))
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sind_hf.data.manifests.manifest import Manifest

# Published recipe: their 779 and 866 images would hardly be seen beside tens of thousands.
_JOINT_REPEATS = {"live": 4, "csiq": 4}
# The only data set whose own scenes stay domains when data sets are domains.
_KEEPS_SCENES = "spaq"


def with_dataset_domains(manifests: Sequence[Manifest]) -> list[Manifest]:
    """Return the manifests with the data set as the domain to align, except for SPAQ, which keeps its nine scenes.

    Two parts of one data set share a domain. (The published code takes `domain_id // 100`, under which BID and
    CID2013 collide and PIPAL falls in two.)

    Args:
        manifests: Data sets to be trained on together.

    Returns:
        Copies, in the same order, whose entries have the name of their data set as scene and an id of its own.
    """
    taken: set[int | None] = set()
    for manifest in manifests:
        if manifest.dataset == _KEEPS_SCENES:
            taken.update(manifest.domain_names, (entry.domain_id for entry in manifest.entries))
    names = sorted({manifest.dataset for manifest in manifests} - {_KEEPS_SCENES})
    free = (number for number in range(len(taken) + len(names)) if number not in taken)
    domains = dict(zip(names, free, strict=False))
    result = []
    for manifest in manifests:
        if manifest.dataset == _KEEPS_SCENES:
            result.append(manifest)
            continue
        domain = domains[manifest.dataset]
        entries = [replace(entry, scene=manifest.dataset, domain_id=domain) for entry in manifest.entries]
        result.append(replace(manifest, entries=entries, domain_names={domain: manifest.dataset}))
    return result


def joint_rows(manifests: Sequence[Manifest]) -> list[int]:
    """Return the rows of a joint training set, with those of LIVE and CSIQ four times, as published.

    A manifest names an image once; repetition is a matter of the rows that a sampler draws from. A data set that is
    trained on alone is not repeated.

    Args:
        manifests: Train sides, in the order in which they were merged.

    Returns:
        Indices into the entries of the merged manifest.
    """
    alone = len({manifest.dataset for manifest in manifests}) < 2
    rows: list[int] = []
    first = 0
    for manifest in manifests:
        own = range(first, first + len(manifest.entries))
        rows.extend(list(own) * (1 if alone else _JOINT_REPEATS.get(manifest.dataset, 1)))
        first = own.stop
    return rows
