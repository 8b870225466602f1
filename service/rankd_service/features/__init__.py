"""Feature rows: where they are stored, and how they become the inputs of a model."""
