"""Who gets in: how many requests may be under way, and who waits, goes first, or is sent away."""
