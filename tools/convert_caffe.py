"""Turn Caffe's bvlc_googlenet.caffemodel into the safetensors file that `load_backbone("googlenet_bvlc")` reads.

    python tools/convert_caffe.py bvlc_googlenet.caffemodel googlenet_bvlc.safetensors

Caffe itself is not needed. A .caffemodel is a protocol buffer, and of its many messages only three matter here:
NetParameter holds layers, a layer has a name and blobs, and a blob has a shape and numbers.
https://protobuf.dev/programming-guides/encoding describes the wire format.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

Field = tuple[int, int | memoryview]

# Field numbers in caffe.proto, as (layer, name, blobs): before and after Caffe's change of its layer format.
FORMATS = ((2, 4, 6), (100, 1, 7))
BLOB_DATA, BLOB_SHAPE, SHAPE_DIM, LEGACY_SHAPE = 5, 7, 1, (1, 2, 3, 4)


def varint(message: memoryview, position: int) -> tuple[int, int]:
    """An integer, seven bits a byte (all but the last byte have their highest bit set), and the position after it."""
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position


def fields(message: memoryview) -> Iterator[Field]:
    """The fields of a message: (number, integer) or (number, bytes)."""
    position = 0
    while position < len(message):
        key, position = varint(message, position)
        number, kind = divmod(key, 8)
        if kind == 0:
            value, position = varint(message, position)
            yield number, value
        else:
            length = {1: 8, 5: 4}.get(kind)
            if length is None:
                length, position = varint(message, position)
            yield number, message[position : position + length]
            position += length


def blob(message: memoryview) -> np.ndarray:
    """A blob as a float16 array, without the axes of length one that old files put in front."""
    shape: list[int] = []
    legacy: dict[int, int] = {}
    numbers: list[np.ndarray] = []
    for number, value in fields(message):
        if number == BLOB_DATA:
            numbers.append(np.frombuffer(value, "<f4"))
        elif number == BLOB_SHAPE:
            for dim, part in fields(value):
                if dim == SHAPE_DIM:
                    shape += [part] if isinstance(part, int) else unpacked(part)
        elif number in LEGACY_SHAPE:
            legacy[number] = value
    shape = shape or [legacy.get(number, 1) for number in LEGACY_SHAPE]
    return np.concatenate(numbers).reshape(shape).astype(np.float16)


def unpacked(packed: memoryview) -> list[int]:
    """The integers of a packed field, one after the other."""
    values, position = [], 0
    while position < len(packed):
        value, position = varint(packed, position)
        values.append(value)
    return values


def convert(model: bytes) -> dict[str, np.ndarray]:
    """The tensors of a .caffemodel as ``<layer>.weight`` and ``<layer>.bias``."""
    tensors: dict[str, np.ndarray] = {}
    for layer_field, name_field, blobs_field in FORMATS:
        layers = [value for number, value in fields(memoryview(model)) if number == layer_field]
        for layer in layers:
            if isinstance(layer, int):
                continue
            parts = list(fields(layer))
            name = next((bytes(value).decode() for number, value in parts if number == name_field), "")
            blobs = [blob(value) for number, value in parts if number == blobs_field]
            if len(blobs) == 2 and not name.startswith(("loss1/", "loss2/")):  # those two helped in training only
                weight, bias = blobs
                tensors[f"{name}.weight"] = weight.squeeze((0, 1)) if weight.shape[:2] == (1, 1) else weight
                tensors[f"{name}.bias"] = bias.ravel()
    if not tensors:
        raise ValueError("no layers with weights in this file: is it a .caffemodel?")
    return tensors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("caffemodel", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    tensors = convert(options.caffemodel.read_bytes())
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, options.output)
    print(f"{options.output}: {len(tensors)} tensors, {options.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
