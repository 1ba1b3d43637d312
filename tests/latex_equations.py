"""Evaluates what `gdtx.latex` prints.

An `aligned` block is read as equations that hold at every step t = 1, 2, ... Numbers have 50
digits, so that a formula is judged for what it says, not for how it rounds.
"""

import itertools
import math
from decimal import Decimal, localcontext

from latex_parser import Parser


class Equations:
    """The lines of a block, evaluated on demand at any step."""

    def __init__(self, text, given, functions=None):
        given = {r"\pi": Decimal(math.pi), **given}
        self.given = {symbol(key): value for key, value in given.items()}
        # Of one number, all means, and its cover, are the number itself.
        means = dict.fromkeys(("rowmean", "colmean", "mean", "cover"), lambda x: x)
        self.functions = {"sign": sign, "RMS": abs, **means, **(functions or {})}
        self.rules = {}
        self.sides = []
        for (line,) in Parser(text).block("aligned"):
            assert line[0] == "relation"
            assert set(line[2::2]) == {"="}
            self.sides.append((line[1:-1:2], line[-1]))
            for _, name, below in line[1:-1:2]:
                key = (name, tuple(part[1] if part in STEPS else part for part in below))
                assert key not in self.rules, f"{key} is defined twice"
                self.rules[key] = line[-1]
        self.known = {}

    def __call__(self, name, step):
        """The value of `name`, with t in its index, at a step."""
        with localcontext(prec=50):
            return self.evaluate(("symbol", *symbol(name)), {"t": step})

    def lookup(self, name, below, times):
        at = tuple(part if isinstance(part, str) else str(self.evaluate(part, times))
                   for part in below)  # fmt: skip
        if (name, at) in self.given:
            return self.given[name, at]
        if (name, at) not in self.known:
            for key, moment in self.readings(name, at):
                if key in self.rules:
                    self.known[name, at] = self.evaluate(self.rules[key], moment)
                    break
            else:
                raise KeyError(f"{name} at {at} is not defined")
        return self.known[name, at]

    def readings(self, name, at):
        """An index may be a name, as that of a start, or a step of the rule for any t."""
        yield (name, at), {}
        for places in itertools.product(
            *(["", "t", "i"] if is_step(part) else [""] for part in at)
        ):
            key = tuple(place or part for place, part in zip(places, at, strict=True))
            yield (name, key), {p: int(part) for p, part in zip(places, at, strict=True) if p}

    def evaluate(self, node, times):
        head, *rest = node
        if head == "number":
            return Decimal(rest[0])
        if head == "symbol":
            if rest[0] in times and not rest[1]:
                return Decimal(times[rest[0]])
            return self.lookup(*rest, times)
        if head == "cases":
            for row in rest[0]:
                if self.holds(row[1], times):
                    return self.evaluate(row[0], times)
        if head == "prod":
            last, factor = rest
            value = Decimal(1)
            for i in range(1, int(self.evaluate(last, times)) + 1):
                value *= self.evaluate(factor, {**times, "i": i})
            return value
        if head == "call":
            (_, name, arguments), (step,) = rest
            named = {key[1].removeprefix(r"\mathrm"): float(self.evaluate(value, times))
                     for _, key, _, value in arguments}  # fmt: skip
            return Decimal(float(self.functions[name](**named)(int(self.evaluate(step, times)))))
        if head == "function":
            name, arguments = rest
            return self.functions[name](*(self.evaluate(each, times) for each in arguments))
        values = [self.evaluate(each, times) for each in rest]
        return OPERATIONS[head](*values)

    def holds(self, condition, times):
        if condition[0] == "text":
            return self.given.get((condition[1], ()), condition[1] == "otherwise")
        _, one, relation, other = condition
        one, other = self.evaluate(one, times), self.evaluate(other, times)
        holds = {"=": one == other, "<": one < other, ">": one > other, r"\leq": one <= other}
        return other % one == 0 if relation == r"\mid" else holds[relation]


STEPS = [("symbol", letter, ()) for letter in "ti"]


def is_step(part):
    return part.isdigit() and int(part) >= 1


OPERATIONS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "^": lambda a, b: Decimal(a) ** Decimal(b),
    "sqrt": lambda a: a.sqrt(),
    "abs": abs,
    "floor": math.floor,
    r"\bmod": lambda a, b: a % b,
    r"\cos": lambda a: Decimal(math.cos(a)),
    r"\min": min,
    r"\max": max,
}


def sign(x):
    return (x > 0) - Decimal(x < 0)


def symbol(text):
    """The name and index of a symbol, as keys."""
    if " " in text:
        return text.replace(" ", ""), ()
    _, name, below = Parser(text).symbol()
    return name, below
