"""Calls as data: kinds of arguments, signatures, the text form, options."""
