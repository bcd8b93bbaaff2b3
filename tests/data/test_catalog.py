from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from sind_hf.data.manifests.catalog import CATALOG, SCENES, dataset_of, get, markdown_table
from sind_hf.data.manifests.manifest import Manifest
from sind_hf.data.readers import READERS

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "datasets.md"


def test_catalog_holds_the_sixteen_datasets() -> None:
    assert set(CATALOG) == {
        *("spaq", "koniq10k", "livec", "bid", "cid2013", "live", "csiq", "tid2013", "kadid10k", "eva", "para"),
        *("piq23", "agiqa3k", "nnid", "pipal", "ava"),
    }
    assert all(name == facts.name for name, facts in CATALOG.items())


@pytest.mark.parametrize("name", ["spaq", "koniq10k", "livec", "bid", "eva", "live"])
def test_facts_agree_with_the_published_manifests(shared: Path, name: str) -> None:
    manifest = Manifest.load(shared / f"reference/data_json/all/{name}_all.json")
    facts = get(name)
    assert manifest.dataset == name
    assert len(manifest) == facts.images
    assert dict(facts.domains) == manifest.domain_names
    assert dict(facts.scene_counts) == Counter(entry.domain_id for entry in manifest.entries)
    assert facts.score_range is not None
    assert facts.score_range[0] <= min(entry.score for entry in manifest.entries)
    assert facts.score_range[1] >= max(entry.score for entry in manifest.entries)
    assert all(entry.image.startswith(facts.prefix) for entry in manifest.entries)


def test_cid2013_agrees_with_its_published_test_set(shared: Path) -> None:
    manifest = Manifest.load(shared / "reference/data_json/for_cross_set/test/cid2013.json")
    assert Counter(entry.domain_id for entry in manifest.entries) == get("cid2013").scene_counts
    low, high = get("cid2013").score_range or (0, 0)
    assert low <= min(entry.score for entry in manifest.entries) < 0 < high


def test_facts_do_not_contradict_each_other() -> None:
    aliases = [alias for facts in CATALOG.values() for alias in (facts.name, *facts.aliases)]
    assert len(set(aliases)) == len(aliases)
    ids = [domain_id for facts in CATALOG.values() for domain_id in {*facts.domains, *facts.scene_counts}]
    assert len(set(ids)) == len(ids)
    for facts in CATALOG.values():
        assert not facts.scene_counts or sum(facts.scene_counts.values()) == facts.images
        assert not facts.domains or not facts.scene_counts or set(facts.domains) == set(facts.scene_counts)
        assert all(domain_id >= facts.domain_base for domain_id in facts.domains)
        assert facts.prefix.endswith("/") and facts.home_page.startswith("http")
    assert {name for name, facts in CATALOG.items() if not facts.higher_is_better} == {"live", "csiq"}
    assert {name for name, facts in CATALOG.items() if facts.task == "aesthetic"} == {"eva", "para", "ava"}
    assert CATALOG["spaq"].domains[107] == SCENES[7] == "Still-life"


def test_catalog_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        CATALOG["x"] = CATALOG["spaq"]  # type: ignore[index]
    with pytest.raises(TypeError):
        CATALOG["spaq"].domains[1] = "x"  # type: ignore[index]
    assert len({*CATALOG.values()}) == 16  # hashable, although they hold mappings


@pytest.mark.parametrize(
    ("asked", "name"),
    [("livew", "livec"), ("rbid", "bid"), (" KonIQ-10k ", "koniq10k"), ("KADID-10k", "kadid10k"), ("LIVE", "live")],
)
def test_get_knows_aliases_and_display_names(asked: str, name: str) -> None:
    assert get(asked).name == name


def test_get_suggests_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="did you mean 'kadid10k'"):
        get("kaddid10k")
    with pytest.raises(ValueError, match="known datasets: spaq, koniq10k"):
        get("?")


def test_dataset_of_looks_at_the_first_folder_only() -> None:
    assert dataset_of("LIVE/wn/img1.bmp") is CATALOG["live"]
    assert dataset_of("./LIVEChallenge/Images/1.bmp") is CATALOG["livec"]
    assert dataset_of("LIVE") is None
    assert dataset_of("mine/LIVE/1.bmp") is None


def test_the_documented_table_is_the_catalogs() -> None:
    text = DOCS.read_text(encoding="utf-8")
    found = re.search(r"<!-- facts -->\n(.*)\n<!-- end of facts -->", text, re.DOTALL)
    assert found is not None
    assert found[1] == markdown_table(), "print it anew: python -m sind_hf.data.manifests.catalog"


def test_a_line_says_what_the_catalog_knows() -> None:
    lines = markdown_table().splitlines()
    assert len(lines) == 2 + len(CATALOG)
    assert len({line.count(" | ") for line in lines}) == 1
    (live,) = [line for line in lines if line.startswith("| `live` |")]
    assert "| 982 | DMOS, -2.64 to 111.8 | lower | 5 distortions (700–704) | yes | technical |" in live
    (spaq,) = [line for line in lines if line.startswith("| `spaq` |")]
    assert "| 11,125 | MOS, 0 to 100 | higher | 9 scenes, chosen (100–108) | no | technical |" in spaq


@pytest.mark.parametrize("name", CATALOG)
def test_every_dataset_is_documented(name: str) -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert f"sind-hf data build {name} --root" in text
    for spellings in READERS[name].labels.values():
        assert spellings[0].rsplit("/", 1)[-1] in text, f"the label file {spellings[0]} is not mentioned"
    for option in READERS[name].options:
        assert f"--option {option}=" in text
