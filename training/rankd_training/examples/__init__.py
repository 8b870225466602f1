"""Labelled rows: which columns are read, how they are encoded, and how a model gets them."""
