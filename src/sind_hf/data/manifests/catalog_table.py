"""The catalog as a Markdown table; `python -m sind_hf.data.manifests.catalog_table` prints it."""

from __future__ import annotations

from sind_hf.data.manifests.catalog import CATALOG, DatasetFacts

_COLUMNS = (
    "name",
    "dataset",
    "images",
    "scores",
    "better",
    "scenes, or what stands for them (ids)",
    "references",
    "kind",
)


def markdown_table() -> str:
    """Return one line per dataset, in the order of the catalog."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "| --- | --- | ---: | --- | --- | --- | --- | --- |"]
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
