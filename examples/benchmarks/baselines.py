"""Methods of other authors: the losses of each, and where they read.

Weights are those of the total, in which labels have 0.5 and soft targets, where they
take part, 0.5 as well. What a weight multiplies differs in scale from loss to loss.
"""

import keras

import keras_dskd
from keras_dskd import losses


def weighted(terms, teacher, student, steps, weight, soft_targets=True):
    """Labels, soft targets if wanted, and the terms of a function with one weight.

    Args:
        terms: Function of `(teacher, student)` that returns losses and projectors.
        teacher: The teacher.
        student: The student.
        steps: Training steps, which make no difference.
        weight: Weight of each loss in the total.
        soft_targets: Whether soft targets take part.

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
    """Each sample's own teacher feature among those of other classes."""
    loss = losses.ContrastiveDistillation("features", "features")
    return [loss], projector(teacher)


def relational(teacher, student):
    """Distances and angles between samples."""
    return [losses.RelationalDistillation("features", "features")], None


def cka(teacher, student):
    """Representations alike up to rotation."""
    return [losses.CenteredKernelAlignment("features", "features")], None


def similarity_preserving(teacher, student):
    """Similarities between samples, at the last block."""
    blocks = [_blocks(model)[-1] for model in (teacher, student)]
    return [losses.SimilarityPreserving(*blocks)], None


def attention_transfer(teacher, student):
    """Where feature maps are large, in all blocks but the first."""
    blocks = zip(_blocks(teacher)[1:], _blocks(student)[1:], strict=True)
    return [losses.AttentionTransfer(*pair) for pair in blocks], None


def decoupled(teacher, student):
    """Soft targets in two parts."""
    return [losses.DecoupledDistillation(4.0, 1.0, 8.0)], None


def reused_classifier(teacher, student, steps):
    """The teacher's own classifier on features that regress on the teacher's.

    SimKD (Chen et al. 2022, arXiv 2203.14001) with a linear projector. Labels are not
    read, and what runs later is another network: the student without its classifier,
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
        # The classifier reads features as they are, which a loss on standardised
        # features would not give.
        keras.distillation.FeatureDistillation("mse", "features", "projected"),
        student_loss_weight=0.0,
    )


def _blocks(model):
    names = [layer.name for layer in model.layers]
    return [name for name in names if name.startswith("block")]


#: Losses of other authors, and the weight of each in the total where there is no
#: better one. Weights are those of the sources, halved with the labels, where a source
#: and the loss share a scale: relational and similarity_preserving.
TERMS = {
    "fitnet": (fitnet, 1.0),
    "attention_transfer": (attention_transfer, 10.0),
    "relational": (relational, 0.5),
    "similarity_preserving": (similarity_preserving, 1500.0),
    "cka": (cka, 1.0),
    "contrastive": (contrastive, 1.0),
}
