"""From a dataset on disk to batches: manifests, sampling, views, graded sets."""
