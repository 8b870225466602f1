"""The edges: translation between a transport and the domain, nothing else."""
