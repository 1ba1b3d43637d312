"""Recipes that change the point."""

from .problem import Peer

PEERS: list[Peer] = []
