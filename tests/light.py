"""Runs a program without the packages that Keras imports only where it finds them.

    python light.py PROGRAM [ARGUMENT...]
    python light.py -c CODE [ARGUMENT...]

These packages take up to half of the time in which Keras starts, and a test that starts
processes needs none of them.
"""

import os
import runpy
import sys

OPTIONAL = {"IPython", "cv2", "keras_cv", "matplotlib", "pandas", "sklearn"}
BACKENDS = {"jax", "tensorflow", "torch"}


def main(program, *arguments):
    # Importing one of these then raises `ImportError`, as if it were not installed.
    hidden = OPTIONAL | BACKENDS - {os.environ["KERAS_BACKEND"]}
    sys.modules.update(dict.fromkeys(hidden))
    if program == "-c":
        code, *arguments = arguments
        sys.argv = ["-c", *arguments]
        sys.path[0] = ""
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [program, *arguments]
        runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
