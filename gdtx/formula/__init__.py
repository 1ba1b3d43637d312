"""The language of formulas: expressions, how they are rewritten, and LaTeX."""
