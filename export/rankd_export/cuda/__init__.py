"""The second graph of a bundle: made for CUDA, for sizes that are known beforehand."""
