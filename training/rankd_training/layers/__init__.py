"""Layers that more than one model uses; each maps tensors to tensors and knows no training."""
