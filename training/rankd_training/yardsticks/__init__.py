"""What no neural model should lose to: trees over the same encoded rows, and the item's own rate."""
