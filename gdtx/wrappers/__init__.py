"""Wrappers: transformations around another one."""
