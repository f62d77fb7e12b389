"""FEED: batches of paired inputs.

```
pairs          splits one batch by modality, and checks that inputs fit their models
arrays         reads rows of arrays of any library
first_rows     the first rows of training data, read without using them up
some_rows      some rows of a data set, as arrays
epochs         what data sets share: epochs, seeds, and wrapping another data set
dataset        ArrayDataset: arrays, in memory or on disk, shuffled by rows
unlabeled      with_unlabeled: pairs with labels and pairs without, as one input
labeled_share  LabeledShare: a fixed number of labeled rows in each batch
mapped         memory-mapped arrays, sent to worker processes by their location
mixup          MixedPairs: mixes each pair with another one
augmentation   AugmentedPairs: one random draw for the images of all modalities
```
"""
