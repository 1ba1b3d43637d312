"""The page of errors: each is raised when the page is made, and shown as it came."""

from __future__ import annotations

import ast
import warnings
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp

import gdtx
from gdtx.core.calls import recompiled

from .mistakes import SECTIONS

_HEAD = """\
# Errors

What a message means, and what to do. Every message below was raised by the library when this page
was made. Messages name the transformation, then the argument or the leaf by its path, what was
expected, and what came; `chain > trace:` is the link `trace` in a chain.

Names in all programs:

```{code-block} python
import gdtx
import jax
import jax.numpy as jnp
```"""


@cache
def page() -> str:
    parts = [_HEAD]
    for title, rows in SECTIONS.items():
        parts.append(f"## {title}")
        parts += [_entry(*row) for row in rows]
    return "\n\n".join(parts) + "\n"


def _entry(title: str, program: str, cure: str) -> str:
    return "\n\n".join(
        [
            f"### {title}",
            f"```{{code-block}} python\n{program}\n```",
            f"```{{code-block}} text\n:class: error-message\n{message(program)}\n```",
            cure,
        ]
    )


def message(program: str) -> str:
    """What the last statement of a program raises or warns of; an error if it does neither."""
    names = {"gdtx": gdtx, "jax": jax, "jnp": jnp}
    *before, last = ast.parse(program).body
    exec(compile(ast.Module(before, []), "program", "exec"), names)
    recompiled._warned.clear()  # it is said once in a process
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            exec(compile(ast.Module([last], []), "program", "exec"), names)
        except Exception as error:
            return _shown(error)
    if not caught:
        raise AssertionError(f"no error, and no warning, of\n{program}")
    return f"{caught[0].category.__name__}: {caught[0].message}"


def _shown(error: Exception) -> str:
    """With our notes, without JAX's on its frames, and with files from the package on."""
    notes = [note for note in getattr(error, "__notes__", ()) if "internal frames" not in note]
    text = "\n".join([f"{type(error).__name__}: {error}", *notes])
    return text.replace(f"{Path(gdtx.__file__).parents[1]}/", "")
