"""Tensors as the protocol's JSON tells of them: their elements in it, or behind it as bytes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from lathe.errors import InvalidInput
from lathe_server.open_inference.encoding import MAX_RANK, from_elements, from_raw


def read_inputs(told: Mapping[str, Any], content: bytes) -> dict[str, NDArray[Any]]:
    """The tensors of a request by name.

    Args:
        content: what follows the JSON.

    Raises:
        InvalidInput: they are not as they are said to be.
    """
    inputs: dict[str, NDArray[Any]] = {}
    place = 0
    for one in listed(told, "inputs"):
        name, datatype, shape = text_of(one, "name"), text_of(one, "datatype"), _shape(one)
        parameters = parameters_of(one)
        if name in inputs:
            raise InvalidInput("each input is named once")
        if "shared_memory_region" in parameters:
            raise InvalidInput("tensors come with their request; shared memory is not served")
        size = parameters.get("binary_data_size")
        if size is None:
            inputs[name] = from_elements(name, datatype, shape, _elements(one, name, datatype, parameters))
            continue
        if type(size) is not int or not 0 <= size <= len(content) - place:
            raise InvalidInput(f"the bytes of {name[:64]} go beyond the body")
        inputs[name] = from_raw(name, datatype, shape, content[place : place + size])
        place += size
    if place != len(content):
        raise InvalidInput("the body holds more bytes than its inputs say")
    return inputs


def _elements(one: Mapping[str, Any], name: str, datatype: str, parameters: Mapping[str, Any]) -> Sequence[Any]:
    data = _flat(one.get("data"), name)
    if datatype != "BYTES":
        return data
    if not {str}.issuperset(map(type, data)):
        raise InvalidInput(f"{name[:64]} holds elements that are no texts")
    try:
        if parameters.get("content_type") != "base64":
            return [text.encode() for text in data]
        return [base64.b64decode(text, validate=True) for text in data]
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"{name[:64]} holds elements that are neither base64 nor texts") from error


def _flat(data: object, name: str, depth: int = 0) -> list[Any]:
    if not isinstance(data, list) or depth > MAX_RANK:
        raise InvalidInput(f"the data of {name[:64]} is a list, nested by its shape or flat")
    if data and isinstance(data[0], list):
        return [element for part in data for element in _flat(part, name, depth + 1)]
    return data


def listed(told: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """
    Raises:
        InvalidInput: it is no list of objects.
    """
    value = told.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise InvalidInput(f"{key} is a list of objects")
    return value


def text_of(one: Mapping[str, Any], key: str) -> str:
    """
    Raises:
        InvalidInput: it is no text.
    """
    value = one.get(key)
    if not isinstance(value, str):
        raise InvalidInput(f"each input and output has a {key}, which is a text")
    return value


def _shape(one: Mapping[str, Any]) -> list[int]:
    value = one.get("shape")
    if not isinstance(value, list) or not {int}.issuperset(map(type, value)):
        raise InvalidInput("each input has a shape, which is a list of whole numbers")
    return value


def parameters_of(one: Mapping[str, Any]) -> Mapping[str, Any]:
    """
    Raises:
        InvalidInput: they are no object.
    """
    value = one.get("parameters", {})
    if not isinstance(value, dict):
        raise InvalidInput("parameters are an object")
    return value
