"""Keys that are the same in every run: what is made of them stands in names of tests, which every worker has to find alike."""

from __future__ import annotations

from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.note import Signer


def fixed(name: str, number: int = 0) -> Signer:
    """The key number so-and-so of this name."""
    return Signer(name, Ed25519PrivateKey.from_private_bytes(sha256(f"{name} {number}".encode()).digest()))
