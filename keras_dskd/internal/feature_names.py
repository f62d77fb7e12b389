"""The name of a model's final output among its features."""

#: The key of a model's final output among its features.
OUTPUT = "(output)"
