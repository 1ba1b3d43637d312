"""Kronecker-factored approximate curvature."""

import sys as _sys
from types import ModuleType as _ModuleType
from typing import Any as _Any
from typing import NoReturn as _NoReturn

from .capture import capture as capture
from .curvature import Curvature as Curvature
from .curvature import tapped as tapped
from .curvature import value_grad_and_curvature as value_grad_and_curvature
from .fisher import fisher_matrix as fisher_matrix
from .fisher import fisher_square as fisher_square
from .fisher import natural_gradient as natural_gradient
from .layers import Layer as Layer
from .layers import infer_layout as infer_layout
from .losses import Loss as Loss
from .losses import sigmoid_cross_entropy as sigmoid_cross_entropy
from .losses import softmax_cross_entropy as softmax_cross_entropy
from .losses import squared_error as squared_error
from .method import kfac as kfac
from .method import levenberg_marquardt as levenberg_marquardt
from .taps import dense_tap as dense_tap
from .taps import tap_dense as tap_dense


class _Module(_ModuleType):
    def __call__(self, *args: _Any, **kwargs: _Any) -> _NoReturn:
        raise TypeError(f"{self.__name__} is a module, the method in it is {self.__name__}.kfac")


_sys.modules[__name__].__class__ = _Module
