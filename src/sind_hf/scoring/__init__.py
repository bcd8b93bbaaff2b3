"""Many pictures to scores: finding them, scoring them with loaders ahead of the model, writing rows as they come."""
