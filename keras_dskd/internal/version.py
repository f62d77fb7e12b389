"""The version, apart from imports, for the build."""

__version__ = "0.1.0"
