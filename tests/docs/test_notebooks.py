"""The notebooks run at a small size, and are committed with all their outputs."""

import base64
import re
import sys
from pathlib import Path

import keras
import pytest
import snippets

for needed in ("IPython", "matplotlib", "sklearn"):
    pytest.importorskip(needed, reason=f"running the notebooks needs {needed}")
nbformat = pytest.importorskip("nbformat", reason="it reads the notebooks")

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"
# Replaces the cell of parameters.
SMALL = {
    "degraded_images": 'data, preset = "digits", None\n'
    "limit, epochs, batch_size, seed = 64, 1, 16, 0\n"
    'filters, methods = (64, 8, 8), ("student alone", "+ recommended")',
    "optical_to_radar": 'data, size = "no such file.npz", 16\n'
    "limit, epochs, batch_size, seed = 64, 1, 16, 0\n"
    'widths, methods = (4, 4, 4), ("student alone", "+ recommended")',
    "sensors": "labeled_people, teacher_people = 2, 7\n"
    "steps, batch_size, widths, seed = 4, 64, (4, 4, 4), 0",
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
    """Checks that there is no error, and that a table and a figure come last."""
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


@pytest.mark.backend_neutral
def test_every_notebook_has_a_small_size():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(SMALL)


def small(name):
    """The notebook for this backend, with its small parameters and no outputs."""
    notebook = read(name)
    (choice,) = (cell for cell in notebook.cells if BACKEND in cell.source)
    choice.source = choice.source.replace("jax", keras.backend.backend())
    (parameters,) = (
        cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())
    )
    parameters.source = SMALL[name]
    for cell in code_cells(notebook):
        cell.outputs = []
    return notebook


@pytest.fixture
def shell():
    """An IPython shell in this process, which starts much faster than a kernel."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    yield InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    InteractiveShell.clear_instance()


def run_cell(shell, cell):
    from IPython.utils.capture import capture_output

    with capture_output() as captured:
        result = shell.run_cell(cell.source)
    result.raise_error()
    cell.outputs = [
        nbformat.v4.new_output("stream", text=captured.stdout),
        *(
            nbformat.v4.new_output("display_data", output.data)
            for output in captured.outputs
        ),
    ]


# So few samples do not show that they are paired.
@pytest.mark.backend_neutral
@pytest.mark.filterwarnings("ignore:Pairs look shuffled")
@pytest.mark.filterwarnings("ignore:It is unclear whether the rows are pairs")
@pytest.mark.parametrize("name", sorted(SMALL))
def test_notebook_runs_from_top_to_bottom(name, shell, tmp_path, monkeypatch):
    if name == "degraded_images":
        pytest.importorskip("keras_cv", reason="the notebook's backbone is KerasCV's")
    if name == "sensors":
        pytest.importorskip("seglearn", reason="the notebook's data come with seglearn")
    monkeypatch.chdir(tmp_path)
    notebook = small(name)
    with snippets.one_step_per_fit():
        for cell in code_cells(notebook):
            run_cell(shell, cell)
    check_outputs(notebook, keras.backend.backend())
    assert (tmp_path / "student.keras").exists()


@pytest.mark.backend_neutral
def test_notebook_runs_in_a_kernel(tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="it runs the notebook")
    pytest.importorskip("ipykernel", reason="it is the kernel")
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec

    class OwnKernel(AsyncKernelManager):
        """Starts this interpreter, whichever kernels are installed."""

        kernel_spec = KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        )

    notebook = small("tabular_views")
    client = nbclient.NotebookClient(
        notebook,
        kernel_manager_class=OwnKernel,
        timeout=300,
        resources={"metadata": {"path": tmp_path}},
    )
    client.execute()
    check_outputs(notebook, keras.backend.backend())
    assert (tmp_path / "student.keras").exists()


@pytest.mark.backend_neutral
@pytest.mark.parametrize("name", sorted(SMALL))
def test_notebook_is_committed_with_its_outputs(name):
    notebook = read(name)
    nbformat.validate(notebook)
    check_outputs(notebook, "jax")
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    content = (FOLDER / f"{name}.ipynb").read_text()
    assert len(content) < 600_000
    pictures = re.compile(r'"image/png": "[^"]*"')
    assert not MACHINE_PATHS.search(pictures.sub("", content))
