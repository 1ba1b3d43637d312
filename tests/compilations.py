"""Counts the programs handed to the compiler, by jax's own monitoring events."""

import contextlib

import jax

_events = []


def _listen(event, duration, **_):
    if event == "/jax/core/compile/backend_compile_duration":
        _events.append(event)


# Once for the process: a listener is taken off only with every other.
jax.monitoring.register_event_duration_secs_listener(_listen)


@contextlib.contextmanager
def counted_compilations():
    """The list fills while the context is open, an entry for each compilation."""
    _events.clear()
    yield _events
