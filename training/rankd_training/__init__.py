"""Models, data readers and recipes that turn examples into checkpoints."""
