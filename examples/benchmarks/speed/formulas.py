"""Compare time and memory of our formulas with forms that build the full matrices.

    python examples/benchmarks/speed/formulas.py --backend torch --out formulas.json

It measures value and gradient in the backend's compiled form (torch: eager). The table
also shows how far ours are from the plain ones. Memory is that of one call, in a
separate process, above what the process used after compiling and running a small case.
`--quick` uses small matrices.
"""

import argparse
import functools
import json

import keras
import measuring
import numpy as np
import plain_forms

import keras_dskd


def cases(quick):
    """Dict of name -> (ours, plain, arrays): functions of the first array."""
    channels, many, most = (256, 1024, 2048) if quick else (2048, 8192, 65536)
    tall = (512, 128) if quick else (2048, 512)
    random = np.random.default_rng(0)

    def rows(n, c):
        # Channels that depend on one another, as features do.
        mixed = random.normal(size=(n, 16)) @ random.normal(size=(16, c))
        return (mixed + random.normal(size=(n, c))).astype("float32")

    independence = keras_dskd.losses.ChannelIndependence(target="teacher")
    ours = keras_dskd.ops
    return {
        f"off_diagonal_energy 128x{channels}": (
            ours.off_diagonal_energy,
            plain_forms.off_diagonal_energy,
            [rows(128, channels)],
        ),
        f"ChannelIndependence 128x{channels}": (
            lambda student, teacher: independence.compute_loss(teacher, student),
            lambda student, teacher: plain_forms.channel_independence(teacher, student),
            [rows(128, channels), rows(128, channels)],
        ),
        f"spatial_uniformity {many}x128": (
            ours.spatial_uniformity,
            plain_forms.spatial_uniformity,
            [rows(many, 128)],
        ),
        # Its plain form would need matrices of 16 GiB.
        f"spatial_uniformity {most}x128": (
            ours.spatial_uniformity,
            None,
            [rows(most, 128)],
        ),
        f"effective_rank {tall[0]}x{tall[1]}": (
            ours.effective_rank,
            plain_forms.effective_rank,
            [rows(*tall)],
        ),
    }


def modes():
    """The ways in which the backend runs a function: two on TensorFlow."""
    return {"jax": ["jit"], "tensorflow": ["graph", "XLA"], "torch": ["eager"]}[
        keras.backend.backend()
    ]


def value_and_gradient(function, mode):
    """The function with its gradient in the first argument, compiled."""
    if mode == "jit":
        import jax

        return jax.jit(jax.value_and_grad(function))
    if mode == "eager":
        import torch

        def run(first, *others):
            first = first.detach().requires_grad_()
            value = function(first, *others)
            return value.detach(), torch.autograd.grad(value, first)[0]

        return run
    import tensorflow as tf

    @functools.partial(tf.function, jit_compile=mode == "XLA")
    def run(first, *others):
        with tf.GradientTape() as tape:
            tape.watch(first)
            value = function(first, *others)
        return value, tape.gradient(value, first)

    return run


def without_gradient(function, mode):
    """The function alone, compiled."""
    if mode == "jit":
        import jax

        return jax.jit(function)
    if mode == "eager":
        import torch

        return torch.no_grad()(function)
    import tensorflow as tf

    return tf.function(function, jit_compile=mode == "XLA")


def sides_of(name, mode, case):
    """Dict of side -> function without arguments that returns tensors."""
    ours, plain, arrays = case
    tensors = [keras.ops.convert_to_tensor(array) for array in arrays]
    sides = {}
    for side, function in (("ours", ours), ("plain", plain)):
        if function is None:
            continue
        compiled = value_and_gradient(function, mode)
        sides[side] = functools.partial(compiled, *tensors)
        if name.startswith("effective_rank"):
            # Structure reports want the value alone.
            alone = without_gradient(function, mode)
            sides[f"{side}, value"] = functools.partial(alone, *tensors)
    return sides


def differences(sides):
    """Relative differences between ours and the plain form: value and gradient."""
    if "plain" not in sides:
        return {}
    (value, gradient), (plain_value, plain_gradient) = (
        [keras.ops.convert_to_numpy(tensor) for tensor in sides[side]()]
        for side in ("ours", "plain")
    )
    return {
        "value": float(abs(value / plain_value - 1)),
        "gradient": float(
            np.linalg.norm(gradient - plain_gradient) / np.linalg.norm(plain_gradient)
        ),
    }


def measure_memory(name, mode, side, quick):
    """Peak memory of one call and its time, in this process."""
    small = sides_of(name, mode, _small(cases(True)[_like(name, quick)]))
    measuring.block(small[side]())
    run = sides_of(name, mode, cases(quick)[name])[side]
    seconds = []

    def timed():
        result = measuring.interleave({"": run}, rounds=1, warmups=0)
        seconds.append(result[""][0])

    return {"bytes": measuring.growth_of_peak(timed), "seconds": seconds[0]}


def _like(name, quick):
    return dict(zip(cases(quick), cases(True), strict=True))[name]


def _small(case):
    return case[0], case[1], [array[:64] for array in case[2]]


def main():
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small matrices")
    parser.add_argument("--only", default="", help="cases whose name begins like this")
    parser.add_argument("--mode", help="only this mode")
    arguments = measuring.parse(parser, rounds=20)
    if arguments.memory_of:
        name, side = arguments.memory_of.split(": ")
        measured = measure_memory(name, arguments.mode, side, arguments.quick)
        print(json.dumps(measured))
        return
    results = []
    for mode in [arguments.mode] if arguments.mode else modes():
        for name, case in cases(arguments.quick).items():
            # XLA on TensorFlow takes 11 s to decompose 512x128, where the graph takes
            # 3 ms.
            is_hopeless = mode == "XLA" and name.startswith("effective_rank")
            if name.startswith(arguments.only) and not is_hopeless:
                results.append(measure(name, mode, case, arguments))
                print(f"{mode}, {name}: done", flush=True)
    show(results)
    measuring.write(arguments.out, {"cases": results})


def measure(name, mode, case, arguments):
    """All measurements of one case."""
    options = ["--mode", mode] + (["--quick"] if arguments.quick else [])
    result = {"case": name, "mode": mode, "memory": {}}
    is_alone = case[1] is None
    for side in ["ours"] if is_alone else ["ours", "plain"]:
        result["memory"][side] = measuring.in_own_process(f"{name}: {side}", *options)
    sides = sides_of(name, mode, case)
    result["differences"] = differences(sides)
    if is_alone:  # Slow case: use the one call that measured the memory.
        times = {"ours": [result["memory"]["ours"]["seconds"]]}
    else:
        times = measuring.interleave(sides, arguments.rounds)
    result["seconds"] = times
    result["summary"] = {side: measuring.quartiles(times[side]) for side in times}
    result["ratios"] = {
        side: measuring.ratio(times[side], times[side.replace("ours", "plain")])
        for side in times
        if side.startswith("ours") and not is_alone
    }
    return result


def show(results):
    """Prints the table."""
    rows = []
    for result in results:
        for side, summary in result["summary"].items():
            ratio = result["ratios"].get(side)
            memory = result["memory"].get(side)
            rows.append(
                [
                    result["case"],
                    result["mode"],
                    side,
                    measuring.in_words(summary, 1e3),
                    measuring.in_words(ratio) if ratio else "",
                    f"{memory['bytes'] / 2**20:.0f}" if memory else "",
                    ", ".join(f"{d:.0e}" for d in result["differences"].values())
                    if side == "ours"
                    else "",
                ]
            )
    measuring.table(
        [
            "formula",
            "mode",
            "side",
            "ms [quartiles]",
            "ours / plain",
            "peak memory, MiB",
            "difference of value, gradient",
        ],
        rows,
    )


if __name__ == "__main__":
    main()
