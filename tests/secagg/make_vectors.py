"""Writes `vectors.json`: known answers that nothing of lightning_fed took part in.

Shares and Lagrange weights are computed by sympy over the integers modulo the prime, key derivation by HMAC of the
standard library (RFC 5869), keystreams block by block with AES-ECB. Run it by hand: `python -m
tests.secagg.make_vectors`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import sympy
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.modes import ECB

VECTORS = Path(__file__).with_name("vectors.json")
PRIME = 2**256 + 297
X = sympy.symbols("x")


def fixed_number(*names: object) -> int:
    """A number below 2^256 that is the same on every machine."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, names)).encode()).digest(), "big")


def sharing(name: str, threshold: int, holders: list[int], secret: int) -> dict[str, Any]:
    """Shares of one secret by a polynomial with fixed coefficients, at each holder's number plus one."""
    coefficients = [fixed_number(name, place) for place in range(1, threshold)]
    polynomial = sympy.Poly([*reversed(coefficients), secret], X)
    return {
        "threshold": threshold,
        "secret": f"{secret:064x}",
        "coefficients": [f"{number:064x}" for number in coefficients],
        "shares": {holder: f"{int(polynomial.eval(holder + 1)) % PRIME:066x}" for holder in holders},
    }


def weights(holders: list[int]) -> dict[str, Any]:
    """Lagrange weights at zero: each basis polynomial, evaluated over the rationals and taken modulo the prime."""
    points = [holder + 1 for holder in holders]
    found = []
    for point in points:
        basis = sympy.prod(sympy.Rational(-other, point - other) for other in points if other != point)
        found.append(f"{int(basis.p) * sympy.mod_inverse(int(basis.q), PRIME) % PRIME:066x}")
    return {"holders": holders, "weights": found}


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, from its text."""
    key = hmac.digest(salt, secret, "sha256")
    output, block = b"", b""
    for number in range(1, -(-length // 32) + 1):
        block = hmac.digest(key, block + info + bytes([number]), "sha256")
        output += block
    return output[:length]


def keystream(key: bytes, start: int, length: int) -> list[int]:
    """Words of AES-128-CTR from word `start` on, one block cipher call for each block."""
    cipher = Cipher(AES128(key), ECB()).encryptor()
    blocks = range(start // 4, (start + length + 3) // 4)
    stream = b"".join(cipher.update(block.to_bytes(16, "big")) for block in blocks)
    words = [int.from_bytes(stream[4 * place : 4 * place + 4], "little") for place in range(len(stream) // 4)]
    return words[start % 4 : start % 4 + length]


def mask_keys() -> list[dict[str, Any]]:
    """Keys of pair and self masks in a few contexts."""
    found = []
    for session, round, attempt, vector, one, other in [
        (1, 1, 1, 0, 0, 1),
        (1, 1, 1, 0, 2, 10),
        (1, 12, 3, 1, 2, 10),
        (2, 1, 1, 0, 0, 1),
    ]:
        name = fixed_number("session", session).to_bytes(32, "big")
        secret = fixed_number("secret", session, round).to_bytes(32, "big")
        pair = f"lightning-fed secagg pair mask {round}/{attempt}/{vector}/{one}/{other}".encode()
        own = f"lightning-fed secagg self mask {round}/{attempt}/{vector}/{one}".encode()
        found.append(
            {
                "session": name.hex(),
                "round": round,
                "attempt": attempt,
                "vector": vector,
                "hospitals": [one, other],
                "secret": secret.hex(),
                "pair_key": hkdf(secret, name, pair, 16).hex(),
                "self_key": hkdf(secret, name, own, 16).hex(),
            }
        )
    return found


def main() -> None:
    """Write the file anew."""
    key = bytes(range(16))
    starts = [(0, 9), (1, 3), (3, 6), (4, 4), (32_766, 6), (2**34 + 5, 5)]
    content = {
        "shamir": [
            sharing("three of five", 3, [0, 1, 2, 3, 4], fixed_number("secret")),
            sharing("four of six", 4, [0, 3, 7, 8, 41, 999], 2**256 - 1),
            sharing("two of three, nothing", 2, [1, 2, 5], 0),
            sharing("twenty-two of thirty-two", 22, list(range(3, 99, 3)), fixed_number("another")),
        ],
        "lagrange": [weights([0, 1, 2]), weights([0, 3, 7, 999]), weights(list(range(1, 60, 4)))],
        "mask_keys": mask_keys(),
        "keystream": {
            "key": key.hex(),
            "stretches": [{"start": start, "words": keystream(key, start, length)} for start, length in starts],
        },
    }
    VECTORS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
