"""Programs that end because of what they are asked, run in this process.

It has imported what they need, which another would have to do again.
"""

import contextlib
import io
import runpy
import sys
from pathlib import Path
from unittest import mock

import pytest


def refused(program: Path, *arguments: str) -> tuple[int, str]:
    """The code that it ends with, and what it says."""
    said = io.StringIO()
    path = [str(program.parent), *sys.path]
    with (
        mock.patch.multiple(sys, argv=[str(program), *arguments], path=path),
        contextlib.redirect_stderr(said),
        pytest.raises(SystemExit) as ended,
    ):
        runpy.run_path(str(program), run_name="__main__")
    code = ended.value.code
    # Of a message the interpreter makes a 1, and prints it.
    return (1, code) if isinstance(code, str) else (code, said.getvalue())
