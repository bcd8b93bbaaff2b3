"""Datasets from the disk to the batch: manifests, splits, scenes, prepared images, sampling and views."""
