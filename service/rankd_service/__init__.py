"""The online ranking service. Never imports torch, training or export."""
