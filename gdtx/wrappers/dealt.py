"""Work on whole matrices, dealt out to the devices of a mesh."""

from __future__ import annotations

from typing import Annotated, Any

from jax.sharding import AbstractMesh, Mesh

from ..core.calls.kinds import Kind
from ..core.calls.types import TransformationLike
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..core.trees.dealing import dealer, dealing
from ..core.trees.tree import PyTree
from ..formula import Expression, Reader, formula_of


def _is_names(value: Any) -> bool:
    names = value if isinstance(value, tuple | list) else (value,)
    return (
        bool(names)
        and len(set(names)) == len(names)
        and all(isinstance(n, str) and n for n in names)
    )


MeshAxes = Annotated[
    str | tuple[str, ...],
    Kind(
        "the name of a mesh axis, or several different ones",
        _is_names,
        convert=lambda value: value if isinstance(value, str) else tuple(value),
    ),
]
MaybeMesh = Annotated[
    Mesh | AbstractMesh | None,
    Kind("a mesh or None", lambda value: value is None or isinstance(value, Mesh | AbstractMesh)),
]


@transformation
def dealt(
    inner: TransformationLike, over: MeshAxes, mesh: MaybeMesh = None
) -> GradientTransformation:
    r"""Deal the matrices that `inner` works on to the devices along some mesh axes.

    A matrix that is cut over a mesh is brought together on every device by what must see it whole,
    and all of them do the same work. Here each device is sent some of the matrices instead: they
    move by one all-to-all for each axis along which they are cut (where they are whole along one,
    each device takes of what it has), are worked on with no communication, and move back by as
    many. Each device does its part of the work, and needs memory for its part of the matrices.

    This is what :func:`orthogonalize` does inside of it, and so :func:`muon` and its relatives, and
    :func:`blockwise` with blocks of arrays, and so :func:`shampoo`, :func:`soap` and :func:`psgd`:
    there the state is dealt too, and so are the blocks of :func:`scale_by_full_matrix`. Of
    :func:`scale_by_kfac` and :func:`scale_by_ekfac` the decompositions are, and the state is whole
    on every device; of :func:`projected`, and so :func:`galore`, those of `basis="svd"`. What looks
    at no matrix is as it was, and so is everything on one device.

    Matrices of one shape go together if their paths are equal but for numbers, such as those of
    layers: these are most often cut alike. If they are not, the compiler moves more.

    Args:
        inner: any transformation.
        over: the mesh axes, one name or several: best all, as `("data", "model")`. There should
            not be many more devices along them than matrices of one shape.
        mesh: the mesh, where neither the updates are on one nor `jax.set_mesh` has set one.

    Returns:
        A transformation with the state of `inner`, but for how blocks are stacked, whose numbers
        are equal but for rounding.

    Raises:
        ValueError: from `update`, if no mesh is known and there is more than one device, or the
            mesh has no such axis.

    >>> import gdtx, jax
    >>> mesh = jax.make_mesh((1,), ("data",))
    >>> tx = gdtx.dealt(gdtx.muon(0.02, ["**/kernel"], gdtx.adamw(1e-3)), over="data", mesh=mesh)
    >>> tx.arguments["over"]
    'data'
    """
    names = (over,) if isinstance(over, str) else over

    def init(params: PyTree) -> PyTree:
        with dealing(names, mesh):
            return inner.init(params)

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, PyTree]:
        with dealing(names, mesh):
            dealer(updates, strict=True)
            return inner.update(updates, state, params, **extra_args)

    return GradientTransformation(init, update, inner)


@formula_of(dealt)
def _(u: Expression, reader: Reader, inner: GradientTransformation) -> Expression:
    return reader.read(inner, u)
