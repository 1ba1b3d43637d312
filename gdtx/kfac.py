"""Kronecker-factored approximate curvature.

`value_grad_and_curvature(model, loss)` gives loss, gradient and curvature at once; `update` of the
method `kfac`, and of `levenberg_marquardt` around it, takes that as `curvature=`. Models are taken
as they are; `capture` is for those with parameters that no layer has, `tapped` for those that put
taps in themselves. Losses are here, and what is measured in the norm of the curvature.
"""

import sys as _sys
from types import ModuleType as _ModuleType
from typing import Any as _Any
from typing import NoReturn as _NoReturn

from .curvature.curvature import Curvature as Curvature
from .curvature.evaluation import value_grad_and_curvature as value_grad_and_curvature
from .curvature.fisher import fisher_square as fisher_square
from .curvature.levenberg_marquardt import levenberg_marquardt as levenberg_marquardt
from .curvature.losses import Loss as Loss
from .curvature.losses import sigmoid_cross_entropy as sigmoid_cross_entropy
from .curvature.losses import softmax_cross_entropy as softmax_cross_entropy
from .curvature.losses import squared_error as squared_error
from .curvature.model.capture import capture as capture
from .curvature.model.infer import infer_layout as infer_layout
from .curvature.model.layers import Layer as Layer
from .curvature.model.tapped import tapped as tapped
from .curvature.model.taps import dense_tap as dense_tap
from .curvature.model.taps import tap_dense as tap_dense
from .curvature.natural_gradient import fisher_matrix as fisher_matrix
from .methods.kfac import kfac as kfac
from .methods.natural_gradient import natural_gradient as natural_gradient


class _Module(_ModuleType):
    def __call__(self, *args: _Any, **kwargs: _Any) -> _NoReturn:
        raise TypeError(f"{self.__name__} is a module, the method in it is {self.__name__}.kfac")


_sys.modules[__name__].__class__ = _Module
