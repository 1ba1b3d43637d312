"""Recipes that change the projection."""

from .problem import Peer

PEERS: list[Peer] = []
