"""The Python blocks of pages and docstrings, as programs that can be run.

A block runs unless the line above its fence is an HTML comment,
`<!-- not run: reason -->`. With `<!-- run on jax -->` it runs on one backend only.
"""

import ast
import contextlib
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

import keras
import pytest

BACKENDS = ("jax", "tensorflow", "torch")
_OPENING = re.compile(r"\s*```(?:python|py)\b")
_CLOSING = re.compile(r"\s*```\s*")
_COMMENT = re.compile(r"\s*<!--\s*(not run|run on)\b:?\s*(.*?)\s*-->\s*")


@dataclass(frozen=True)
class Snippet:
    """A Python block: its text, and the line of the file where it starts."""

    path: Path
    line: int
    text: str
    backend: str | None = None

    @property
    def _padded(self):
        return "\n" * (self.line - 1) + self.text

    def run(self, names):
        """Runs the block; tracebacks point to its file and line."""
        exec(compile(self._padded, str(self.path), "exec", dont_inherit=True), names)

    def names(self):
        """All names in the block, including imported packages."""
        found = set()
        for node in ast.walk(ast.parse(self._padded, str(self.path))):
            if isinstance(node, ast.Name):
                found.add(node.id)
            elif isinstance(node, ast.Import):
                found.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.partition(".")[0])
        return found


def of_page(path):
    """The blocks of a page that can be run, in order."""
    return list(_blocks(path, path.read_text(encoding="utf-8").splitlines()))


def of_docstrings(path):
    """The blocks of a module's docstrings: a dict of object name to list of blocks."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    found = {}
    for name, docstring in _docstrings(ast.parse(source), ()):
        own = lines[docstring.lineno - 1 : docstring.end_lineno]
        snippets = list(_blocks(path, own, docstring.lineno))
        if snippets:
            found[".".join(name) or path.stem] = snippets
    return found


def run(snippets, names):
    """Runs blocks in one namespace, then restores the global settings they changed."""
    policy = keras.config.dtype_policy()
    distribution = keras.distribution.distribution()
    try:
        for snippet in snippets:
            if snippet.backend in (None, keras.backend.backend()):
                snippet.run(names)
    finally:
        keras.config.set_dtype_policy(policy)
        if keras.distribution.distribution() is not distribution:
            keras.distribution.set_distribution(distribution)


@contextlib.contextmanager
def one_step_per_fit():
    """A context in which `fit` takes one step, not traced on TensorFlow."""
    fit = keras.Model.fit

    def short_fit(model, *args, epochs=1, initial_epoch=0, **kwargs):
        kwargs["steps_per_epoch"] = 1
        epochs = min(epochs, initial_epoch + 1)
        return fit(model, *args, epochs=epochs, initial_epoch=initial_epoch, **kwargs)

    with pytest.MonkeyPatch.context() as patched, eager_on_tensorflow():
        patched.setattr(keras.Model, "fit", short_fit)
        yield


@contextlib.contextmanager
def eager_on_tensorflow():
    """A context in which TensorFlow runs models eagerly.

    Tracing a model takes longer than a few steps of it.
    """
    compile_ = keras.Model.compile

    def eager_compile(model, *args, **kwargs):
        return compile_(model, *args, **{"run_eagerly": True, **kwargs})

    with pytest.MonkeyPatch.context() as patched:
        if keras.backend.backend() == "tensorflow":
            patched.setattr(keras.Model, "compile", eager_compile)
        yield


def _blocks(path, lines, first=1):
    numbered = iter(enumerate(lines, first))
    comment = None
    for opening, line in numbered:
        if not _OPENING.match(line):
            comment = _COMMENT.fullmatch(line)
            continue
        text = []
        for _, line in numbered:
            if _CLOSING.fullmatch(line):
                break
            text.append(line)
        else:
            raise ValueError(f"{path}:{opening}: the block has no end.")
        says, what = comment.groups() if comment else (None, None)
        comment = None
        if says == "not run" and not what:
            raise ValueError(f"{path}:{opening - 1}: `not run` lacks a reason.")
        if says == "run on" and what not in BACKENDS:
            raise ValueError(f"{path}:{opening - 1}: there is no backend {what!r}.")
        if says != "not run":
            yield Snippet(path, opening + 1, textwrap.dedent("\n".join(text)), what)


def _docstrings(node, name):
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for child in ast.iter_child_nodes(node):
        if isinstance(child, documented):
            yield from _docstrings(child, (*name, child.name))
    if isinstance(node, documented) and ast.get_docstring(node) is not None:
        yield name, node.body[0]
