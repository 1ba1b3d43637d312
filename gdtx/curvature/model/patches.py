"""What the positions of a convolution's output are made of."""

from __future__ import annotations

from dataclasses import dataclass

import jax


@dataclass(frozen=True)
class Window:
    """The patches of a convolution.

    Args:
        shape, strides, padding, lhs_dilation, rhs_dilation: of the convolution.
        to_front: the axes of the input, such that examples, channels and space follow in this
            order.
        order: how channels and window are ordered in the kernel: a permutation of them.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]
    to_front: tuple[int, ...]
    order: tuple[int, ...]

    def patches(self, x: jax.Array) -> jax.Array:
        """Examples, space, and last the numbers that one position of the output is made of."""
        x = x.transpose(self.to_front)
        patches = jax.lax.conv_general_dilated_patches(
            x, self.shape, self.strides, self.padding, self.lhs_dilation, self.rhs_dilation
        )
        channels = x.shape[1]
        space = patches.shape[2:]
        patches = patches.reshape(x.shape[0], channels, *self.shape, *space)
        window = tuple(1 + axis for axis in self.order)
        positions = tuple(range(2 + len(self.shape), patches.ndim))
        patches = patches.transpose(0, *positions, *window)
        return patches.reshape(x.shape[0], *space, -1)
