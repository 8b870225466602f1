"""One step and one pass of learning: losses, optimisers, processes."""
