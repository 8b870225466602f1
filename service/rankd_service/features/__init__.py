"""Where feature rows live, how they get there and how they become a model's inputs."""
