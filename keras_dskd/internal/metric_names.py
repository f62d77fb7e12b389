"""Names of the losses that a `Distiller` logs beside its distillation terms."""

#: The total (under Keras's name), its two parts, and the total once more, under the
#: name that `keras.distillation.Distiller` gives it.
TOTALS = ("loss", "student_loss", "distillation_loss", "total_loss")
