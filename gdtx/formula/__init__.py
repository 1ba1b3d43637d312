"""The language of formulas: expressions, how they are rewritten, and LaTeX.

What links need to state theirs; the formulas of makers and combinators are :mod:`.combinators`.
"""

from . import combinators as combinators
from . import notebook as notebook
from . import trees as trees
from .expression import Expression as Expression
from .expression import Number as Number
from .expression import Symbol as Symbol
from .expression import apply as apply
from .expression import expression as expression
from .expression import leading as leading
from .expression import product as product
from .expression import quotient as quotient
from .expression import total as total
from .hyperparameters import at_hand as at_hand
from .matrices import IDENTITY as IDENTITY
from .matrices import inverse_root as inverse_root
from .matrices import iterated as iterated
from .matrices import statistics_of_sides as statistics_of_sides
from .notation import letters as letters
from .reader import MEMORY as MEMORY
from .reader import PARAMETERS as PARAMETERS
from .reader import Reader as Reader
from .reader import formula_of as formula_of
from .results import opaque as opaque
from .results import result as result
from .rewriting import Definition as Definition
from .rewriting import contains as contains
from .rewriting import shifted as shifted
from .rewriting import t as t
from .schedules import Moment as Moment
from .schedules import between as between
from .schedules import half_cosine as half_cosine
from .schedules import pieces as pieces
from .schedules import schedule_formula as schedule_formula
