"""Mistakes of other libraries, planted to show that the tests find them."""

import contextlib
import importlib
from unittest import mock

from keras import ops

from keras_dskd.internal import replicas

# The package exports a function with the name of this module.
channel_correlation = importlib.import_module("keras_dskd.ops.channel_correlation")


class _Changed:
    """The replicas, with some methods replaced by wrong ones."""

    def __init__(self, engine, **changed):
        self.engine, self.changed = engine, changed

    def __getattr__(self, name):
        return self.changed.get(name, getattr(self.engine, name))


@contextlib.contextmanager
def sums_without_gradient():
    """Treats the parts of other replicas as constants, as Barlow Twins' code does.

    A replica then has the gradient of its own part only, and the mean of all is 1/W of
    the right gradient.
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
    """Standardizes with the mean and deviation of the replica, as Lightly does."""

    standardize = channel_correlation.standardize

    def own(rows, epsilon=1e-5, mask=None, replicas=None):
        return standardize(rows, epsilon, mask)

    with mock.patch.object(channel_correlation, "standardize", own):
        yield


@contextlib.contextmanager
def gradients_of_all_replicas():
    """Makes gradients N times too large, as in Keras's Distiller."""

    def n_times(loss):
        return loss * replicas.current().count

    share = replicas.gradient_share
    with mock.patch.object(
        replicas, "gradient_share", lambda loss: n_times(share(loss))
    ):
        yield


@contextlib.contextmanager
def statistics_of_a_replica():
    """Computes each loss on the rows of its own replica only."""
    means = replicas.means

    def of_losses():
        return None

    current = replicas.current

    def of_step(values, samples):
        # The mean over replicas is right only for losses that are means over samples.
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
