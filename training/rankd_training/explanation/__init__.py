"""What a model's scores depend on: fields, and fields together."""
