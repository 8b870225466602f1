"""Data sets by name: fetched, checked, prepared once, and read from then on.

`catalog.get(name)` gives a folder with examples.parquet, users.parquet, items.parquet and dataset.json; their
columns stand in `movielens.EXAMPLES`, `USERS` and `ITEMS`. Data is never part of the distribution.
"""
