"""TRAIN: the model of teacher and student, its step, its weights and its files.

```
distiller       the class: call, compute_loss
forward         one training pass of both models, and their features
loss_term       one distillation loss: its name, its weight, its layers
loss_values     the values of the losses in one step
weighting       the weights and masks of samples and steps, for one loss
term_labels     the labels that a loss reads, of a model with several outputs
output_weights  the sample weights that a loss gets, likewise
tasks           losses that fit the loss of `compile`
first_predictions  a look at a few predictions before training
loss_weights    numbers or schedules, as variables of the compiled step
loss_settings   temperatures by schedule, and losses whose attributes change
total           the sum that a step minimizes
metrics         means over an epoch, and which of them are reported
reports         compute_metrics: which losses a step reports
added_losses    the `add_loss` values of the student's layers, per replica
student_rules   what the student's class decides: its loss, metrics, output names
label_masks     batches of which some rows have no labels
labeled_rows    the rows of a step that have labels
labeled_losses  a compiled loss of these rows
labeled_metrics compiled metrics of these rows
evaluating      which losses `evaluate` computes
idle_teacher    a teacher that `evaluate` leaves where it is
trainable       the trained variables: all but the teacher's
trainer         Keras's loops, which keep the weights when a loop fails
caching         the teacher's features, computed once
building        variables of projectors and layers inside losses
arguments       checks of the constructor's arguments
config          the configuration as plain data
saving          files that training resumes from
absent_teacher  files without the teacher
saved_parts     the layers and random states, as Keras's files find them
optimizer_names optimizers of saved configs, under names that every backend knows
weight_files    links and checks inside Keras's files
summary         repr and summary tables
```
"""

from keras_dskd.distiller.distiller import Distiller

__all__ = ["Distiller"]
