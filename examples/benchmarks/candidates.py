"""Recipes that may take the place of `recommended`: chosen on validation rows.

All have labels and soft targets at 0.5 each, as `recommended` has, and terms that align
blocks in the middle with the teacher's, each through a linear projector of its own.
"""

import keras

import keras_dskd
from keras_dskd import losses

#: Weight in the total of each aligned block in `recommended`.
ALIGNED = 4.0


def aligned(
    teacher,
    student,
    steps,
    weight=ALIGNED,
    blocks=("block2", "block3"),
    loss=losses.ChannelAlignment,
    contrast=0.0,
    **options,
):
    """Soft targets and a loss on each of some blocks; on the features a contrast.

    Args:
        teacher: The teacher.
        student: The student.
        steps: Training steps, which make no difference.
        weight: Weight of each aligned block in the total.
        blocks: Names of layers, the same in both models.
        loss: Class of the loss.
        contrast: Weight in the total of `ContrastiveDistillation` on `features`.
        **options: Arguments of the loss.

    Returns:
        A `keras_dskd.Distiller`.
    """
    terms = [losses.SoftTargets(4.0), *(loss(name, name, **options) for name in blocks)]
    weights = [0.5, *(weight for _ in blocks)]
    names = list(blocks)
    if contrast:
        terms.append(losses.ContrastiveDistillation("features", "features"))
        weights.append(contrast)
        names.append("features")
    return keras_dskd.Distiller(
        teacher,
        student,
        terms,
        distillation_loss_weights=[
            2 * w for w in weights
        ],  # The distiller halves them.
        student_loss_weight=0.5,
        projectors={
            name: projector(
                teacher.get_layer(name).output.shape[-1],
                student.get_layer(name).output.shape,
                pools=options.get("rows", "pooled") == "pooled",
            )
            for name in names
        },
    )


def projector(width, shape, pools):
    """A linear map to the teacher's width, of each position or of their mean."""
    dense = keras.layers.Dense(width)
    if pools and len(shape) == 4:  # Which commutes with a linear map, and is cheaper.
        return keras.Sequential([keras.layers.GlobalAveragePooling2D(), dense])
    return dense
