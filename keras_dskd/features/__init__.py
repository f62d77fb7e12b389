"""READ: find a layer by name, capture its output, and choose layers.

```
finding.py         find, find_layer: how a name is resolved
outputs.py         one of several outputs of a layer
readable.py        which layers' outputs can be read: not those within loops
layer_graph.py     a model's layers by path, and in the order of its graph
pyramid.py         feature-pyramid levels such as "P3", and the stages of a network
taps.py            Tap, capture: read a layer's output in the forward pass
teachers.py        several teachers as one model, and stored outputs in its place
step_masks.py      the Keras masks of captured outputs
completing.py      build a model that holds its weights but was never called
feature_model.py   FeatureModel: a model that outputs another model's features
choosing.py        the layers that recipes use: as named by the user, or picked
landmarks.py       the layers to pick: ends of stages or blocks, the head's input
heads.py           the outputs of two models, in pairs
output_kind.py     what a graph says of its outputs: logits, softmax or sigmoid
output_values.py   what a batch of outputs shows: can these be probabilities?
identity.py        fingerprint: did the weights of a model change?
```
"""
