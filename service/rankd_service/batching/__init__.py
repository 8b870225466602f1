"""Small requests that are there at the same time are scored in one run of the graph."""
