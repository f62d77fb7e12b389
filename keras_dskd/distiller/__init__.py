"""TRAIN: the model of teacher and student, its step, its weights and its files."""

from keras_dskd.distiller.distiller import Distiller

__all__ = ["Distiller"]
