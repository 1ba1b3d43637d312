"""Reads the LaTeX that `gdtx.latex` prints, from the string alone: no code of gdtx is used."""

import re

TOKEN = re.compile(r"\\\\|\\[a-zA-Z]+|\\.|\d+(?:\.\d+)?|[a-zA-Z]|[-+=<>^_{}()|&,/]")
ACCENTS = {r"\hat", r"\tilde", r"\bar", r"\breve", r"\check", r"\dot"}
GREEK = {
    r"\alpha", r"\beta", r"\gamma", r"\delta", r"\Delta", r"\epsilon", r"\eta", r"\theta",
    r"\lambda", r"\mu", r"\nu", r"\phi", r"\pi", r"\psi", r"\rho", r"\tau", r"\sigma", r"\xi",
}  # fmt: skip
BRACKETS = {r"\lfloor": "floor"}
OPERATORS = {r"\bmod", "/"}
RELATIONS = {"=", "<", ">", r"\leq", r"\mid"}


class Parser:
    """Recursive descent to tuples: an operation and its operands."""

    def __init__(self, text):
        rest = TOKEN.sub("", text).split()
        assert not rest, f"not LaTeX that this reads: {rest}"
        self.tokens = TOKEN.findall(text)
        self.place = 0

    @property
    def next(self):
        return self.tokens[self.place] if self.place < len(self.tokens) else None

    def upcoming(self, count):
        return self.tokens[self.place : self.place + count]

    def take(self, *expected):
        token = self.next
        assert token is not None
        assert not expected or token in expected, f"{token}, expected {expected} at {self.place}"
        self.place += 1
        return token

    def block(self, name):
        """Rows of cells."""
        for token in (r"\begin", "{", *name, "}"):
            self.take(token)
        rows = [[self.relation()]]
        while self.next in ("&", r"\\"):
            if self.take() == r"\\":
                rows.append([])
            rows[-1].append(self.relation())
        for token in (r"\end", "{", *name, "}"):
            self.take(token)
        return rows

    def relation(self):
        """Sums with = or < or the like between them; the & of an aligned block is before its =."""
        parts = [self.sum()]
        while self.next in RELATIONS or self.upcoming(2) == ["&", "="]:
            if self.next == "&":
                self.take("&")
            parts += [self.take(), self.sum()]
        return parts[0] if len(parts) == 1 else ("relation", *parts)

    def sum(self):
        value = self.product()
        while self.next in ("+", "-"):
            value = (self.take(), value, self.product())
        return value

    def product(self):
        if self.next == "-":
            self.take()
            return ("-", ("number", "0"), self.product())
        value = self.power()
        while self.starts_a_factor():
            if self.next == r"\cdot":
                self.take()
                assert self.next not in OPERATORS
            operation = self.take() if self.next in OPERATORS else "*"
            value = (operation, value, self.power())
        return value

    def starts_a_factor(self):
        ends = RELATIONS | {None, "+", "-", "&", r"\\", "}", r"\right", r"\end", ","}
        return self.next not in ends

    def power(self):
        base = self.atom()
        if self.next != "^":
            return base
        self.take()
        return ("^", base, self.group())

    def group(self):
        """What is in braces, or the one token that stands without."""
        if self.next != "{":
            return self.atom()
        self.take()
        value = self.sum()
        self.take("}")
        return value

    def bracketed(self, left, right):
        self.take(r"\left")
        self.take(left)
        values = [] if self.next == r"\right" else [self.relation()]
        while self.next == ",":
            self.take()
            values.append(self.relation())
        self.take(r"\right")
        self.take(right)
        return values

    def word(self):
        """The letters in braces, with \\_ as in LaTeX."""
        self.take("{")
        letters = []
        while self.next != "}":
            letters.append(self.take())
        self.take()
        return "".join(letters).replace(r"\_", "_")

    def atom(self):
        token = self.next
        if token == r"\left":
            bracket = self.tokens[self.place + 1]
            if bracket == r"\langle":  # of numbers
                return ("*", *self.bracketed(bracket, r"\rangle"))
            right = {"(": ")", r"\lfloor": r"\rfloor"}.get(bracket, bracket)
            (value,) = self.bracketed(bracket, right)
            if self.upcoming(2) == ["_", "1"]:
                self.place += 2  # of a number, all norms are its magnitude
            return value if bracket == "(" else (BRACKETS.get(bracket, "abs"), value)
        if token == r"\begin":
            return ("cases", self.block("cases"))
        if token[0].isdigit():
            return ("number", self.take())
        if token in (r"\frac", r"\dfrac"):
            self.take()
            return ("/", self.group(), self.group())
        if token == r"\sqrt":
            self.take()
            return ("sqrt", self.group())
        if token in (r"\min", r"\max", r"\cos"):
            self.take()
            return (token, *self.bracketed("(", ")"))
        if token == r"\text":
            self.take()
            return ("text", self.word())
        if token == r"\operatorname" or (token == r"\mathrm" and self.names_a_function()):
            self.take()
            value = ("function", self.word(), self.bracketed("(", ")"))
            return ("call", value, self.bracketed("(", ")")) if self.next == r"\left" else value
        if token == r"\prod":
            for expected in (r"\prod", "_", "{", "i", "=", "1", "}", "^"):
                self.take(expected)
            return ("prod", self.group(), self.power())
        return self.symbol()

    def names_a_function(self):
        end = self.tokens.index("}", self.place)
        return self.tokens[end + 1 : end + 3] == [r"\left", "("]

    def symbol(self):
        token = self.take()
        if token in ACCENTS | {r"\mathrm"}:
            name = token + self.word()
        else:
            assert token in GREEK or token.isalpha(), f"{token} is no symbol"
            name = token
        below = ()
        if self.next == "_":
            self.take()
            below = self.below()
        if self.upcoming(2) == ["^", "{"]:
            sign = self.upcoming(4)[2:]
            if sign in (["+", "}"], ["-", "}"]):
                self.place += 4
                name += sign[0]
            elif sign == [r"\top", "}"]:
                self.place += 4  # of a number, the transpose is the number
        return ("symbol", name, below)

    def below(self):
        """The parts of an index: times are expressions, others are words."""
        if self.next != "{":
            return (self.part([self.take()]),)
        tokens, depth = [[]], 0
        self.take()
        while depth or self.next != "}":
            token = self.take()
            depth += (token == "{") - (token == "}")
            if token == "," and not depth:
                tokens.append([])
            else:
                tokens[-1].append(token)
        self.take()
        return tuple(map(self.part, tokens))

    def part(self, tokens):
        if tokens[0] in ("t", "i"):
            inner = Parser("")
            inner.tokens = tokens
            return inner.sum()
        return "".join(tokens)


def symbols(node):
    """Every symbol in a parsed expression."""
    if node[0] == "symbol":
        yield node
        node = node[2]
    for part in node:
        if isinstance(part, tuple | list) and part:
            yield from symbols(part)
