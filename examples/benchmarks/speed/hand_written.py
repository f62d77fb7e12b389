"""The distillation step, written by hand in each backend.

The models are Keras models, so that the layers cost the same on every side. The loop,
the losses and (on torch) the optimizer come from the backend. The teacher runs once, in
inference mode. The student runs once, and its features come from the same pass.
"""

import keras
import numpy as np


def teacher_forward(setting):
    """A function that runs the teacher over all batches, and discards the outputs.

    Args:
        setting: A `step_time.Setting`.
    """
    teacher = setting.teacher
    batches = [x for x, _, _ in setting.batches()]
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        # The weights are arguments, as in training, because XLA would fold constants.
        step = jax.jit(
            lambda state, x: teacher.stateless_call(*state, x, training=False)[0]
        )
        return lambda: [step(_state(teacher), x) for x in batches]
    if backend == "tensorflow":
        import tensorflow as tf

        step = tf.function(
            lambda x: teacher(x, training=False), jit_compile=_with_xla()
        )
        return lambda: [step(x) for x in batches][-1]
    import torch

    def run():
        with torch.no_grad():
            for x in batches:
                result = teacher(x, training=False)
        return result

    return run


def distillation(setting, weights):
    """A function that trains a new student over all batches.

    Args:
        setting: A `step_time.Setting`.
        weights: Weights of soft targets, channel independence and spatial uniformity.
    """
    student = with_features(setting.student(), ["block2", "features"])
    teacher = with_features(setting.teacher, ["features"])
    # Arrays, as for `fit`: the loop must also cut and copy batches.
    data = setting.x_teacher, setting.x_student, setting.y
    make = {"jax": _jax, "tensorflow": _tensorflow, "torch": _torch}
    return make[keras.backend.backend()](teacher, student, data, setting.batch, weights)


def with_features(model, names):
    """A model that returns the features of these layers, and then the output."""
    layers = [model.get_layer(name).output for name in names]
    return keras.Model(model.input, [*layers, model.output])


def _state(model):
    # Read again each time, because `fit` replaces the arrays that it gets.
    return (
        [variable.value for variable in model.trainable_variables],
        [variable.value for variable in model.non_trainable_variables],
    )


def _with_xla():
    # As in `fit`, because XLA's convolutions are slow on CPUs.
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def cut(data, batch):
    """Batches of arrays."""
    for start in range(0, len(data[-1]), batch):
        yield tuple(array[start : start + batch] for array in data)


def torch_total(y, features_t, logits_t, block_s, features_s, logits_s, weights):
    """The total and the loss for labels, on torch."""
    import torch
    from torch.nn import functional

    n, t = len(y), 4.0
    labels = functional.cross_entropy(logits_s, y)
    soft = t**2 * functional.kl_div(
        functional.log_softmax(logits_s / t, 1),
        functional.log_softmax(logits_t / t, 1),
        reduction="batchmean",
        log_target=True,
    )
    z_t, z_s = (
        functional.batch_norm(rows, None, None, training=True)
        for rows in (features_t, features_s)
    )
    correlation = z_t.T @ z_s / n  # (c, c)
    diagonal = correlation.diagonal()
    off_diagonal = (correlation**2).sum() - (diagonal**2).sum()
    independence = (((1 - diagonal) ** 2).sum() + 0.02 * off_diagonal) / len(diagonal)
    unit = functional.normalize(block_s.mean(dim=(1, 2)))
    uniformity = torch.pdist(unit).square().mul(-2).exp().mean().log()
    terms = zip(weights, (soft, independence, uniformity), strict=True)
    return 0.5 * labels + 0.5 * sum(weight * term for weight, term in terms), labels


def _torch(teacher, student, data, batch, weights):
    import torch

    parameters = [p.value for p in student.trainable_variables]
    optimizer = torch.optim.Adam(parameters, lr=1e-4)
    device = parameters[0].device

    def run():
        loss = correct = 0
        for x_t, x_s, y in cut(data, batch):
            x_t, x_s, y = (torch.from_numpy(a).to(device) for a in (x_t, x_s, y))
            y = y.long()
            with torch.no_grad():
                features_t, logits_t = teacher(x_t, training=False)
            block_s, features_s, logits_s = student(x_s, training=True)
            total, labels = torch_total(
                y, features_t, logits_t, block_s, features_s, logits_s, weights
            )
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            loss += labels.detach()
            correct += (logits_s.argmax(1) == y).sum()
        return float(loss), int(correct)

    return run


def _jax_total(y, features_t, logits_t, block_s, features_s, logits_s, weights):
    import jax
    from jax import numpy as jnp

    n, t = len(y), 4.0
    chosen = jax.nn.log_softmax(logits_s)[jnp.arange(n), y]
    log_t, log_s = jax.nn.log_softmax(logits_t / t), jax.nn.log_softmax(logits_s / t)
    soft = t**2 * jnp.sum(jnp.exp(log_t) * (log_t - log_s)) / n
    z_t, z_s = (
        (rows - rows.mean(0)) * jax.lax.rsqrt(rows.var(0) + 1e-5)
        for rows in (features_t, features_s)
    )
    correlation = z_t.T @ z_s / n  # (c, c)
    diagonal = jnp.diagonal(correlation)
    off_diagonal = jnp.sum(correlation**2) - jnp.sum(diagonal**2)
    independence = (jnp.sum((1 - diagonal) ** 2) + 0.02 * off_diagonal) / len(diagonal)
    rows = block_s.mean((1, 2))
    unit = rows / jnp.sqrt(jnp.sum(rows**2, axis=1, keepdims=True))
    distances = 2 - 2 * unit @ unit.T  # (n, n)
    potentials = jnp.exp(-2 * distances) * (1 - jnp.eye(n))
    uniformity = jnp.log(jnp.sum(potentials) / (n * (n - 1)))
    terms = zip(weights, (soft, independence, uniformity), strict=True)
    labels = -chosen.mean()
    return 0.5 * labels + 0.5 * sum(weight * term for weight, term in terms), labels


def _jax(teacher, student, data, batch, weights):
    import jax

    optimizer = keras.optimizers.Adam(1e-4)
    optimizer.build(student.trainable_variables)

    def total(trained, state, teacher_state, x_t, x_s, y):
        (features_t, logits_t), _ = teacher.stateless_call(
            *teacher_state, x_t, training=False
        )
        (block_s, features_s, logits_s), state = student.stateless_call(
            trained, state, x_s, training=True
        )
        value, labels = _jax_total(
            y, features_t, logits_t, block_s, features_s, logits_s, weights
        )
        return value, (state, labels, (logits_s.argmax(1) == y).sum())

    def step(trained, state, slots, teacher_state, x_t, x_s, y):
        gradients, (state, loss, correct) = jax.grad(total, has_aux=True)(
            trained, state, teacher_state, x_t, x_s, y
        )
        trained, slots = optimizer.stateless_apply(slots, gradients, trained)
        return trained, state, slots, loss, correct

    step = jax.jit(step, donate_argnums=(0, 1, 2))
    kept = {
        "state": (
            # Copies, because the model's own arrays must not be donated.
            [np.array(variable) for variable in student.trainable_variables],
            [np.array(variable) for variable in student.non_trainable_variables],
            [np.array(variable) for variable in optimizer.variables],
        )
    }

    def run():
        loss = correct = 0
        state, teacher_state = kept["state"], _state(teacher)
        for arrays in cut(data, batch):
            *state, batch_loss, batch_correct = step(*state, teacher_state, *arrays)
            loss += batch_loss
            correct += batch_correct
        kept["state"] = state
        return loss, correct, state

    return run


def _tensorflow_total(y, features_t, logits_t, block_s, features_s, logits_s, weights):
    import tensorflow as tf

    n, t = len(y), 4.0
    labels = tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits_s)
    )
    log_t, log_s = tf.nn.log_softmax(logits_t / t), tf.nn.log_softmax(logits_s / t)
    soft = t**2 * tf.reduce_sum(tf.exp(log_t) * (log_t - log_s)) / n
    z_t, z_s = (
        (rows - tf.reduce_mean(rows, 0))
        * tf.math.rsqrt(tf.math.reduce_variance(rows, 0) + 1e-5)
        for rows in (features_t, features_s)
    )
    correlation = tf.matmul(z_t, z_s, transpose_a=True) / n  # (c, c)
    diagonal = tf.linalg.diag_part(correlation)
    off_diagonal = tf.reduce_sum(correlation**2) - tf.reduce_sum(diagonal**2)
    independence = (
        tf.reduce_sum((1 - diagonal) ** 2) + 0.02 * off_diagonal
    ) / diagonal.shape[0]
    unit = tf.math.l2_normalize(tf.reduce_mean(block_s, (1, 2)), axis=1)
    distances = 2 - 2 * tf.matmul(unit, unit, transpose_b=True)  # (n, n)
    potentials = tf.exp(-2 * distances) * (1 - tf.eye(n))
    uniformity = tf.math.log(tf.reduce_sum(potentials) / (n * (n - 1)))
    terms = zip(weights, (soft, independence, uniformity), strict=True)
    return 0.5 * labels + 0.5 * sum(weight * term for weight, term in terms), labels


def _tensorflow(teacher, student, data, batch, weights):
    import tensorflow as tf

    variables = [variable.value for variable in student.trainable_variables]
    optimizer = keras.optimizers.Adam(1e-4)
    optimizer.build(student.trainable_variables)

    @tf.function(jit_compile=_with_xla())
    def step(x_t, x_s, y):
        features_t, logits_t = teacher(x_t, training=False)
        with tf.GradientTape() as tape:
            block_s, features_s, logits_s = student(x_s, training=True)
            total, labels = _tensorflow_total(
                y, features_t, logits_t, block_s, features_s, logits_s, weights
            )
        gradients = tape.gradient(total, variables)
        optimizer.apply(gradients, student.trainable_variables)
        correct = tf.argmax(logits_s, 1, output_type=y.dtype) == y
        return labels, tf.reduce_sum(tf.cast(correct, "int32"))

    def run():
        loss, correct = 0.0, 0
        for arrays in cut(data, batch):
            batch_loss, batch_correct = step(*map(tf.convert_to_tensor, arrays))
            loss += batch_loss
            correct += batch_correct
        return loss, correct

    return run
