"""oneDNN's objects through our binding: layouts, memories, lifetimes, the shared scratchpad, records of calls."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from compute.bfloat16 import from_bfloat16, to_bfloat16
from compute.engines import dnnl
from tests.compute.dnnl_runner import check, double, fetch, load, random_array


def convolution(api: dnnl.Api, size: int = 8, channels: int = 16) -> dnnl.Operation:
    shape = api.any((2, channels, size, size))
    return dnnl.convolution(api, shape, api.any((channels, channels, 3, 3)), None, shape, (1, 1), (1, 1))


def weights_gradient(api: dnnl.Api, size: int) -> dnnl.Operation:
    """An operation with a scratchpad that grows with `size`."""
    shape, weights = api.any((1, size, 6, 6), dnnl.BF16), api.any((size, size, 3, 3), dnnl.BF16)
    forward = dnnl.convolution(api, shape, weights, None, shape, (1, 1), (1, 1))
    return dnnl.convolution_backward_weights(forward, shape, weights, None, shape)


def bind(operation: dnnl.Operation, *arguments: int) -> tuple[dnnl.Call, dict[int, dnnl.Memory]]:
    memories = {argument: operation.api.memory(operation.layout(argument)) for argument in arguments}
    return operation.bind(memories), memories


def test_descriptors_tell_their_layout() -> None:
    api = dnnl.Api()
    plain = api.tagged((2, 20, 3, 4), "acdb", dnnl.BF16)
    assert (plain.dims, plain.strides, plain.dtype) == ((2, 20, 3, 4), (240, 1, 80, 20), dnnl.BF16)
    assert plain.is_plain
    assert plain.size_bytes == plain.extent_bytes == 2 * 480
    assert plain == api.strided((2, 20, 3, 4), (240, 1, 80, 20), dnnl.BF16)
    assert plain != api.strided((2, 20, 3, 4), (240, 1, 80, 20))
    blocked = api.tagged((2, 20, 3, 4), "aBcd16b")
    assert (blocked.dims, blocked.padded_dims, blocked.is_plain) == ((2, 20, 3, 4), (2, 32, 3, 4), False)
    assert blocked.size_bytes == 4 * 2 * 32 * 12
    assert repr(plain) == "Descriptor(BF16 (2, 20, 3, 4), strides (240, 1, 80, 20))"
    assert repr(blocked) == "Descriptor(F32 (2, 20, 3, 4), blocked, 3072 bytes)"
    for tag in ("abc", "abcc", "aBcd3b"):
        with pytest.raises(ValueError, match=f"{tag} is no layout of 4 dimensions"):
            api.tagged((2, 20, 3, 4), tag)
    for tag in dnnl.BLOCKED_TAGS:
        dims = (32,) * len(tag[: tag.index(next(filter(str.isdigit, tag)))])
        descriptor = api.tagged(dims, tag)
        assert descriptor.size_bytes == 4 * 32 ** len(dims)
        assert not descriptor.is_plain


@given(
    arrays.arrays(np.float32, st.tuples(*[st.integers(1, 20)] * 4), elements=st.floats(-10, 10, width=32)),
    st.permutations("abcd"),
    st.sampled_from(["abcd", "aBcd16b", "aBcd8b"]),
)
@settings(deadline=None, max_examples=50)
def test_any_layout_and_back(x: np.ndarray, order: list[str], blocked: str) -> None:
    api = dnnl.Api()
    tag = "".join(order)
    memory = load(api, api.tagged(x.shape, tag), x)
    np.testing.assert_array_equal(memory.view(), x)
    axes = [ord(letter) - ord("a") for letter in tag]
    np.testing.assert_array_equal(memory.array, x.transpose(axes).ravel())
    second = api.memory(api.tagged(x.shape, blocked))
    assert dnnl.copy(api, memory, second)() == 0
    np.testing.assert_array_equal(fetch(second), x)


def test_parts_and_reshapes() -> None:
    rng = np.random.default_rng(1)
    x = random_array(rng, 4, 6)
    api = dnnl.Api()
    whole = api.strided(x.shape)
    part = whole.part((2, 3), (1, 2))
    assert (part.dims, part.offset, part.strides) == ((2, 3), 8, (6, 1))
    np.testing.assert_array_equal(api.memory(part, x).view(), x[1:3, 2:5])
    np.testing.assert_array_equal(fetch(api.memory(part, x)), x[1:3, 2:5])
    np.testing.assert_array_equal(api.memory(whole.reshape((2, 12)), x).view(), x.reshape(2, 12))
    with pytest.raises(dnnl.DnnlError):
        whole.reshape((5, 5))


def test_memories_check_their_array() -> None:
    api = dnnl.Api()
    with pytest.raises(ValueError, match="an array of 16 bytes cannot hold Descriptor"):
        api.memory(api.strided((5,)), np.zeros(4, dtype=np.float32))
    # Strides that skip: only what lies between the first element and the last is needed.
    column = api.memory(api.strided((3,), (2,)), np.arange(5, dtype=np.float32))
    np.testing.assert_array_equal(column.view(), [0, 2, 4])
    with pytest.raises(ValueError, match="has no numpy view; reorder it first"):
        api.memory(api.tagged((1, 16, 2, 2), "aBcd16b")).view()
    assert api.memory(api.strided((3,), dtype=dnnl.BF16)).view().dtype == np.uint16


def test_an_argument_that_is_not_there() -> None:
    with pytest.raises(dnnl.DnnlError, match="convolution_forward has no argument 41"):
        convolution(dnnl.Api()).layout(dnnl.BIAS)


def test_records_of_calls() -> None:
    operation = convolution(dnnl.Api())
    call, memories = bind(operation, dnnl.SRC, dnnl.WEIGHTS, dnnl.DST)
    assert call.record == dnnl.Record(
        "convolution_forward",
        operation.implementation,
        2.0 * 2 * 8 * 8 * 16 * 16 * 9,
        sum(memory.descriptor.size_bytes for memory in memories.values()),
    )
    assert operation.memory_bytes >= 0


def test_one_scratchpad_serves_all_calls() -> None:
    scratchpad = dnnl.Scratchpad()
    api = dnnl.Api(scratchpad)
    rng = np.random.default_rng(2)
    sizes, calls, expected = [16, 64, 32], [], []
    for size in sizes:
        operation = weights_gradient(api, size)
        needed = operation.scratchpad
        assert needed is not None
        x, g = (random_array(rng, 1, size, 6, 6, dtype=dnnl.BF16) for _ in range(2))
        memories = {
            dnnl.SRC: load(api, operation.layout(dnnl.SRC), x),
            dnnl.DIFF_DST: load(api, operation.layout(dnnl.DIFF_DST), g),
            dnnl.DIFF_WEIGHTS: api.memory(operation.layout(dnnl.DIFF_WEIGHTS)),
        }
        # Bound before the buffer has grown to its last size: the call must follow it.
        calls.append((operation.bind(memories), memories[dnnl.DIFF_WEIGHTS]))
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(double(x)[0].detach().numpy(), ((0, 0), (1, 1), (1, 1))), (6, 6), (1, 2)
        )
        expected.append(np.einsum("cyxhw,khw->kcyx", windows, double(g)[0].detach().numpy()))
        assert scratchpad.size_bytes >= needed.size_bytes
    largest = scratchpad.size_bytes
    gc.collect()
    for (call, gradient), wanted in zip(calls, expected, strict=True):
        assert call() == 0
        check(fetch(gradient), wanted, dnnl.BF16)
    # An Api that is gone is forgotten, and does no harm when the buffer moves.
    del api, operation, memories, calls, call, gradient, needed
    gc.collect()
    other = dnnl.Api(scratchpad)
    call, _ = bind(weights_gradient(other, 128), dnnl.SRC, dnnl.DIFF_DST, dnnl.DIFF_WEIGHTS)
    assert scratchpad.size_bytes > largest
    assert call() == 0


def test_calls_keep_alive_what_they_need() -> None:
    api = dnnl.Api()
    call, memories = bind(convolution(api), dnnl.SRC, dnnl.WEIGHTS, dnnl.DST)
    buffer = weakref.ref(memories[dnnl.DST].array)
    alive = weakref.ref(api)
    del api, memories
    gc.collect()
    assert alive() is not None
    assert buffer() is not None
    assert call() == 0
    del call
    gc.collect()
    assert alive() is None
    assert buffer() is None


def test_everything_is_freed_with_the_api() -> None:
    """Each handle is destroyed once, primitives before the engine they were made with."""
    destroyed: list[str] = []
    api = dnnl.Api()
    call, _ = bind(convolution(api), dnnl.SRC, dnnl.WEIGHTS, dnnl.DST)
    count = len(api._handles)
    for index, (destroy, handle) in enumerate(api._handles):

        def observed(handle: object, destroy: object = destroy) -> None:
            destroyed.append(destroy.__name__)
            destroy(handle)

        api._handles[index] = (observed, handle)
    del api, call, _
    gc.collect()
    assert len(destroyed) == count
    assert destroyed[-1] == "dnnl_engine_destroy"
    assert destroyed.index("dnnl_primitive_destroy") < destroyed.index("dnnl_primitive_desc_destroy")


@given(arrays.arrays(np.uint32, 64))
def test_bfloat16_rounds_as_the_library_does(bits: np.ndarray) -> None:
    x = bits.view(np.float32)
    nan = np.isnan(x)
    ours = to_bfloat16(x)
    assert np.isnan(from_bfloat16(ours))[nan].all()
    api = dnnl.Api()
    theirs = load(api, api.strided((64,), dtype=dnnl.BF16), x).view()
    # Its kernels may take denormal numbers for zero.
    normal = ~nan & ((np.abs(x) >= np.finfo(np.float32).tiny) | (x == 0))
    np.testing.assert_array_equal(ours[normal], theirs[normal])
