"""An open-loop load generator: requests leave when they are due, whatever became of those before."""
