"""Turns a checkpoint into a verified bundle that the service can load."""
