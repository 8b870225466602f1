"""The command line and the Python client. Imports the other packages lazily and holds no logic."""
