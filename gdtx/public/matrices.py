"""Matrices: links that see arrays as matrices, and their options."""

from ..curvature.ekfac import scale_by_ekfac as scale_by_ekfac
from ..curvature.fisher import clip_by_fisher_norm as clip_by_fisher_norm
from ..curvature.kfac import scale_by_kfac as scale_by_kfac
from ..curvature.natural_gradient import scale_by_natural_gradient as scale_by_natural_gradient
from ..links.matrix.bases import Bases as Bases
from ..links.matrix.blockwise import Blocks as Blocks
from ..links.matrix.blockwise import blockwise as blockwise
from ..links.matrix.cover import running_cover as running_cover
from ..links.matrix.eigenbasis import in_eigenbasis as in_eigenbasis
from ..links.matrix.full_matrix import scale_by_full_matrix as scale_by_full_matrix
from ..links.matrix.lbfgs import scale_by_lbfgs as scale_by_lbfgs
from ..links.matrix.orthogonal import orthogonalize as orthogonalize
from ..links.matrix.orthogonal import scale_by_shape as scale_by_shape
from ..links.matrix.packed import packed as packed
from ..links.matrix.polynomials import Polar as Polar
from ..links.matrix.precondition import Roots as Roots
from ..links.matrix.precondition import precondition as precondition
from ..links.matrix.whiten import Whitening as Whitening
from ..links.matrix.whiten import whiten as whiten
from ..links.matrix.window import scale_by_window as scale_by_window
from ..methods.full_matrix_adagrad import full_matrix_adagrad as full_matrix_adagrad
from ..methods.muon import scale_by_muon as scale_by_muon
from ..methods.shampoo import scale_by_shampoo as scale_by_shampoo
from ..methods.sm3 import scale_by_sm3 as scale_by_sm3
from ..methods.soap import scale_by_soap as scale_by_soap
