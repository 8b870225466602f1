"""One paper a file: config, layers, forward. Models do not train, save, log or choose a device."""
