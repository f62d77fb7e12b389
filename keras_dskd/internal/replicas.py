"""Everything that differs between backends and devices.

This is the only module that imports a backend.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from keras_dskd.internal.types import Replicas, Tensor


def no_gradients() -> contextlib.AbstractContextManager[None]:
    """A context in which torch records nothing for the backward pass.

    Otherwise torch would keep every activation of the teacher alive. On TensorFlow and
    JAX `stop_gradient` is enough: compilers drop activations that no gradient needs.
    """
    if keras.backend.backend() == "torch":
        import torch

        return torch.no_grad()
    return contextlib.nullcontext()


@contextlib.contextmanager
def outside_programs() -> Iterator[None]:
    """A context in which tensors have values, even while a program is compiled.

    Layers may keep tensors that they make in `build`. A tensor of the program would be
    gone after it.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.init_scope():
            yield
    elif keras.backend.backend() == "jax":
        import jax

        with jax.ensure_compile_time_eval():
            yield
    else:
        import torch

        # In shape inference, Keras makes tensors on the "meta" device.
        device = "cuda" if torch.cuda.is_available() else "cpu"
        with keras.device(device):
            yield


def is_traced(tensor: Any) -> bool:
    """Whether a tensor has no value yet, because a program is being compiled."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.is_symbolic_tensor(tensor) or not tf.executing_eagerly()
    if keras.backend.backend() == "jax":
        import jax

        return isinstance(tensor, jax.core.Tracer)
    return False


def current() -> Replicas | None:
    """The collective operations across the replicas that share this step.

    Returns:
        `None` if there are no other replicas: on one device, and under
        `keras.distribution`, where the step sees the whole batch and JAX divides the
        work. Otherwise an object with

        - `count`, the number of replicas;
        - `sum(tensor)`, the sum over replicas of tensors of equal shape;
        - `gather(rows)`, the rows `(n_r, ...)` of all replicas, concatenated;
        - `global_offset(rows)`, the index of this replica's first row among them.

        Replicas may have different numbers of rows, but all must call the same
        operations in the same order. Gradients flow back through the operations: each
        replica's tensor gets the sum, over replicas, of the gradients with respect to
        the result. If every replica computes the global loss from such results, the
        mean of the replicas' gradients is the gradient of that loss.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        # There is no context while the trainer builds a model from shapes.
        if context is not None and context.num_replicas_in_sync > 1:
            return _tensorflow_replicas()
    if backend == "torch":
        from torch import distributed

        if distributed.is_available() and distributed.is_initialized():
            return _torch_replicas() if distributed.get_world_size() > 1 else None
    return None


@functools.cache
def _tensorflow_replicas() -> Replicas:
    import tensorflow as tf

    class Replicas:
        @property
        def count(self) -> int:
            return self._context().num_replicas_in_sync

        def sum(self, tensor: Tensor) -> Tensor:
            return self._context().all_reduce(tf.distribute.ReduceOp.SUM, tensor)

        def gather(self, rows: Tensor) -> Tensor:
            # `all_gather` needs a device, and a worker's own batch has none yet.
            numbers = tf.identity(_as_numbers(rows))
            gathered = self._context().all_gather(numbers, axis=0)
            gathered.set_shape([None, *rows.shape[1:]])
            return ops.cast(gathered, rows.dtype)

        def global_offset(self, rows: Tensor) -> Any:
            sizes = self._context().all_gather(tf.shape(rows)[:1], axis=0)
            return tf.reduce_sum(sizes[: self._context().replica_id_in_sync_group])

        def _context(self) -> Any:
            return tf.distribute.get_replica_context()

    return Replicas()


@functools.cache
def _torch_replicas() -> Replicas:
    import torch
    from torch import distributed

    def total(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.detach().clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(tensor)
        return tensor

    class Sum(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, tensor: torch.Tensor) -> torch.Tensor:
            return total(tensor)

        @staticmethod
        def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
            return total(gradient)

    class Gather(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, rows: torch.Tensor, sizes: list[int]) -> torch.Tensor:
            context.sizes = sizes
            padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
            padded[: len(rows)] = rows
            parts = [torch.empty_like(padded) for _ in sizes]
            distributed.all_gather(parts, padded)
            return torch.cat(
                [part[:size] for part, size in zip(parts, sizes, strict=True)]
            )

        @staticmethod
        def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
            rank = distributed.get_rank()
            return total(gradient).split(context.sizes)[rank], None

    class Replicas:
        @property
        def count(self) -> int:
            return distributed.get_world_size()

        def sum(self, tensor: Any) -> Any:
            # In shape inference there are no values to send.
            return tensor if tensor.is_meta else Sum.apply(tensor)

        def gather(self, rows: Any) -> Any:
            if rows.is_meta:
                return torch.cat([rows] * self.count)
            numbers = _as_numbers(rows).contiguous()
            return ops.cast(Gather.apply(numbers, self._sizes(rows)), rows.dtype)

        def global_offset(self, rows: Any) -> Any:
            if rows.is_meta:
                return 0
            return sum(self._sizes(rows)[: distributed.get_rank()])

        def _sizes(self, rows: Any) -> list[int]:
            sizes = torch.zeros(self.count, dtype=torch.int64, device=rows.device)
            sizes[distributed.get_rank()] = len(rows)
            return total(sizes).tolist()

    return Replicas()


def _as_numbers(tensor: Tensor) -> Any:
    # Some communication libraries cannot send bools.
    is_bool = keras.backend.standardize_dtype(tensor.dtype) == "bool"
    return ops.cast(tensor, "int32") if is_bool else tensor


def means(values: list[Tensor], samples: Tensor) -> tuple[list[Tensor], Tensor]:
    """Means over all samples, from each replica's means over its own samples.

    Formula: `Σ_r n_r v_r / Σ_r n_r`, with `n_r` the number of samples of replica r. If
    all replicas have the same value, the mean is that value.

    Args:
        values: List of float32 scalars.
        samples: Number of samples of this replica.

    Returns:
        `(means, samples)`: a list of float32 scalars, equal on all replicas, and the
        number of samples of all replicas together.
    """
    replicas = current()
    if replicas is None:
        return values, samples
    count = ops.cast(samples, "float32")
    # The last batch of `tf.data` may leave a replica without samples: its mean is NaN.
    parts = [
        ops.where(count > 0, count * ops.cast(value, "float32"), 0.0)
        for value in values
    ]
    *sums, samples = ops.unstack(replicas.sum(ops.stack([*parts, count])))
    return [total / samples for total in sums], samples


def gradient_share(loss: Tensor) -> Tensor:
    """Scales a global loss so that reducing the replicas' gradients gives its gradient.

    `tf.distribute` sums the replicas' gradients, so the loss is divided by the number
    of replicas. torch's data parallelism averages them, so the loss stays unchanged.
    """
    return loss / _summed_replicas()


def without_keras_share(loss: Tensor) -> Tensor:
    """Multiplies by the number of replicas, because Keras has divided by it."""
    return loss * _summed_replicas()


def _summed_replicas() -> int:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.distribute.get_strategy().num_replicas_in_sync
    return 1


def check_fit() -> None:
    """Raises `RuntimeError` if `fit` runs in one of several connected torch processes.

    Keras's torch trainer does not reduce gradients across processes.
    """
    replicas = current() if keras.backend.backend() == "torch" else None
    if replicas is not None:
        raise RuntimeError(
            f"`fit` trains one process, but `torch.distributed` connects "
            f"{replicas.count}: their gradients would not be averaged. Write the "
            "loop with `torch.nn.parallel.DistributedDataParallel`, as "
            "examples/distributed_torch.py does."
        )
