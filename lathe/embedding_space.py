"""The name of an embedding space: equal names, and only those, stand for vectors that may be compared."""

from __future__ import annotations

import hashlib

DIGITS = 16


def space_id(model: str, sha256_of_onnx: str, alignment: str) -> str:
    """Names the space of an embedding network.

    It follows from what makes the vectors: the network's bytes, and where the landmarks come to lie in its input.
    So the same file published once more has the same space, and any other file another one.

    Args:
        model: the model's name, so that people can tell spaces apart.
        sha256_of_onnx: digest of model.onnx, lower-case hexadecimal.
        alignment: the word of the card's alignment, such as `dlib`.

    Returns:
        The model's name, a slash, and 16 hexadecimal digits.
    """
    digest = hashlib.sha256(f"{sha256_of_onnx}+{alignment}".encode()).hexdigest()
    return f"{model}/{digest[:DIGITS]}"
