"""Binary batches from grey data: the same draw for a row whatever the batch, with the right probability."""

import tracemalloc

import numpy as np
import pytest
from data_files import message_of

from scratchvae import compiled, reference
from scratchvae.data import METHODS, binarize, check_method
from scratchvae.data.binarize import mean_shown
from scratchvae.data.mapped import BLOCK
from scratchvae.reference.random import Stream

BYTES = np.random.default_rng(0).integers(0, 256, (60, 50)).astype(np.uint8)
FLOATS = BYTES.astype(np.float32) / np.float32(255)
ROWS = np.arange(60)


def draw(data, rows=ROWS, method="dynamic", seed=0, stream=Stream.BINARIZE, step=1, dtype=np.float32):
    return binarize(reference, data, rows, method, seed, stream, step, dtype)


@pytest.mark.parametrize("data", [BYTES, FLOATS], ids=["uint8", "float"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_batch_has_the_type_asked_for_and_values_in_the_unit_interval(data, method, dtype):
    batch = draw(data, ROWS[5:9], method, dtype=dtype)
    assert batch.dtype == dtype
    assert batch.shape == (4, 50)
    assert batch.min() >= 0
    assert batch.max() <= 1
    assert method == "none" or set(np.unique(batch)) == {0, 1}


@pytest.mark.parametrize("data", [BYTES, FLOATS], ids=["uint8", "float"])
@pytest.mark.parametrize("method", METHODS)
def test_a_row_does_not_depend_on_its_batch(data, method):
    whole = draw(data, method=method)
    order = np.array([7, 3, 59, 3])
    np.testing.assert_array_equal(draw(data, order, method), whole[order])


@pytest.mark.parametrize("data", [BYTES, FLOATS], ids=["uint8", "float"])
def test_dynamic_is_drawn_afresh_and_fixed_is_not(data):
    def differs(method, **changed):
        return not np.array_equal(draw(data, method=method), draw(data, method=method, **changed))

    later, elsewhere, other_seed = {"step": 2}, {"stream": Stream.VALIDATION_BINARIZE}, {"seed": 1}
    assert all(differs("dynamic", **changed) for changed in (later, elsewhere, other_seed))
    assert not any(differs("fixed", **changed) for changed in (later, elsewhere))
    assert differs("fixed", **other_seed)


def test_pixels_drawn_once_share_no_draw_with_those_drawn_afresh():
    fixed = draw(BYTES, method="fixed")
    for stream in set(Stream) - {Stream.FIXED_BINARIZE}:
        assert not np.array_equal(draw(BYTES, stream=stream, step=0), fixed)


@pytest.mark.parametrize("data", [BYTES, FLOATS], ids=["uint8", "float"])
def test_a_pixel_is_one_as_often_as_its_value_says(data):
    draws = np.mean([draw(data, step=step) for step in range(1, 201)], axis=0)
    p = BYTES / 255
    spread = np.sqrt(p * (1 - p) / 200)
    assert np.all(draws[p == 0] == 0)
    assert np.all(draws[p == 1] == 1)
    grey = spread > 0
    assert np.all(np.abs(draws - p)[grey] < 5 * spread[grey] + 0.01)
    standard = ((draws - p)[grey] / spread[grey]).mean()
    assert abs(standard) < 5 / np.sqrt(grey.sum())
    # the control: draws of the next pixels' values are noticed
    assert np.abs(draws - np.roll(p, 1, axis=1)).max() > 0.5


def test_threshold_is_at_the_half_and_includes_it():
    np.testing.assert_array_equal(draw(np.array([[0, 127, 128, 255]], np.uint8), [0], "threshold"), [[0, 0, 1, 1]])
    floats = np.array([[0.0, 0.4999, 0.5, 1.0]])
    np.testing.assert_array_equal(draw(floats, [0], "threshold"), [[0, 0, 1, 1]])


def test_the_mean_of_what_is_shown_of_thresholded_pixels_is_over_all_rows():
    x = np.zeros((5, BLOCK // 2), np.uint8)
    x[[0, 1, 4]] = 200
    np.testing.assert_array_equal(mean_shown(x, "threshold"), 3 / 5)


def test_none_passes_the_values_on():
    np.testing.assert_array_equal(draw(FLOATS, method="none"), FLOATS)
    np.testing.assert_allclose(draw(BYTES, method="none"), FLOATS, rtol=1e-6)


def test_an_unknown_method_is_refused():
    message_of(lambda: draw(BYTES, method="otsu"), "'otsu'", "expected one of none, dynamic, fixed, threshold")


def test_grey_values_are_not_left_to_a_bernoulli_unasked():
    message_of(
        lambda: check_method("none", BYTES),
        "'none'",
        "expected binarize dynamic, fixed or threshold, or likelihood continuous-bernoulli (allow_grey",
    )
    check_method("none", BYTES, allow_grey=True)
    check_method("dynamic", BYTES)
    check_method("none", (BYTES > 100) * np.uint8(255))


@pytest.mark.parametrize("method", METHODS)
def test_of_data_in_any_layout_the_batch_alone_is_copied(method):
    """And its values are those of the copy's."""
    x = np.asfortranarray(np.random.default_rng(0).integers(0, 256, (20_000, 50), np.uint8))
    rows = np.array([19_999, 3])
    results = [binarize(compiled, data, rows, method, 0, Stream.BINARIZE, 1) for data in (x, x.copy("C"))]
    np.testing.assert_array_equal(*results)
    tracemalloc.start()
    binarize(compiled, x, rows, method, 0, Stream.BINARIZE, 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < x.nbytes / 10
