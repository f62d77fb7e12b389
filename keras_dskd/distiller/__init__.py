"""TRAIN: the model of teacher and student, its step, its weights and its files.

```
distiller       the class: call, compute_loss, compute_metrics
forward         one training pass: both models, and the features they give
loss_term       one distillation loss: its name, its weight, what it reads
loss_values     the values of the losses in one step
loss_weights    numbers or schedules, as variables of the compiled step
metrics         means over an epoch, and which of them are reported
added_losses    what the student's layers `add_loss`, per replica
trainable       what is trained: everything but the teacher
trainer         Keras's loops, with the model intact when one fails
caching         the teacher's features, computed once
building        variables of projectors and layers inside losses
arguments       checks of the constructor's arguments
config          the configuration as plain data
saving          files that training resumes from
absent_teacher  files without the teacher
saved_parts     what Keras's files need to know about the layers
weight_files    links and checks inside Keras's files
summary         repr and summary tables
```
"""

from keras_dskd.distiller.distiller import Distiller

__all__ = ["Distiller"]
