"""The notebooks: run from top to bottom at a small size, and as they are committed."""

import base64
import re
import sys
from pathlib import Path

import keras
import pytest

for needed in ("ipykernel", "matplotlib", "sklearn"):
    pytest.importorskip(needed, reason=f"running the notebooks needs {needed}")
nbclient = pytest.importorskip("nbclient", reason="it runs the notebooks")
nbformat = pytest.importorskip("nbformat", reason="it reads the notebooks")
jupyter_client = pytest.importorskip("jupyter_client", reason="it starts kernels")

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"
# What takes the place of each notebook's parameters.
SMALL = {
    "degraded_images": 'data, preset = "digits", None\n'
    "limit, epochs, batch_size, seed = 64, 1, 16, 0\n"
    'filters, methods = (64, 8, 8), ("student alone", "+ recommended")',
    "optical_to_radar": 'data, size = "no such file.npz", 16\n'
    "limit, epochs, batch_size, seed = 64, 1, 16, 0\n"
    'widths, methods = (4, 4, 4), ("student alone", "+ recommended")',
    "tabular_views": 'data = "wine"\nepochs, batch_size, seeds = 2, 16, 1\n'
    'widths, methods = (4, 4), ("student alone", "+ recommended")',
}
BACKEND = 'os.environ["KERAS_BACKEND"] = "jax"'
MACHINE_PATHS = re.compile(r"/(work|tmp|root|home|opt|usr|Users)\b|site-packages")


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts_and_pictures(outputs):
    texts = [o["text"] for o in outputs if o.output_type == "stream"]
    data = [o["data"] for o in outputs if "data" in o]
    texts += [d["text/plain"] for d in data if "text/plain" in d]
    return "".join(texts), [d["image/png"] for d in data if "image/png" in d]


def check_outputs(notebook, backend):
    """Raises unless there is no error, and a table and pictures at the end."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    text, _ = texts_and_pictures(outputs)
    assert re.search(r"^teacher, strong modality +\d+\.\d\d", text, re.MULTILINE)
    assert re.search(r"^\+ recommended +\d+\.\d\d.* [+-]\d+\.\d\d", text, re.MULTILINE)
    *_, structure, needed = code_cells(notebook)
    text, pictures = texts_and_pictures(structure.outputs)
    assert "effective rank" in text
    assert len(pictures) == 1
    assert base64.b64decode(pictures[0]).startswith(b"\x89PNG")
    text, _ = texts_and_pictures(needed.outputs)
    assert f"CPU cores, {backend}, Keras" in text


def test_each_notebook_has_its_small_size():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(SMALL)


class OwnKernel(jupyter_client.AsyncKernelManager):
    """Starts kernels of this interpreter, whatever kernels are installed."""

    @property
    def kernel_spec(self):
        return jupyter_client.kernelspec.KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        )


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_notebook_runs_from_top_to_bottom(name, tmp_path):
    if name == "degraded_images":
        pytest.importorskip("keras_cv", reason="the notebook's backbone is KerasCV's")
    notebook = read(name)
    (choice,) = (cell for cell in notebook.cells if BACKEND in cell.source)
    choice.source = choice.source.replace("jax", keras.backend.backend())
    (parameters,) = (
        cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())
    )
    parameters.source = SMALL[name]
    client = nbclient.NotebookClient(
        notebook,
        kernel_manager_class=OwnKernel,
        timeout=300,
        resources={"metadata": {"path": tmp_path}},
    )
    client.execute()
    check_outputs(notebook, keras.backend.backend())
    assert (tmp_path / "student.keras").exists()


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_notebook_is_committed_as_it_ran(name):
    notebook = read(name)
    nbformat.validate(notebook)
    check_outputs(notebook, "jax")
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    content = (FOLDER / f"{name}.ipynb").read_text()
    assert len(content) < 600_000
    pictures = re.compile(r'"image/png": "[^"]*"')
    assert not MACHINE_PATHS.search(pictures.sub("", content))
