"""Configuration: methods by name, for files of settings."""

from .by_name import get as get
from .by_name import list_methods as list_methods
