"""Training: the trainer, its arguments, callbacks, averaged weights, checkpoint files and the Hub part."""
