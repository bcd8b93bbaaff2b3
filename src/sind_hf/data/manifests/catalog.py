"""Facts about the sixteen datasets of the paper's experiments.

Counts and ranges are those of the complete datasets. Scene counts were computed from the published manifests, except
those of synthetic datasets, which follow from their design (references × distortions × levels).

`python -m sind_hf.data.manifests.catalog` prints the facts as a Markdown table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Literal, TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True)
class DatasetFacts:
    """Facts about a dataset before it is downloaded.

    Attributes:
        name: Name in manifests, commands and configs.
        display_name: Name in tables and figures.
        aliases: Other names that papers and code bases use.
        images: Number of images with a score; None if it depends on what can still be downloaded.
        score_name: Name of the scale.
        score_range: Lowest and highest possible score; None for an open scale.
        higher_is_better: False for scales of degradation.
        domain_base: First domain ID; unique to the dataset.
        domain_kind: Meaning of a domain.
        domains: Name of each domain ID, if the dataset defines them.
        scene_counts: Number of images of each domain ID.
        fixed_scenes: Whether the scenes come with the dataset. Otherwise a CLIP model or a seeded choice decides, and
            the counts differ from one labeling to the next.
        reference_based: Whether the images are distorted versions of reference images.
        ladder: Pattern of the file names in datasets with levels of distortion. Its groups are the ladder (reference
            and distortion) and the level, from mild to strong.
        pristine_images: Whether the images include pristine ones, which share one score.
        task: Whether people rated technical quality or aesthetics.
        prefix: First folder of the image paths, with a slash.
        home_page: Address of the page to download it from.
        license: Conditions of its use, in plain words.
    """

    name: str
    display_name: str
    images: int | None
    score_range: tuple[float, float] | None
    domain_base: int
    prefix: str
    home_page: str
    aliases: tuple[str, ...] = ()
    score_name: str = "MOS"
    higher_is_better: bool = True
    domain_kind: Literal["scene", "distortion", "reference image", "style", "resolution", "whole set"] = "scene"
    domains: Mapping[int, str] = field(default_factory=dict, hash=False)
    scene_counts: Mapping[int, int] = field(default_factory=dict, hash=False)
    fixed_scenes: bool = True
    reference_based: bool = False
    ladder: str | None = None
    pristine_images: bool = False
    task: Literal["technical", "aesthetic"] = "technical"
    license: str = "check the home page"


def _numbered(base: int, *values: Value) -> Mapping[int, Value]:
    """Return the names or numbers of images of the domains from `base` on, by domain ID."""
    return MappingProxyType(dict(enumerate(values, start=base)))


#: Scenes of SPAQ, also the zero-shot classes for datasets without scene labels.
SCENES = ("Animal", "Cityscape", "Human", "Indoor scene", "Landscape", "Night scene", "Plant", "Still-life", "Others")

_EVA_SCENES = ("animals", "architectures and city scenes", "human", "natural and rural scenes", "still life", "other")
_KADID_DISTORTIONS = (
    *("gaussian blur", "lens blur", "motion blur"),
    *("color diffusion", "color shift", "color quantization", "color saturation 1", "color saturation 2"),
    *("jpeg2000", "jpeg"),
    *("white noise", "white noise in color component", "impulse noise", "multiplicative noise", "denoise"),
    *("brighten", "darken", "mean shift"),
    *("jitter", "non-eccentricity patch", "pixelate", "quantization", "color block"),
    *("high sharpen", "contrast change"),
)

_DATASETS = (
    DatasetFacts(
        name="spaq",
        display_name="SPAQ",
        images=11_125,
        score_range=(0.0, 100.0),
        domain_base=100,
        domains=_numbered(100, *SCENES),
        # An image may show several scenes. These are the counts of the published choice.
        scene_counts=_numbered(100, 118, 2325, 1098, 797, 1196, 815, 1360, 2904, 512),
        fixed_scenes=False,
        prefix="SPAQ/",
        home_page="https://github.com/h4nwei/SPAQ",
    ),
    DatasetFacts(
        name="koniq10k",
        display_name="KonIQ-10k",
        aliases=("koniq", "koniq-10k"),
        images=10_073,
        score_range=(0.0, 100.0),
        domain_base=300,
        domains=_numbered(300, *SCENES[:8]),
        scene_counts=_numbered(300, 2539, 376, 1576, 1813, 724, 736, 835, 1474),
        fixed_scenes=False,
        prefix="koniq10k/",
        home_page="https://database.mmsp-kn.de/koniq-10k-database.html",
    ),
    DatasetFacts(
        name="livec",
        display_name="LIVE in the Wild",
        aliases=("livew", "clive", "live-challenge", "livechallenge", "live-in-the-wild"),
        images=1169,
        score_range=(0.0, 100.0),
        domain_base=200,
        domains=_numbered(200, *SCENES),
        scene_counts=_numbered(200, 140, 97, 89, 195, 215, 141, 126, 61, 105),
        fixed_scenes=False,
        prefix="LIVEChallenge/",
        home_page="https://live.ece.utexas.edu/research/ChallengeDB/index.html",
    ),
    DatasetFacts(
        name="bid",
        display_name="BID",
        aliases=("rbid", "bid2011"),
        images=586,
        score_range=(0.0, 5.0),
        domain_base=400,
        domains=_numbered(400, *SCENES),
        scene_counts=_numbered(400, 140, 17, 17, 71, 113, 80, 102, 36, 10),
        fixed_scenes=False,
        prefix="BID/",
        home_page="http://www02.smt.ufrj.br/~eduardo/ImageDatabase.htm",
    ),
    DatasetFacts(
        name="cid2013",
        display_name="CID2013",
        aliases=("cid",),
        images=474,
        score_name="realigned MOS",
        # The realignment of the six sessions pushes some scores below zero.
        score_range=(-10.0, 100.0),
        domain_base=450,
        domain_kind="whole set",
        scene_counts=_numbered(450, 474),
        prefix="CID2013/",
        home_page="https://zenodo.org/record/2647033",
    ),
    DatasetFacts(
        name="live",
        display_name="LIVE",
        aliases=("live-iqa", "live-r2"),
        images=982,
        score_name="DMOS",
        # Exactly the lowest and highest score: the published code flips by the highest one.
        score_range=(-2.6400150164096132, 111.77469352631448),
        higher_is_better=False,
        domain_base=700,
        domain_kind="distortion",
        domains=_numbered(700, "jp2k", "jpeg", "wn", "gblur", "fastfading"),
        scene_counts=_numbered(700, 227, 233, 174, 174, 174),
        reference_based=True,
        pristine_images=True,
        prefix="LIVE/",
        home_page="https://live.ece.utexas.edu/research/quality/subjective.htm",
    ),
    DatasetFacts(
        name="csiq",
        display_name="CSIQ",
        images=866,
        score_name="DMOS",
        score_range=(0.0, 1.0),
        higher_is_better=False,
        domain_base=800,
        domain_kind="distortion",
        domains=_numbered(800, "awgn", "blur", "contrast", "fnoise", "jpeg", "jpeg2000"),
        scene_counts=_numbered(800, 150, 150, 116, 150, 150, 150),
        reference_based=True,
        ladder=r"(.+)\.(\d+)\.\w+",  # 1600.AWGN.3.png
        prefix="CSIQ/",
        home_page="https://s2.smu.edu/~eclarson/csiq.html",
    ),
    DatasetFacts(
        name="tid2013",
        display_name="TID2013",
        aliases=("tid",),
        images=3000,
        score_range=(0.0, 9.0),
        domain_base=900,
        domain_kind="reference image",
        domains=_numbered(901, *(f"I{number:02d}" for number in range(1, 26))),
        scene_counts=_numbered(901, *[120] * 25),
        reference_based=True,
        ladder=r"(I\d+_\d+)_(\d+)\.\w+",  # I01_05_3.bmp
        prefix="TID2013/",
        home_page="https://www.ponomarenko.info/tid2013.htm",
    ),
    DatasetFacts(
        name="kadid10k",
        display_name="KADID-10k",
        aliases=("kadid", "kadid-10k"),
        images=10_125,
        # The file calls the scores dmos, yet higher is better.
        score_name="DMOS",
        score_range=(1.0, 5.0),
        domain_base=600,
        domain_kind="distortion",
        domains=_numbered(601, *_KADID_DISTORTIONS),
        scene_counts=_numbered(601, *[405] * 25),
        reference_based=True,
        ladder=r"(I\d+_\d+)_(\d+)\.\w+",  # I01_05_03.png
        prefix="kadid10k/",
        home_page="https://database.mmsp-kn.de/kadid-10k-database.html",
    ),
    DatasetFacts(
        name="eva",
        display_name="EVA",
        images=4070,
        score_name="mean vote",
        score_range=(0.0, 10.0),
        domain_base=1100,
        domains=_numbered(1101, *_EVA_SCENES),
        scene_counts=_numbered(1101, 707, 765, 829, 802, 750, 217),
        task="aesthetic",
        prefix="EVA/",
        home_page="https://github.com/kang-gnak/eva-dataset",
    ),
    DatasetFacts(
        name="para",
        display_name="PARA",
        images=31_220,
        score_name="mean aesthetic score",
        score_range=(1.0, 5.0),
        domain_base=1200,
        task="aesthetic",
        prefix="PARA/",
        home_page="https://cv-datasets.institutecv.com/#/data-sets",
    ),
    DatasetFacts(
        name="piq23",
        display_name="PIQ23",
        aliases=("piq2023",),
        images=5116,
        score_name="JOD",
        # Just-objectionable differences are open at both ends and comparable only within a scene.
        score_range=None,
        domain_base=0,
        prefix="PIQ23/",
        home_page="https://github.com/DXOMARK-Research/PIQ2023",
        license="given on request for non-commercial research; check the home page",
    ),
    DatasetFacts(
        name="agiqa3k",
        display_name="AGIQA-3K",
        aliases=("agiqa", "agiqa-3k", "agi"),
        images=2982,
        score_range=(0.0, 5.0),
        domain_base=500,
        domain_kind="style",
        prefix="AGIQA-3K/",
        home_page="https://github.com/lcysyzxdxc/AGIQA-3k-Database",
    ),
    DatasetFacts(
        name="nnid",
        display_name="NNID",
        images=2240,
        score_range=(0.0, 1.0),
        domain_base=1400,
        domain_kind="resolution",
        domains=_numbered(1400, "512", "1024", "2048"),
        prefix="NNID/",
        home_page="https://sites.google.com/site/xiangtaooo/",
    ),
    DatasetFacts(
        name="pipal",
        display_name="PIPAL",
        images=24_200,
        score_name="Elo score",
        # Training scores are mapped to [0, 1] by the published code, validation scores come as they are.
        score_range=None,
        domain_base=1500,
        domain_kind="reference image",
        reference_based=True,
        prefix="PIPAL/",
        home_page="https://github.com/HaomingCai/PIPAL-dataset",
    ),
    DatasetFacts(
        name="ava",
        display_name="AVA",
        # About 255,000: some of the photographs can no longer be read or downloaded.
        images=None,
        score_name="mean rating",
        score_range=(1.0, 10.0),
        domain_base=1300,
        domain_kind="whole set",
        task="aesthetic",
        prefix="AVA/",
        home_page="https://github.com/imfing/ava_downloader",
        license="the photographs belong to their authors; check the home page",
    ),
)

#: Every dataset by its name.
CATALOG: Mapping[str, DatasetFacts] = MappingProxyType({facts.name: facts for facts in _DATASETS})

_BY_ALIAS = {alias: facts for facts in _DATASETS for alias in (facts.name, facts.display_name.lower(), *facts.aliases)}
_BY_FOLDER = {facts.prefix.rstrip("/"): facts for facts in _DATASETS}


def find(name: str) -> DatasetFacts | None:
    """Return the facts of the dataset with this name, display name or alias, in any case; None if there is none."""
    return _BY_ALIAS.get(name.strip().lower())


def get(name: str) -> DatasetFacts:
    """Return the facts of a dataset, see `find`.

    Raises:
        ValueError: If the catalog has no such dataset. The message suggests the nearest name.

    Example:
        >>> get("LIVEW").name
        'livec'
    """
    if (facts := find(name)) is not None:
        return facts
    near = get_close_matches(name.strip().lower(), _BY_ALIAS, n=1, cutoff=0.4)
    hint = f"did you mean {_BY_ALIAS[near[0]].name!r}? " if near else ""
    raise ValueError(f"the dataset {name!r} is not in the catalog; {hint}known datasets: {', '.join(CATALOG)}")


def dataset_of(image: str) -> DatasetFacts | None:
    """Return the dataset that an image path belongs to, by its first folder; None for a folder of no dataset."""
    folder, _, rest = image.removeprefix("./").partition("/")
    return _BY_FOLDER.get(folder) if rest else None


_TABLE_COLUMNS = (
    *("name", "dataset", "images", "scores", "better"),
    *("scenes, or what stands for them (ids)", "references", "kind"),
)


def markdown_table() -> str:
    """Return one line per dataset, in the order of the catalog."""
    lines = ["| " + " | ".join(_TABLE_COLUMNS) + " |", "| --- | --- | ---: | --- | --- | --- | --- | --- |"]
    lines += ["| " + " | ".join(_cells(facts)) + " |" for facts in CATALOG.values()]
    return "\n".join(lines)


def _cells(facts: DatasetFacts) -> tuple[str, ...]:
    bounds = "open" if facts.score_range is None else "{:.4g} to {:.4g}".format(*facts.score_range)
    return (
        f"`{facts.name}`",
        f"[{facts.display_name}]({facts.home_page})",
        "about 255,000" if facts.images is None else f"{facts.images:,}",
        f"{facts.score_name}, {bounds}",
        "higher" if facts.higher_is_better else "lower",
        _domains(facts),
        "yes" if facts.reference_based else "no",
        facts.task,
    )


def _domains(facts: DatasetFacts) -> str:
    if facts.domain_kind == "whole set":
        return f"one ({facts.domain_base})"
    if not facts.domains:
        return f"{facts.domain_kind}s (from {facts.domain_base})"
    chosen = "" if facts.fixed_scenes else ", chosen"
    return f"{len(facts.domains)} {facts.domain_kind}s{chosen} ({min(facts.domains)}–{max(facts.domains)})"


if __name__ == "__main__":
    print(markdown_table())
