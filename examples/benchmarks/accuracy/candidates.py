"""Recipes that may replace `recommended`. Validation rows decide.

Like `recommended`, all have weights of 0.5 for labels and for soft targets, and losses
that align blocks in the middle with the teacher's. Each block has its own linear
projector.
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
    attention=0.0,
    **options,
):
    """Soft targets, a loss on some blocks, and optional contrast and attention losses.

    Args:
        teacher: The teacher.
        student: The student.
        steps: Training steps, over which attention fades.
        weight: Weight of each aligned block in the total.
        blocks: Names of layers, the same in both models.
        loss: Class of the loss.
        contrast: Weight in the total of `ContrastiveDistillation` on `features`.
        attention: Weight in the total, at the first step, of `AttentionTransfer` on
            each block except the first. It falls linearly to 0 at the last step.
        **options: Arguments of the loss.

    Returns:
        A `keras_dskd.Distiller`.
    """
    # A call's own name has the projector: attention reads the map as it is.
    projected = {f"{name}#0": name for name in blocks}
    terms = [
        losses.SoftTargets(4.0),
        *(loss(name, own, **options) for own, name in projected.items()),
    ]
    weights = [0.5, *(weight for _ in blocks)]
    if contrast:
        terms.append(losses.ContrastiveDistillation("features", "features"))
        weights.append(contrast)
        projected["features"] = "features"
    # The distiller halves them.
    weights = [2 * w for w in weights]
    if attention:
        fading = keras.optimizers.schedules.PolynomialDecay(2 * attention, steps, 0.0)
        maps = [layer.name for layer in student.layers if layer.name[:5] == "block"]
        for name in maps[1:]:
            terms.append(losses.AttentionTransfer(name, name))
            weights.append(fading)
    return keras_dskd.Distiller(
        teacher,
        student,
        terms,
        distillation_loss_weights=weights,
        student_loss_weight=0.5,
        projectors={
            own: projector(
                teacher.get_layer(name).output.shape[-1],
                student.get_layer(name).output.shape,
                pools=options.get("rows", "pooled") == "pooled",
            )
            for own, name in projected.items()
        },
    )


def fading_attention(teacher, student, steps, weight):
    """`recommended`, and attention transfer that starts strong and fades to 0."""
    return aligned(teacher, student, steps, attention=weight)


def teacher_only(teacher, student, steps):
    """Soft targets alone, at temperature 2, without labels."""
    return keras_dskd.Distiller(
        teacher, student, losses.SoftTargets(2.0), student_loss_weight=0.0
    )


def soft_targets(teacher, student, steps, temperature):
    """Labels and soft targets, with equal weights, at another temperature."""
    return keras_dskd.Distiller(teacher, student, losses.SoftTargets(temperature))


def label_weight(teacher, student, steps, weight):
    """Soft targets at temperature 4, and labels with another weight."""
    return keras_dskd.Distiller(
        teacher, student, losses.SoftTargets(4.0), student_loss_weight=weight
    )


def recommended(teacher, student, steps, temperature):
    """`recommended` with soft targets at another temperature."""
    blocks = ["block2", "block3"]
    return keras_dskd.recommended(
        teacher, student, blocks, steps=steps, temperature=temperature
    )


def projector(width, shape, pools):
    """A linear map to the teacher's width, of each position or of their mean."""
    dense = keras.layers.Dense(width)
    if pools and len(shape) == 4:  # Which commutes with a linear map, and is cheaper.
        return keras.Sequential([keras.layers.GlobalAveragePooling2D(), dense])
    return dense
