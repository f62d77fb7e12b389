"""GROUND: devices, Keras's private names, files and types."""
