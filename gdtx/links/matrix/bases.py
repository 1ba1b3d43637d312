"""How eigenvectors of second moments are asked for."""

from __future__ import annotations

from typing import Annotated

from ...core.calls.kinds import FloatDType, PositiveCount, one_of
from ...core.calls.options import Options


class Bases(Options):
    """When and how eigenvectors of second moments are found.

    Args:
        every: how many steps apart the basis is turned.
        start: the first step that does, counted from 1. Before it the basis is the identity.
        stale: whether a step uses the basis as it was before it, as the paper of SOAP does: no
            gradient is then measured in a basis of its own.
        method: `"qr"`, an eigendecomposition at first and later a step of orthogonal iteration from
            the old basis; or `"eigh"`, an eigendecomposition every time.
        batch_size: about how many bases are computed at a time; on a CPU, one.
        dtype: in which bases are computed; None is that of the statistic.

    >>> import gdtx
    >>> gdtx.soap(0.1, bases=gdtx.Bases(every=20)) == gdtx.soap(0.1).replace(**{"bases.every": 20})
    True
    """

    every: PositiveCount = 10
    start: PositiveCount = 1
    stale: bool = True
    method: Annotated[str, one_of("qr", "eigh")] = "qr"
    batch_size: PositiveCount = 64
    dtype: FloatDType | None = None
