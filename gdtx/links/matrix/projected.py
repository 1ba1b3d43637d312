"""Any transformation of a smaller image of matrices, and back."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from ...core.calls.kinds import PositiveCount, Seed, one_of
from ...core.calls.types import TransformationLike
from ...core.errors import foreign_state
from ...core.factory import transformation
from ...core.let import value_of
from ...core.numbers.numerics import increment
from ...core.random import keys
from ...core.rules import unzipped, walk
from ...core.transformation import GradientTransformation
from ...core.trees.boxes import refilled
from ...core.trees.copies import unlike_params
from ...core.trees.dealing import alike
from ...core.trees.layout import holding
from ...core.trees.sharding import shard_like
from ...core.trees.short import in_short
from ...core.trees.tree import PyTree, check_params, check_shapes, leaves_as, scalar_like
from ...formula import (
    Definition,
    Expression,
    Reader,
    Symbol,
    apply,
    expression,
    formula_of,
    opaque,
    t,
)
from ...linalg.products import adjoint, product
from .axes import among_matrices
from .image import READ, Image, images_of, read_by_bodies
from .rotating import rotated, rotation
from .spaces import Basis, found, leading_of_all
from .statistics import is_due
from .vectors import of_matrices, two_axes


@in_short
class ProjectedState(NamedTuple):
    """State of a projected transformation: updates done, the basis of each matrix as columns, and
    the states of the transformation and of the body."""

    step: jax.Array
    basis: PyTree
    inner: PyTree
    body: PyTree


@transformation(whole=True)
def projected(
    inner: TransformationLike,
    rank: PositiveCount,
    every: PositiveCount = 200,
    *,
    body: TransformationLike = value_of("inside"),
    basis: Basis = "svd",
    side: Annotated[str, one_of("shorter", "longer", "i", "o")] = "shorter",
    moments: Annotated[str, one_of("keep", "rotate", "reset")] = "keep",
    seed: Seed = 0,
    axes: Any = None,
) -> GradientTransformation:
    r"""Transform matrices in a space of few dimensions, and bring back what comes out.

    $R_t = P_t^\top G_t$, $N_t = \mathrm{inner}(R_t)$, $u_t = P_t N_t$, with a basis $P_t$ of $r$
    columns. The state of `inner` is as small as $R$: of a matrix of $m \times n$, $m \le n$, it
    has $r n$ numbers where it would have $m n$, and the basis has $m r$.

    The basis turns at the first update and every $k$ updates after it, in a conditional of the
    program: between, it costs nothing. What `inner` keeps is then of the old basis. Of a gradient
    that is not finite there is no basis: that update is NaN, and the last good basis stays, at
    first the first columns of the identity.

    What becomes of $G$ and $N$ is a formula of its own, the `body`, in which :func:`value_of` reads

    - `"inside"`, $P_t N_t$;
    - `"outside"`, $G_t - P_t R_t$, what the basis does not reach;
    - `"gain"`, $\|N_t\| / \|R_t\|$, one number for each matrix, 0 where $R_t$ is 0;
    - `"gains"`, $\|N_{t,j}\| / \|R_{t,j}\|$, one for each column $j$.

    All have the shape of the array, and the update that the body itself gets is $G_t$.

    Args:
        inner: transformation of the images, and of arrays that are no matrices as they are. It
            gets images of the parameters too.
        rank: $r$, at most the shorter side of each matrix counts.
        every: $k$, how many updates apart the basis turns.
        body: transformation of the matrices to what is emitted; $P_t N_t$ by default.
        basis: how $P$ is found: `"svd"`, the left singular vectors of the largest singular values
            of $G_t$, of each the entry of largest magnitude positive; `"gaussian"`, independent
            normal numbers of variance $1 / r$; or a function of $G_t$, of shape (..., m, n), and
            $r$ that returns $P$ of shape (..., m, r).
        side: which side becomes smaller, `"i"` the inputs, `"o"` the outputs, or the `"shorter"` or
            `"longer"` of both, the inputs where they are equal.
        moments: what becomes of the buffers of `inner` when the basis turns from $P$ to $P'$:
            `"keep"` them as they are, `"reset"` the whole state of `inner` on matrices, or
            `"rotate"`, multiply by $C = P'^\top P$, or after squares and absolute values by
            $C \circ C$, or $|C|^2$. Buffers are those of :func:`recur` and of all that is made
            with it.
        seed: of the normal numbers: those of the i-th matrix at step t are drawn with the key
            $k_{t,i}$ of :func:`randomized`.
        axes: which arrays are matrices, and what their axes are, in any form of `axes` of
            :func:`orthogonalize`; by default every array of two axes longer than 1 is `"io"`.

    Returns:
        A transformation whose state holds for each matrix a basis and what `inner` keeps of the
        image, for other arrays what `inner` keeps, the state of the body and one count.

    Raises:
        ValueError: if the axes of an array are not as many as it has.

    References:
        Zhao et al. 2024, GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection,
        arXiv:2403.03507; with `"outside"` and `"gains"`, Chen et al. 2024, Fira,
        arXiv:2410.01390; with `"gaussian"`, Zhu et al. 2024, APOLLO, arXiv:2412.05270.

    >>> import gdtx, jax, jax.numpy as jnp
    >>> params = {"w": jnp.zeros((100, 300)), "b": jnp.zeros(300)}
    >>> tx = gdtx.projected(gdtx.ema(0.9), rank=4)
    >>> [x.shape for x in jax.tree.leaves(gdtx.find(tx.init(params), "value"))]
    [(4, 300), (300,)]
    """
    axes = two_axes if axes is None else axes

    def images(tree: PyTree) -> list[Image]:
        return images_of(tree, among_matrices(axes, "axes"), rank, side)

    def init(params: PyTree) -> ProjectedState:
        leaves, seen = jax.tree.leaves(params), images(params)
        return ProjectedState(
            scalar_like(params, 0, jnp.int32),
            refilled(params, map(Image.first_basis, seen, leaves)),
            inner.init(refilled(params, map(Image.zero, seen, leaves))),
            body.init(params),
        )

    def step(
        inner: GradientTransformation, body: GradientTransformation, seed: Any,
        updates: PyTree, state: ProjectedState, params: PyTree, extra_args: dict[str, Any],
    ) -> tuple[PyTree, ProjectedState]:  # fmt: skip
        leaves, structure = jax.tree.flatten(updates)
        seen, count = images(updates), increment(state.step)
        whole = [image.matrices(x) for image, x in zip(seen, leaves, strict=True)]
        old = _bases(state.basis, seen)

        def small(matrices: list[jax.Array], bases: list[jax.Array], like: PyTree) -> PyTree:
            both = zip(seen, bases, matrices, strict=True)
            return refilled(like, (image.turned(product(adjoint(p), x)) for image, p, x in both))

        def turn(whole: list[jax.Array], old: list[jax.Array], kept: PyTree) -> Any:
            names = alike(updates) if basis == "svd" else None
            given = leading_of_all(whole, old, names) if names else [basis] * len(old)
            columns = whole, old, keys(seed, count, len(old)), given
            pairs = walk(found, structure, *columns, by_layer=False)
            new, good = map(list, unzipped(pairs, 2))
            if moments == "reset":
                kept = inner.init(small(whole, new, updates))
            if moments == "rotate":
                kept = rotated(inner, kept, rotation(seen, old, new))
            return new, good, kept

        # What stays does not go through the conditional, which might copy it.
        stays = moments == "keep"
        bases, good, kept = jax.lax.cond(
            is_due(count, 1, every),
            turn,
            lambda whole, old, kept: (old, old, kept),
            jax.lax.stop_gradient(whole),
            old,
            () if stays else state.inner,
        )
        kept = state.inner if stays else kept
        image = small(whole, bases, updates)
        of_params = None
        if params is not None:
            arrays = zip(seen, jax.tree.leaves(params), strict=True)
            of_params = small([i.matrices(p) for i, p in arrays], bases, params)
        new, kept = inner.update(image, kept, of_params, **extra_args)
        emitted = leaves_as(jax.tree.structure(image), new, "the result", "the images")
        check_shapes(image, emitted, "result")
        columns = zip(seen, bases, whole, jax.tree.leaves(image), emitted, strict=True)
        values = [read_by_bodies(*column) for column in columns]
        named = {name: structure.unflatten([each[name] for each in values]) for name in READ}
        out, of_body = body.update(updates, state.body, params, **{**extra_args, **named})
        return out, ProjectedState(count, refilled(updates, good), kept, of_body)

    def update(
        updates: PyTree, state: ProjectedState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, ProjectedState]:
        check_params(updates, params)
        arguments = inner, body, seed, updates, state, params, extra_args
        return shard_like((updates, state), step, *arguments)

    layout = holding(ProjectedState, inner=inner, body=body)
    pair = GradientTransformation(unlike_params(init), update, layout)
    return of_matrices(pair, inner, axes)


@formula_of(projected, rank="r", every="k")
def _(
    u: Expression, reader: Reader, inner: GradientTransformation, body: GradientTransformation,
    basis: Any, rank: Any, every: Any,
) -> Expression:  # fmt: skip
    u = reader.atom(u)
    if basis == "svd":
        found_as = apply("singularvectors", u, rank)
    elif basis == "gaussian":
        found_as = apply(r"\mathcal{N}", 0, 1 / rank)
    else:
        found_as = opaque(basis, u, expression(rank))
    if expression(every) == expression(1):
        space = reader.define((Symbol("P", time=t),), found_as)
    else:
        space = reader.claim((Symbol("P", time=t),), (found_as, every))
        turns = apply("divides", every, t - 1)
        value = apply("cases", found_as, turns, space.at(t - 1))
        reader.definitions.append(Definition(space, value))
    image = reader.define((Symbol("R", time=t),), space.T * u)
    new = reader.define((Symbol("N", time=t),), reader.read(inner, image))
    values = {
        "inside": space * new,
        "outside": u - space * image,
        "gain": apply("norm", new) / apply("norm", image),
        "gains": apply("columnnorms", new) / apply("columnnorms", image),
    }
    with reader.naming(values):
        return reader.read(body, u)


def _bases(kept: PyTree, seen: list[Image]) -> list[jax.Array]:
    """The bases of these matrices."""
    bases = jax.tree.leaves(kept)
    shapes = [(*image.batch, image.sides[0], image.rank) for image in seen]
    if [x.shape for x in bases] != shapes:
        foreign_state(f"bases of shapes {shapes}", kept)
    return bases
