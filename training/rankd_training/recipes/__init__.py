"""Training from examples to a run's folder, one flat file a kind of model."""
