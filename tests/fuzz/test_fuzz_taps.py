"""Taps on any layer of any graph: the feature from NumPy, or a clear error."""

import functools

import keras
import numpy as np
from fuzz import fuzzing
from fuzz.fuzzing import fuzzed
from fuzz.graphs import Graph
from fuzz.verdict import answer
from hypothesis import strategies as st

from keras_dskd.features.feature_model import FeatureModel
from keras_dskd.features.finding import find_layer
from keras_dskd.features.layer_graph import layer_paths
from keras_dskd.features.taps import OUTPUT, Tap, capture

# Relative to the largest entry, for dozens of layers in float32 against float64. Each
# entry is a sum of terms of that size.
SAME = 1e-5

#: Number of graphs. A large run taps each many times, because building one is slow.
GRAPHS = max(fuzzing.TOTAL // 25, 1000)

graph_of = functools.lru_cache(maxsize=None)(Graph)

SEEDS = st.integers(0, GRAPHS - 1)
WAYS = st.sampled_from(["name", "end", "end", "path", "path", "typo", "other", "empty"])
CALLS = st.sampled_from([None, None, "valid", "valid", "beyond", "-1", "x", "1.0", ""])


def tap_name(graph, which, way, call):
    """A name for a tap, and its possible outputs, or the words of its error."""
    path, node = graph.paths[which % len(graph.paths)]
    if way == "name":
        path = path[-1:]
    elif way == "end":
        path = path[-(1 + which % len(path)) :]
    elif way == "typo":
        path = (*path[:-1], path[-1] + "0")
    elif way == "other":
        path = path[::-1]
    elif way == "empty":
        path = ("",) if which % 2 else (*path, "")
    name = "/".join(path)
    if call is not None:
        index = {
            "valid": str(which % max(len(node.calls), 1)),
            "beyond": str(len(node.calls) + which % 2),
        }.get(call, call)
        name = f"{name}#{index}"
        if index and not index.isdecimal():
            return name, "number counted from 0"
        call = int(index) if index else None
    found = graph.find(path)
    if len(found) != 1:
        return name, "is ambiguous" if found else "not found"
    calls = found[0].calls
    if not calls:
        return name, "was not called"
    if (call is None and len(calls) > 1) or (call is not None and call >= len(calls)):
        return name, "was called"
    # Keras chooses the order in which a functional model runs its branches.
    is_any = call is None or graph.has_branches
    return name, calls if is_any else calls[call : call + 1]


def is_same(feature, expected):
    tolerance = SAME * max(1.0, np.abs(expected).max(initial=0.0))
    return feature.shape == expected.shape and np.allclose(
        feature, expected, rtol=0.0, atol=tolerance
    )


def is_one_of(feature, calls):
    numpy = keras.tree.map_structure(keras.ops.convert_to_numpy, feature)
    flat = keras.tree.flatten(numpy)
    for expected in calls:
        keras.tree.assert_same_structure(numpy, expected)
        if all(map(is_same, flat, keras.tree.flatten(expected))):
            return True
    return False


def features_of(model, x, names):
    with capture([Tap(model, name) for name in names]) as features:
        output = model(x, training=False)
    return features, output


def assert_models_are_restored(graph):
    for layer in graph.layers():
        assert "call" not in vars(layer), layer.name


@fuzzed(
    "taps",
    cases=60,
    share=0.16,
    seed=SEEDS,
    wanted=st.lists(st.tuples(st.integers(0, 40), WAYS, CALLS), min_size=1, max_size=2),
)
def test_tap_matches_numpy_or_raises(seed, wanted):
    graph = graph_of(seed)
    expected = dict(tap_name(graph, *one) for one in wanted)
    errors = [words for words in expected.values() if isinstance(words, str)]
    try:
        features, output = answer(
            lambda: features_of(graph.model, graph.x, expected),
            valid=not errors,
            says="|".join(errors),
        )
    finally:
        assert_models_are_restored(graph)
    assert set(features) == set(expected)
    for name, calls in expected.items():
        assert is_one_of(features[name], calls), name
    assert is_one_of(output, [graph.output])


@fuzzed("taps", cases=30, share=0.04, seed=SEEDS, which=st.integers(0, 40))
def test_numbered_taps_read_each_call_of_a_layer(seed, which):
    """Each number reads another call, in order unless there are branches."""
    graph = graph_of(seed)
    path, node = graph.paths[which % len(graph.paths)]
    names = [f"{'/'.join(path)}#{k}" for k in range(len(node.calls))]
    features, _ = answer(lambda: features_of(graph.model, graph.x, names), valid=True)
    left = list(node.calls)
    for index, name in enumerate(names):
        if not graph.has_branches:
            assert is_one_of(features[name], [node.calls[index]]), name
        matching = [
            i for i, call in enumerate(left) if is_one_of(features[name], [call])
        ]
        assert matching, f"{name} matches no call, or one that was read before"
        del left[matching[0]]


@fuzzed("taps", cases=30, share=0.02, seed=SEEDS)
def test_paths_list_every_layer(seed):
    graph = graph_of(seed)
    ours = {id(layer) for layer in graph.layers()} - {id(graph.model)}
    found = answer(lambda: layer_paths(graph.model), valid=True)
    listed = {(path, id(layer)) for path, layer in found if id(layer) in ours}
    assert listed == {(path, id(node.layer)) for path, node in graph.paths}
    for path, node in graph.paths:
        if sum(path == other for other, _ in graph.paths) == 1:
            assert find_layer(graph.model, "/".join(path)) is node.layer


@fuzzed(
    "taps",
    cases=4,
    share=0.01,
    seed=st.integers(0, 60),
    which=st.lists(st.integers(0, 40), min_size=1, max_size=3),
    batch_size=st.sampled_from([2, 3]),
)
def test_predicted_features_match_one_pass(seed, which, batch_size):
    """`predict` compiles, and takes three samples in one batch or two."""
    graph = graph_of(seed)
    picked = [graph.paths[i % len(graph.paths)] for i in which]
    calls = {f"{'/'.join(path)}#0": node.calls for path, node in picked}
    names = [*calls, OUTPUT]
    features = answer(
        lambda: FeatureModel(graph.model, names).predict(
            graph.x, batch_size=batch_size, verbose=0
        ),
        valid=True,
    )
    assert_models_are_restored(graph)
    assert is_one_of(features[OUTPUT], [graph.output])
    for name, expected in calls.items():
        assert is_one_of(features[name], expected), name


ODD = st.sampled_from(["", "/", "#", "#0", "##", "a#", "a#1#2", "a//b", " ", "ä", "a/"])


@fuzzed(
    "taps",
    cases=40,
    share=0.02,
    seed=SEEDS,
    name=ODD | st.text(max_size=5) | st.sampled_from([None, 0, 1.5, b"a", ["a"], ()]),
)
def test_any_name_is_found_or_raises(seed, name):
    graph = graph_of(seed)
    is_valid = False
    if isinstance(name, str):
        path, _, call = name.partition("#")
        found = graph.find(tuple(path.split("/")))
        is_valid = None if len(found) == 1 else False
    answer(lambda: features_of(graph.model, graph.x, [name]), is_valid)
