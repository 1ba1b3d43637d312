"""Recipes that change the matrix."""

from .problem import Peer

PEERS: list[Peer] = []
