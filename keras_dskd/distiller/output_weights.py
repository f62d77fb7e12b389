"""The sample weights that a loss gets, if the student has several outputs."""

import keras
from keras import ops

from keras_dskd.distiller.loss_term import LossTerm
from keras_dskd.distiller.term_labels import value_of_output
from keras_dskd.internal.types import Nested, Tensor


def weights_for(
    term: LossTerm, sample_weight: Nested, student: keras.Model | None = None
) -> Tensor | None:
    """The weights of the samples for one loss, as one tensor.

    Keras repeats a single array for each output of a model, so that a batch has equal
    arrays. With several arrays, a loss of one output gets those of this output. A loss
    of a hidden layer, or of several outputs, gets their mean. Weights of steps then
    count by their mean over steps. `None` among several stands for weights of 1.

    Args:
        term: The loss.
        sample_weight: As `compute_loss` of a Keras model gets it: `None`, one tensor,
            or a dict, list or tuple with one for each output.
        student: The student. `None` if its outputs are unknown.

    Returns:
        Tensor `(n,)` or of higher rank, float32, or `None`.
    """
    if not isinstance(sample_weight, (dict, list, tuple)):
        return None if sample_weight is None else _as_rows(sample_weight)
    keys = (
        sample_weight if isinstance(sample_weight, dict) else range(len(sample_weight))
    )
    # In a tuple, the weights `None` of an output differ from no output.
    of_outputs = {key: (sample_weight[key],) for key in keys}
    values = (
        of_outputs if isinstance(sample_weight, dict) else list(of_outputs.values())
    )
    of_one = None if student is None else value_of_output(term, values, student)
    given = keras.tree.flatten(sample_weight if of_one is None else of_one)
    if all(weight is None for weight in given):
        return None
    if len(given) == 1:
        return _as_rows(given[0])
    weights = [1.0 if weight is None else _per_sample(weight) for weight in given]
    return sum(weights) / len(weights)


def _as_rows(weight: Tensor) -> Tensor:
    weight = ops.cast(weight, "float32")
    if len(weight.shape) == 2 and weight.shape[1] == 1:
        weight = ops.squeeze(weight, axis=1)
    return weight


def _per_sample(weight: Tensor) -> Tensor:
    weight = _as_rows(weight)
    steps = tuple(range(1, len(weight.shape)))
    return ops.mean(weight, axis=steps) if steps else weight
