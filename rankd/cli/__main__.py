"""`python -m rankd.cli`: the command line where no console script is installed."""

from __future__ import annotations

from rankd.cli import main

main()
