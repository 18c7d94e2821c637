"""The Caffe converter, on files written here byte by byte in both of Caffe's layer formats."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

spec = importlib.util.spec_from_file_location(
    "convert_caffe", Path(__file__).resolve().parent.parent / "tools" / "convert_caffe.py"
)
convert_caffe = importlib.util.module_from_spec(spec)
spec.loader.exec_module(convert_caffe)


def varint(value: int) -> bytes:
    head = b""
    while value > 0x7F:
        head += bytes([value & 0x7F | 0x80])
        value >>= 7
    return head + bytes([value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def blob(array: np.ndarray, legacy: bool) -> bytes:
    if legacy:
        sides = (1,) * (4 - array.ndim) + array.shape
        shape = b"".join(field(number, side) for number, side in enumerate(sides, 1))
    else:
        shape = field(7, field(1, b"".join(varint(side) for side in array.shape)))
    return shape + field(5, array.astype("<f4").tobytes())


def layer(name: str, arrays: list[np.ndarray], legacy: bool) -> bytes:
    number, name_field, blobs_field = convert_caffe.FORMATS[0 if legacy else 1]
    body = field(name_field, name.encode()) + b"".join(field(blobs_field, blob(a, legacy)) for a in arrays)
    fixed = varint(90 << 3 | 5) + b"\0\0\x80\x3f"  # a field of fixed width, to be skipped
    return field(number, body + fixed)


@pytest.mark.parametrize("legacy", [True, False])
def test_reads_what_was_written(legacy: bool) -> None:
    random = np.random.default_rng(0)
    kernel, matrix = random.normal(size=(200, 3, 7, 7)), random.normal(size=(1000, 24))
    model = (
        field(1, b"GoogleNet")
        + layer("data", [], legacy)
        + layer("conv1/7x7_s2", [kernel, np.arange(200.0)], legacy)
        + layer("loss1/conv", [kernel, np.arange(200.0)], legacy)
        + layer("loss3/classifier", [matrix, np.arange(1000.0)], legacy)
    )
    tensors = convert_caffe.convert(model)
    assert list(tensors) == [
        "conv1/7x7_s2.weight",
        "conv1/7x7_s2.bias",
        "loss3/classifier.weight",
        "loss3/classifier.bias",
    ]
    np.testing.assert_allclose(tensors["conv1/7x7_s2.weight"], kernel, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(tensors["loss3/classifier.weight"], matrix, rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(tensors["loss3/classifier.bias"], np.arange(1000, dtype=np.float16))


def test_a_file_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="no layers with weights"):
        convert_caffe.convert(field(1, b"GoogleNet"))
