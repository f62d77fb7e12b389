"""Mistakes of other libraries, planted, so that the tests are seen to find them."""

import contextlib
import importlib
from unittest import mock

from keras import ops

from keras_dskd.internal import replicas

# The package's functions have the names of their modules.
channel_correlation = importlib.import_module("keras_dskd.ops.channel_correlation")


class _Changed:
    """The engine's sums and gathers, some of them with a mistake."""

    def __init__(self, engine, **changed):
        self.engine, self.changed = engine, changed

    def __getattr__(self, name):
        return self.changed.get(name, getattr(self.engine, name))


@contextlib.contextmanager
def sums_without_gradient():
    """What other replicas hold is a constant, as in Barlow Twins' published code.

    A replica's gradient is then that of its own part, and their mean 1/W of the whole.
    """
    current = replicas.current

    def changed():
        engine = current()
        if engine is None:
            return None

        def total(part):
            others = ops.stop_gradient(engine.sum(part) - part)
            return part + others

        return _Changed(engine, sum=total)

    with mock.patch.object(replicas, "current", changed):
        yield


@contextlib.contextmanager
def standardized_by_replica():
    """Each replica standardises with its own mean and spread, as Lightly's does."""

    standardize = channel_correlation.standardize

    def own(rows, epsilon=1e-5, mask=None, replicas=None):
        return standardize(rows, epsilon, mask)

    with mock.patch.object(channel_correlation, "standardize", own):
        yield


@contextlib.contextmanager
def gradients_of_all_replicas():
    """Gradients N times too large, as those of Keras's distiller."""

    def n_times(loss):
        return loss * replicas.current().count

    share = replicas.gradient_share
    with mock.patch.object(
        replicas, "gradient_share", lambda loss: n_times(share(loss))
    ):
        yield


@contextlib.contextmanager
def statistics_of_a_replica():
    """Each replica looks at its own rows alone, as a loss does that knows no better."""
    means = replicas.means

    def of_losses():
        return None

    current = replicas.current

    def of_step(values, samples):
        # Their mean over replicas is right for means over samples, and for no others.
        with mock.patch.object(replicas, "current", current):
            return means(values, samples)

    with (
        mock.patch.object(replicas, "current", of_losses),
        mock.patch.object(replicas, "means", of_step),
    ):
        yield


MISTAKES = {
    mistake.__name__: mistake
    for mistake in (
        sums_without_gradient,
        standardized_by_replica,
        gradients_of_all_replicas,
        statistics_of_a_replica,
    )
}
