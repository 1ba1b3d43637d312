"""Recipes that change the denominator."""

from .problem import Peer

PEERS: list[Peer] = []
