"""Scene labels for images without scenes: by a CLIP model, or by clustering.

The label is the scene whose text "a photo of {scene}" has the highest cosine similarity (× 100) with the image, as in
the published experiments. A picker for the readers compares an image that has several scenes (SPAQ) with those alone.
Without scene names, clusters of image embeddings become pseudo-scenes.

Example:
    ```python
    labels = label_scenes(manifest, "images", "openai/clip-vit-base-patch16", cache="scenes.jsonl")
    manifest = apply(manifest, labels)
    ```
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sind_hf.data.manifests.catalog import CATALOG, SCENES
from sind_hf.data.manifests.manifest import Manifest
from sind_hf.data.manifests.validation import require_image_root
from sind_hf.data.scenes.cache import SimilarityCache
from sind_hf.data.scenes.embeddings import ClipEncoder, ImageEncoder, embed_images
from sind_hf.files import counted

PROMPT = "a photo of {scene}"
#: CLIP's learned temperature, which the published labels used too.
_SCALE = 100.0
# Decimals of a similarity, so that those of a cache equal those of a fresh run.
_DECIMALS = 4


@dataclass(frozen=True)
class SceneLabel:
    """The scene of one image.

    Attributes:
        scene: Name of the scene.
        confidence: Probability of the scene by the softmax over its candidates; None if no model compared them
            (clusters, seeded choice).
    """

    scene: str
    confidence: float | None = None


@dataclass(frozen=True)
class SceneLabels:
    """The scenes of a set of images.

    Attributes:
        scenes: All candidate scenes, in the order of their domain IDs.
        labels: Scene by image.
        failures: (image, reason) of the images that could not be read.
        source: Source of the scenes, for the manifest.
    """

    scenes: tuple[str, ...]
    labels: dict[str, SceneLabel]
    failures: list[tuple[str, str]] = field(default_factory=list)
    source: str = ""

    def counts(self) -> dict[str, int]:
        """Return the number of images of each scene, scenes without images included."""
        found = [label.scene for label in self.labels.values()]
        return {scene: found.count(scene) for scene in self.scenes}


def default_scenes(dataset: str) -> tuple[str, ...]:
    """Return the candidate scenes of a dataset: the catalog's if the dataset leaves them open, else SPAQ's nine."""
    facts = CATALOG.get(dataset)
    return tuple(facts.domains.values()) if facts is not None and not facts.fixed_scenes else SCENES


def label_scenes(
    manifest: Manifest,
    image_root: str | os.PathLike[str],
    clip: str | os.PathLike[str] | ClipEncoder,
    *,
    scenes: Sequence[str] | None = None,
    prompt: str = PROMPT,
    batch_size: int = 32,
    workers: int = 0,
    device: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    follow_links: bool = False,
) -> SceneLabels:
    """Give every image of a manifest one scene. Images that cannot be read are in `SceneLabels.failures`.

    Args:
        image_root: Folder that the image paths are relative to.
        clip: Folder, Hub repository ID or loaded model.
        scenes: Candidate scenes. Default: see `default_scenes`.
        prompt: Text that the model compares with the image, with `{scene}` in it.
        batch_size: Images per forward pass.
        workers: Processes that load images; 0 loads in this process.
        cache: JSON Lines file for the similarities, from which an interrupted run continues.
        progress: Called with (images done, images in all).
        follow_links: Whether symbolic links may lead out of the image root.

    Raises:
        ValueError: If a setting is not valid, the model cannot be loaded, or the cache has other settings.
    """
    names = tuple(scenes if scenes is not None else default_scenes(manifest.dataset))
    images = [entry.image for entry in manifest.entries]
    _check_scenes(names, prompt)
    root = require_image_root(image_root)
    encoder = clip if isinstance(clip, ClipEncoder) else ClipEncoder(clip, device)
    settings = {"clip": encoder.path, "revision": encoder.revision, "prompt": prompt, "scenes": list(names)}
    with SimilarityCache(cache, settings) as known:
        todo = [image for image in images if image not in known]
        skipped = len(images) - len(todo)

        def report(done: int, _: int) -> None:
            if progress is not None:
                progress(skipped + done, len(images))

        report(0, 0)
        failures = []
        words = encoder.embed_words([prompt.format(scene=name) for name in names]) if todo else None
        for good, embeddings, bad in embed_images(
            encoder, root, todo, batch_size=batch_size, workers=workers, progress=report, follow_links=follow_links
        ):
            failures += bad
            if good and words is not None:
                known.add(good, (_SCALE * embeddings @ words.T).round(_DECIMALS))
        labels = {image: most_similar(known[image], names, names) for image in images if image in known}
    return SceneLabels(names, labels, failures, f"scenes: {encoder.path}, {prompt!r}")


def most_similar(
    similarities: Sequence[float] | npt.NDArray[np.floating], scenes: Sequence[str], candidates: Sequence[str]
) -> SceneLabel:
    """Pick the most similar of the candidates (the first of equals), by the cosine similarities × 100 of all scenes.

    Example:
        >>> most_similar([20.0, 30.0, 25.0], ["Animal", "Human", "Plant"], ["Animal", "Plant"]).scene
        'Plant'
    """
    possible = [index for index, scene in enumerate(scenes) if scene in candidates]
    values = np.asarray(similarities, np.float64)[possible]
    best = int(values.argmax())
    confidence = 1 / np.exp(values - values[best]).sum()
    return SceneLabel(scenes[possible[best]], round(float(confidence), 6))


def pseudo_scenes(
    manifest: Manifest,
    image_root: str | os.PathLike[str],
    encoder: str | os.PathLike[str] | ImageEncoder,
    clusters: int,
    *,
    seed: int = 0,
    batch_size: int = 32,
    workers: int = 0,
    device: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    follow_links: bool = False,
) -> SceneLabels:
    """Group the images of a manifest by content (k-means on embeddings of length 1).

    The labels are "cluster 1" (the largest) to "cluster k".

    Args:
        image_root: See `label_scenes`, also for `batch_size`, `workers`, `progress` and `follow_links`.
        encoder: Folder or Hub repository ID of a CLIP model, a `ClipEncoder`, or a `SindEncoder` for any backbone.
        clusters: Number of pseudo-scenes.

    Raises:
        ValueError: If there are fewer readable images than clusters, or scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import KMeans
    except ImportError:
        raise ValueError('Pseudo-scenes need scikit-learn: pip install "sind-hf[data]".') from None
    if clusters < 2:
        raise ValueError(f"clusters is {clusters}: give at least 2.")
    root = require_image_root(image_root)
    model = ClipEncoder(encoder, device) if isinstance(encoder, (str, os.PathLike)) else encoder
    images: list[str] = []
    vectors, failures = [], []
    for good, embeddings, bad in embed_images(
        model,
        root,
        [entry.image for entry in manifest.entries],
        batch_size=batch_size,
        workers=workers,
        progress=progress,
        follow_links=follow_links,
    ):
        failures += bad
        if good:
            images += good
            vectors.append(embeddings)
    if len(images) < clusters:
        reason = f"; first: {failures[0][0]}: {failures[0][1]}" if failures else ""
        raise ValueError(
            f"{manifest.dataset}: {clusters} clusters of {len(images)} readable images, {len(failures)} are not "
            f"readable{reason}; ask for fewer clusters."
        )
    found = KMeans(clusters, n_init=10, random_state=seed).fit_predict(np.concatenate(vectors).astype(np.float64))
    sizes = np.bincount(found, minlength=clusters)
    # Numbered by size, then by first image, because the numbers of k-means are arbitrary.
    first = [int(np.argmax(found == cluster)) for cluster in range(clusters)]
    order = sorted(range(clusters), key=lambda cluster: (-sizes[cluster], first[cluster]))
    name_of = {cluster: f"cluster {rank}" for rank, cluster in enumerate(order, start=1)}
    labels = {image: SceneLabel(name_of[int(cluster)]) for image, cluster in zip(images, found, strict=True)}
    source = f"scenes: {clusters} clusters of {getattr(model, 'path', type(model).__name__)}, seed {seed}"
    return SceneLabels(tuple(name_of[cluster] for cluster in order), labels, failures, source)


def apply(manifest: Manifest, labels: SceneLabels) -> Manifest:
    """Return a copy of a manifest with the scene of every labeled image, without those that could not be read.

    Domain IDs begin at the catalog's first one of the dataset, or at 0.

    Raises:
        ValueError: If an image was not labeled at all.
    """
    facts = CATALOG.get(manifest.dataset)
    base_domain = facts.domain_base if facts is not None else 0
    unreadable = {image for image, _ in labels.failures}
    entries = [entry for entry in manifest.entries if entry.image not in unreadable]
    if unknown := [entry.image for entry in entries if entry.image not in labels.labels]:
        raise ValueError(
            f"{manifest.dataset}: no scene label for {counted(len(unknown), 'image')}, first {unknown[0]}; "
            "label this manifest."
        )
    ids = {scene: base_domain + index for index, scene in enumerate(labels.scenes)}
    labeled = [
        replace(entry, scene=(scene := labels.labels[entry.image].scene), domain_id=ids[scene]) for entry in entries
    ]
    return replace(
        manifest,
        entries=labeled,
        domain_names={domain_id: scene for scene, domain_id in ids.items()},
        source="; ".join(part for part in (manifest.source, labels.source) if part) or None,
    )


def scene_picker(
    clip: str | os.PathLike[str] | ClipEncoder,
) -> Callable[[Sequence[Path], Sequence[Sequence[str]]], list[str]]:
    """Return a CLIP model as the `scene_labels` of `sind_hf.data.readers.build`.

    The returned function raises `ValueError` for an image that cannot be read. Build with `verify` to leave such
    images out before.
    """
    encoder = clip if isinstance(clip, ClipEncoder) else ClipEncoder(clip)

    def pick(images: Sequence[Path], candidates: Sequence[Sequence[str]]) -> list[str]:
        scenes = list(dict.fromkeys(scene for names in candidates for scene in names))
        words = encoder.embed_words([PROMPT.format(scene=scene) for scene in scenes])
        possible = dict(zip(map(str, images), candidates, strict=True))
        picked = {}
        # An absolute path does not change when it is joined to a folder.
        for good, embeddings, failures in embed_images(encoder, Path(), list(possible)):
            if failures:
                image, reason = failures[0]
                raise ValueError(f"{image}: {reason}; leave it out, or build with verify, which does.")
            for image, row in zip(good, (_SCALE * embeddings @ words.T).round(_DECIMALS), strict=True):
                picked[image] = most_similar(row, scenes, possible[image]).scene
        return [picked[str(image)] for image in images]

    return pick


def _check_scenes(scenes: Sequence[str], prompt: str) -> None:
    if not scenes or len(set(scenes)) < len(scenes):
        raise ValueError(f"scenes must be distinct names, at least one, not {list(scenes)}.")
    try:
        told_apart = prompt.format(scene="a") != prompt.format(scene="b")
    except (KeyError, IndexError, ValueError):
        told_apart = False
    if not told_apart:
        raise ValueError(f"The prompt {prompt!r} must hold {{scene}} and nothing else in braces.")
