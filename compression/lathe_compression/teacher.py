"""The network that variants come from: a user's factory or an ONNX file."""

from __future__ import annotations

import importlib
from pathlib import Path

from torch import nn

from lathe.errors import BadVariant, InvalidInput, NotFound
from lathe_compression.onnx_import import import_onnx


def load_teacher(name: str, base: Path) -> nn.Module:
    """Builds the teacher, eval'd.

    Args:
        name: `package.module:factory`, called without arguments, or a path to an ONNX file.
        base: folder that the path is relative to.

    Raises:
        NotFound: no such file, module or factory.
        InvalidInput: neither of the two forms, or what it names makes no network.
        BadVariant: an ONNX file that cannot be imported, or a pickled model.
    """
    if name.endswith(".onnx"):
        return import_onnx(base / name)
    if name.endswith((".pt", ".pth", ".pkl", ".ckpt")):
        raise BadVariant(
            "pickled models are never loaded, because loading one runs its code; "
            "name a `package.module:factory` that builds the network and loads its weights"
        )
    module_name, _, factory_name = name.partition(":")
    if not factory_name or not all(part.isidentifier() for part in module_name.split(".")):
        raise InvalidInput(f'the teacher "{name}" is neither `package.module:factory` nor an .onnx file')
    try:
        factory = getattr(importlib.import_module(module_name), factory_name)
    except (ImportError, AttributeError) as error:
        raise NotFound(f"there is no {factory_name} in {module_name}: {error}") from error
    if not callable(factory):
        raise InvalidInput(f"{name} is not a factory: it cannot be called")
    network = factory()
    if not isinstance(network, nn.Module):
        raise InvalidInput(f"{name} returned {type(network).__name__}, not a torch.nn.Module")
    return network.eval()
