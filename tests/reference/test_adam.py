"""Adam: its first steps are known in closed form, and torch's are the same."""

import inspect

import numpy as np
import pytest


def run(ops, gradients, rate=0.01, dtype=np.float64, **settings):
    parameters = np.zeros(gradients.shape[1], dtype)
    first, second = np.zeros_like(parameters), np.zeros_like(parameters)
    path = []
    for step, gradient in enumerate(gradients, start=1):
        ops.adam_update(parameters, gradient.astype(dtype), first, second, step, rate, **settings)
        path.append(parameters.copy())
    return np.array(path)


def test_the_first_step_has_the_length_of_the_learning_rate_whatever_the_gradient(ops):
    path = run(ops, np.array([[1e-3, -1e3, 5.0]]))
    np.testing.assert_allclose(path, [[-0.01, 0.01, -0.01]], rtol=1e-4)


def test_a_constant_gradient_keeps_that_length_at_every_step(ops):
    path = run(ops, np.full((30, 2), 3.0))
    np.testing.assert_allclose(np.diff(path, axis=0), -0.01, rtol=1e-6)


def test_twenty_steps_are_torchs(ops):
    torch = pytest.importorskip("torch", reason="torch, of the extra bench, is not installed")
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(20, 33)) * np.exp(rng.normal(size=33) * 4)
    place = torch.zeros(33, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([place], lr=0.01, betas=(0.8, 0.95), eps=1e-6)
    want = []
    for gradient in gradients:
        place.grad = torch.tensor(gradient)
        optimizer.step()
        want.append(place.detach().numpy().copy())
    got = run(ops, gradients, beta1=0.8, beta2=0.95, epsilon=1e-6)
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-13)


def test_it_works_in_place_and_keeps_float32(ops):
    parameters, gradient = np.ones(5, np.float32), np.ones(5, np.float32)
    first, second = np.zeros(5, np.float32), np.zeros(5, np.float32)
    assert ops.adam_update(parameters, gradient, first, second, 1, 0.5) is None
    np.testing.assert_allclose(parameters, 0.5, rtol=1e-6)
    np.testing.assert_allclose(first, 0.1, rtol=1e-6)
    np.testing.assert_allclose(second, 0.001, rtol=1e-6)
    np.testing.assert_array_equal(gradient, 1)


def test_a_gradient_of_zero_moves_nothing(ops):
    np.testing.assert_array_equal(run(ops, np.zeros((3, 4))), np.zeros((3, 4)))


@pytest.mark.parametrize("name", ["adam_update", "network_adam"])
def test_what_is_not_said_is_as_in_the_paper(ops, name):
    settings = inspect.signature(getattr(ops, name)).parameters
    assert [settings[setting].default for setting in ("beta1", "beta2", "epsilon")] == [0.9, 0.999, 1e-8]
