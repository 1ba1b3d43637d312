"""Transformations that take one."""
