"""Graphs: loading and checking bundles, and running them."""
