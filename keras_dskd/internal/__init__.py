"""GROUND: devices, Keras's private names, files and types.

```
replicas       backends and devices: the only module that imports a backend
keras_private  every private name of Keras that the package uses
trainer_state  the variables that Keras's trainers hold, restored on failure
files          files that replace older ones only when they are complete
tables         tables of text
tasks          what a model predicts, as told by the loss that it is trained with
members        the models of a model that runs several teachers
feature_names  the name of a model's final output among its features
metric_names   the names of the losses that a distiller logs
types          names of types in signatures
version        the version
```
"""
