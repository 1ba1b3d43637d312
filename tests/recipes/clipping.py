"""Recipes that change the clipping."""

from .problem import Peer

PEERS: list[Peer] = []
