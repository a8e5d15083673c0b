"""What must hold of every exact engine, against Qiskit's own values."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from .engines import Function
from .reference import Reference


def point_of(found: Reference, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Return the rows of inputs, and the weights."""
    rows = torch.tensor(found.rows, dtype=dtype)
    return rows.requires_grad_(), torch.tensor(found.weights, dtype=dtype, requires_grad=True)


def check_values(function: Function, found: Reference) -> None:
    """Values are Statevector's, in float64."""
    x, w = point_of(found)
    np.testing.assert_allclose(function(x, w).detach(), found.values, rtol=0, atol=1e-8)


def check_derivatives(function: Function, found: Reference) -> None:
    """First derivatives with and without ``create_graph``, and second ones, are those of differences."""
    x, w = point_of(found)
    vx, vw = direction_of(found)
    u = torch.from_numpy(found.cotangent)
    plain = gradient(function(x, w)[0] @ u, x, w)
    assert_close("first derivative", along(plain, vx, vw), found.first, 1e-6 + 2 * found.first_error)
    assert not plain[0][1:].any(), "a row's values depend on the inputs of another"
    first = gradient(function(x, w)[0] @ u, x, w, create_graph=True)
    slope = along(first, vx, vw)
    assert_close("first derivative under create_graph", slope, found.first, 1e-6 + 2 * found.first_error)
    for a, b in zip(plain, first, strict=True):
        torch.testing.assert_close(a, b.detach(), atol=1e-9, rtol=1e-9, msg="create_graph changes the gradient")
    second = along(gradient(slope, x, w), vx, vw) if slope.requires_grad else torch.zeros(())
    assert_close("second derivative", second, found.second, 1e-5 + 2 * found.second_error)


def check_transforms(function: Function, found: Reference, names: Iterable[str]) -> None:
    """``torch.func`` and vectorised Jacobians give the values and derivatives of plain autograd; ``vmap``, and some."""
    x, w = (tensor.detach() for tensor in point_of(found))
    vx, vw = direction_of(found)
    u = torch.from_numpy(found.cotangent)

    def of_row(row: Tensor, weights: Tensor) -> Tensor:
        return function(row[None], weights)[0] @ u  # ()

    def of_point(both: Tensor) -> Tensor:
        return of_row(both[: x.shape[1]], both[x.shape[1] :])

    values = torch.func.vmap(of_row, (0, None))(x, w)
    assert_close("vmap", values.detach(), torch.from_numpy(found.values @ found.cotangent), 1e-8)
    point, direction = torch.cat([x[0], w]), torch.cat([vx[0], vw])  # (P,)
    if not len(point):  # torch's jacfwd of nothing raises for any function that takes an item, as [0] here
        return
    for name in names:
        slope = TRANSFORMS[name](of_point, point, direction).detach()
        if name == "hessian":
            assert_close(name, slope, found.second, 1e-5 + 2 * found.second_error)
        else:
            assert_close(name, slope, found.first, 1e-6 + 2 * found.first_error)


TRANSFORMS: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], Tensor]] = {  # of f at p, along v
    "func.grad": lambda f, p, v: torch.func.grad(f)(p) @ v,
    "vmap of func.grad": lambda f, p, v: torch.func.vmap(torch.func.grad(f))(p[None])[0] @ v,
    "jacrev": lambda f, p, v: torch.func.jacrev(f)(p) @ v,
    "jacfwd": lambda f, p, v: torch.func.jacfwd(f)(p) @ v,
    "functional.jacobian": lambda f, p, v: torch.autograd.functional.jacobian(f, p, vectorize=True) @ v,
    "jvp": lambda f, p, v: torch.func.jvp(f, (p,), (v,))[1],
    "hessian": lambda f, p, v: torch.func.hessian(lambda t: f(p + t * v))(p.new_zeros(())),
}


def check_single_precision(function: Function, found: Reference) -> None:
    """A float32 layer has the same values, and the same gradients with and without ``create_graph``."""
    x, w = point_of(found, torch.float32)
    vx, vw = direction_of(found, torch.float32)
    values = function(x, w)
    assert values.dtype == torch.float32
    np.testing.assert_allclose(values.detach(), found.values, rtol=0, atol=2e-5)
    u = torch.from_numpy(found.cotangent).float()
    tolerance = 1e-4 + 1e-4 * abs(found.first) + 2 * found.first_error
    for create_graph in (False, True):
        grads = gradient(function(x, w)[0] @ u, x, w, create_graph=create_graph)
        assert_close(f"float32, {create_graph=}", along(grads, vx, vw).detach(), found.first, tolerance)


def direction_of(found: Reference, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Return the direction over the first row of inputs, and over the weights."""
    count = found.rows.shape[1]
    vx = torch.zeros(found.rows.shape, dtype=dtype)
    vx[0] = torch.from_numpy(found.direction[:count])
    return vx, torch.from_numpy(found.direction[count:]).to(dtype)


def gradient(value: Tensor, x: Tensor, w: Tensor, create_graph: bool = False) -> list[Tensor]:
    """Return the gradient, zeros where there is none."""
    if not value.requires_grad:
        return [torch.zeros_like(x), torch.zeros_like(w)]
    return list(torch.autograd.grad(value, (x, w), create_graph=create_graph, materialize_grads=True))


def along(grads: list[Tensor], vx: Tensor, vw: Tensor) -> Tensor:
    """Return a directional derivative."""
    return (grads[0] * vx).sum() + (grads[1] * vw).sum()


def assert_close(what: str, value: Tensor, expected: float | Tensor, tolerance: float) -> None:
    """Raise an error that names what is wrong."""
    error = float((value.detach() - torch.as_tensor(expected)).abs().max())
    assert error <= tolerance, f"{what}: {value.tolist()} for {torch.as_tensor(expected).tolist()}, off by {error:.2g}"
