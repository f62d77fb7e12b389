"""Compare where each channel of two feature maps is active."""

import keras
from keras import ops

from keras_dskd.internal.types import Replicas, Tensor
from keras_dskd.ops.grids import channels_last, check_same_samples, on_one_grid
from keras_dskd.ops.samples import weighted_mean
from keras_dskd.ops.soft_targets import (
    MASKED_LOGIT,
    check_divergence_temperature,
    relative_entropy,
)
from keras_dskd.ops.step_masks import has_step, step_weight


def channel_wise_distillation(
    teacher_map: Tensor,
    student_map: Tensor,
    temperature: float = 4.0,
    sample_weight: Tensor | None = None,
    teacher_step_mask: Tensor | None = None,
    student_step_mask: Tensor | None = None,
    replicas: Replicas | None = None,
) -> Tensor:
    """KL divergence of each channel's distribution over positions.

    Formula: with `p_k` the softmax over positions of channel k, divided by T,

    ```
    T² mean over samples and channels k of KL(p_k,teacher || p_k,student)
    ```

    in nats. A constant added to a channel does not matter. Nothing is detached here.

    Args:
        teacher_map: Tensor `(n, ..., c)`, in Keras's image data format (rank 3 is
            always `(n, length, c)`).
        student_map: Tensor of the same shape.
        temperature: `T`, between 1e-6 and 1000. A higher value counts more positions.
        sample_weight: Tensor `(n,)`. See `weighted_mean`.
        teacher_step_mask: Bool tensor `(n, steps)`, true for real steps, or `None`.
        student_step_mask: The same for the student. The distributions are over the
            positions that are real on both sides. A sample without any is left out of
            the mean.
        replicas: Collective operations, if other replicas hold further samples.

    Returns:
        Scalar, float32, at least 0.

    Raises:
        ValueError: If the samples, channels or positions differ in number, there is a
            single position, or `temperature` is out of range.

    Source:
        Shu et al. 2021, channel-wise knowledge distillation for dense prediction, CWD
        (arXiv 2011.13256).
    """
    check_divergence_temperature(temperature)
    teacher = channels_last(teacher_map, "teacher_map")
    student = channels_last(student_map, "student_map")
    check_same_samples(teacher, student)
    _check_same_map(tuple(teacher.shape), tuple(student.shape))
    _, _, kept = on_one_grid(
        teacher, student, teacher_step_mask, student_step_mask
    )  # (n, ...)

    def log_shares(feature: Tensor) -> Tensor:
        logits = feature / temperature
        if kept is not None:
            logits = ops.where(kept[..., None], logits, MASKED_LOGIT)
        return ops.log_softmax(_positions_last(logits), axis=-1)

    divergence = relative_entropy(log_shares(teacher), log_shares(student))  # (n, c)
    weight = step_weight(sample_weight, has_step(kept), replicas)
    return temperature**2 * weighted_mean(ops.mean(divergence, axis=1), weight)


def _positions_last(feature: Tensor) -> Tensor:
    """`(n, ..., c)` -> `(n, c, positions)`."""
    feature = ops.moveaxis(feature, -1, 1)
    return ops.reshape(feature, (ops.shape(feature)[0], feature.shape[1], -1))


def _check_same_map(
    teacher: tuple[int | None, ...], student: tuple[int | None, ...]
) -> None:
    channels, grids = (teacher[-1], student[-1]), (teacher[1:-1], student[1:-1])
    if channels[0] != channels[1]:
        rank = len(student)
        is_first = keras.config.image_data_format() == "channels_first" and rank > 3
        layer = (
            f"Conv{rank - 2}D({channels[0]}, 1)"
            if is_first
            else f"Dense({channels[0]})"
        )
        raise ValueError(
            "Teacher and student features must have the same number of channels. "
            f"Received: {channels[0]} teacher channels and {channels[1]} student "
            "channels. Give the student's feature a projector: "
            "Distiller(..., projectors={student_layer_name: "
            f"keras.layers.{layer}}})."
        )
    if len(grids[0]) != len(grids[1]) or any(
        None not in lengths and lengths[0] != lengths[1]
        for lengths in zip(*grids, strict=True)
    ):
        raise ValueError(
            "Channel-wise distillation compares distributions over the same positions. "
            f"Received grids of {grids[0]} positions from the teacher and {grids[1]} "
            "from the student. Resize one with a layer, such as keras.layers.Resizing, "
            "in the model or as a projector."
        )
    if set(grids[0]) == {1}:
        raise ValueError(
            "Channel-wise distillation needs at least two positions. Received: "
            f"features of shape {teacher} (channels last)"
        )
