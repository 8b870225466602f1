"""What a training run leaves, and what can be done with it afterwards."""
