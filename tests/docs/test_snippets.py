"""Blocks of pages are found and run, and a broken block fails its test."""

import traceback

import keras
import pytest
import snippets

pytestmark = pytest.mark.backend_neutral

PAGE = """# A page

```bash
rm -rf nothing
```

```python
x = 1
```

- In a list:

  ```python
  y = x + 1
  ```
"""


def write(folder, text):
    path = folder / "page.md"
    path.write_text(text, encoding="utf-8")
    return path


def test_blocks_run_in_order_in_one_namespace(tmp_path):
    names = {}
    snippets.run(snippets.of_page(write(tmp_path, PAGE)), names)
    assert (names["x"], names["y"]) == (1, 2)


def test_traceback_of_a_broken_block_points_to_its_line(tmp_path):
    path = write(tmp_path, PAGE.replace("y = x", "y = z"))
    with pytest.raises(NameError, match="'z' is not defined") as error:
        snippets.run(snippets.of_page(path), {})
    last = traceback.extract_tb(error.value.__traceback__)[-1]
    assert (last.filename, last.lineno, last.line) == (str(path), 14, "y = z + 1")


def test_syntax_error_points_to_its_line(tmp_path):
    path = write(tmp_path, PAGE.replace("y = x + 1", "y = x +"))
    with pytest.raises(SyntaxError) as error:
        snippets.run(snippets.of_page(path), {})
    assert (error.value.filename, error.value.lineno) == (str(path), 14)


def test_skipping_a_block_needs_a_reason(tmp_path):
    marked = PAGE.replace("```python\nx", "<!-- not run: {}-->\n```python\nx")
    (block,) = snippets.of_page(write(tmp_path, marked.format("two hosts ")))
    assert block.text == "y = x + 1"
    with pytest.raises(ValueError, match=r"page\.md:7: `not run` lacks a reason"):
        snippets.of_page(write(tmp_path, marked.format("")))


def test_block_runs_only_on_the_backend_that_it_names(tmp_path):
    marked = PAGE.replace("```python\nx = 1", "<!-- run on {} -->\n```python\nx = 2")
    backend = keras.backend.backend()
    other = "torch" if backend == "jax" else "jax"
    for named, x in ((backend, 2), (other, 1)):
        names = {"x": 1}
        blocks = snippets.of_page(write(tmp_path, marked.format(named)))
        snippets.run(blocks, names)
        assert names["y"] == x + 1
    marked = marked.format("theano")
    with pytest.raises(ValueError, match=r"page\.md:7: there is no backend 'theano'"):
        snippets.of_page(write(tmp_path, marked))


def test_block_without_an_end_raises(tmp_path):
    with pytest.raises(ValueError, match=r"page\.md:1: the block has no end"):
        snippets.of_page(write(tmp_path, "```python\nx = 1\n"))


def test_docstrings_of_modules_and_methods_have_blocks(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        '"""Module.\n\n```python\na = 1\n```\n"""\n'
        'class C:\n    def f(self):\n        """Method.\n\n'
        "        ```python\n        b = 2\n"
        '        ```\n        """\n'
    )
    found = snippets.of_docstrings(path)
    texts = {name: [block.text for block in blocks] for name, blocks in found.items()}
    assert texts == {"module": ["a = 1"], "C.f": ["b = 2"]}
    assert found["C.f"][0].line == 12
