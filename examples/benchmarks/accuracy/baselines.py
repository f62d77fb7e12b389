"""Methods of other authors: the losses of each method, and the layers that they read.

Weights are weights in the total, in which labels have 0.5, and soft targets, if used,
also 0.5. Losses differ in scale, so their weights cannot be compared.
"""

import keras

import keras_dskd
from keras_dskd import losses


def weighted(terms, teacher, student, steps, weight, soft_targets=True):
    """Labels, optional soft targets, and further losses with a common weight.

    Args:
        terms: Function of `(teacher, student)` that returns losses and projectors.
        teacher: The teacher.
        student: The student.
        steps: Number of training steps; ignored.
        weight: Weight of each loss in the total.
        soft_targets: Whether to use soft targets.

    Returns:
        A `keras_dskd.Distiller`.
    """
    made, projectors = terms(teacher, student)
    weights = [weight / 0.5] * len(made)  # The distiller halves them.
    if soft_targets:
        made, weights = [losses.SoftTargets(4.0), *made], [1.0, *weights]
    return keras_dskd.Distiller(
        teacher,
        student,
        made,
        distillation_loss_weights=weights,
        student_loss_weight=0.5,
        projectors=projectors,
    )


def projector(teacher):
    """A linear map from the student's features to the width of the teacher's."""
    width = teacher.get_layer("features").output.shape[-1]
    return {"features": keras.layers.Dense(width, name="projector")}


def fitnet(teacher, student):
    """Regression on the last features."""
    return [losses.FitNet("features", "features")], projector(teacher)


def contrastive(teacher, student):
    """Picks each sample's own teacher feature among those of other classes."""
    loss = losses.ContrastiveDistillation("features", "features")
    return [loss], projector(teacher)


def relational(teacher, student):
    """Distances and angles between samples."""
    return [losses.RelationalDistillation("features", "features")], None


def cka(teacher, student):
    """Representations that are equal up to rotation."""
    return [losses.CenteredKernelAlignment("features", "features")], None


def similarity_preserving(teacher, student):
    """Similarities between samples, at the last block."""
    blocks = [_blocks(model)[-1] for model in (teacher, student)]
    return [losses.SimilarityPreserving(*blocks)], None


def attention_transfer(teacher, student):
    """The positions where feature maps are large, in all blocks except the first."""
    blocks = zip(_blocks(teacher)[1:], _blocks(student)[1:], strict=True)
    return [losses.AttentionTransfer(*pair) for pair in blocks], None


def decoupled(teacher, student):
    """Soft targets in two parts."""
    return [losses.DecoupledDistillation(4.0, 1.0, 8.0)], None


def reused_classifier(teacher, student, steps):
    """The teacher's classifier on student features that regress on the teacher's.

    This is SimKD (Chen et al. 2022, arXiv 2203.14001) with a linear projector. It does
    not read labels. A different network runs later: the student without its classifier,
    the projector, and the teacher's classifier, which is not trained.
    """
    classifier = teacher.get_layer("logits")
    features = student.get_layer("features").output
    width = teacher.get_layer("features").output.shape[-1]
    projected = keras.layers.Dense(width, name="projected")(features)
    reused = keras.layers.Dense(classifier.units, name="reused", trainable=False)
    network = keras.Model(student.input, reused(projected), name="reused_classifier")
    reused.set_weights(classifier.get_weights())
    return keras_dskd.Distiller(
        teacher,
        network,
        # The classifier needs features on the teacher's scale. A loss on standardized
        # features would not teach that scale.
        keras.distillation.FeatureDistillation("mse", "features", "projected"),
        student_loss_weight=0.0,
    )


def _blocks(model):
    names = [layer.name for layer in model.layers]
    return [name for name in names if name.startswith("block")]


#: Losses of other authors, and the default weight of each in the total. If a source
#: and our loss share a scale (relational and similarity_preserving), the weight is that
#: of the source, halved like the weight of the labels.
TERMS = {
    "fitnet": (fitnet, 1.0),
    "attention_transfer": (attention_transfer, 10.0),
    "relational": (relational, 0.5),
    "similarity_preserving": (similarity_preserving, 1500.0),
    "cka": (cka, 1.0),
    "contrastive": (contrastive, 1.0),
}
