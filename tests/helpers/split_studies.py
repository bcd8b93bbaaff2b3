"""A small study for the tests of splits."""

from __future__ import annotations

from sind_hf.data.manifests.manifest import Manifest, ManifestEntry, ScoreInfo


def study(count=40):
    entries = [
        ManifestEntry(f"study/{number}.png", number / 2, f"scene {number % 3}", 10 * (number % 3))
        for number in range(count)
    ]
    names = {10 * scene: f"scene {scene}" for scene in range(3)}
    return Manifest(dataset="study", entries=entries, score=ScoreInfo("MOS", (0.0, 20.0)), domain_names=names)


def images(manifest):
    return [entry.image for entry in manifest.entries]
