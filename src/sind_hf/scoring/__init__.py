"""Score many images: find them, load them ahead of the model, and write the results as they come."""
