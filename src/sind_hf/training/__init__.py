"""The Trainer, its arguments and the moving average of the weights."""
