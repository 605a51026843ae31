"""A linear map given as a function and its transpose, both opaque to JAX: how native derivatives join
autodiff.

`jax.custom_derivatives.linear_call` would do but cannot be batched; `custom_vjp` alone would lose forward
mode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_linear_map_p = Primitive("facefit_linear_map")
_linear_map_p.multiple_results = True


def linear_map(
    forward: Callable, transpose: Callable, residuals: Sequence[jax.Array], operands: Sequence[jax.Array]
) -> list[jax.Array]:
    """`forward(residuals, operands)`, linear in the operands, with `transpose(residuals, cotangents)` for
    reverse mode.

    Both functions take two tuples and return a tuple; they must be batchable. To be used in the tangent rule
    of a `custom_jvp`, where it is differentiated no further: a second derivative raises NotImplementedError
    in JAX.
    """
    return _linear_map_p.bind(
        *residuals, *operands, forward=forward, transpose=transpose, residual_count=len(residuals)
    )


def _run(*arguments, forward, transpose, residual_count):
    return list(forward(arguments[:residual_count], arguments[residual_count:]))


def _abstract(*arguments, forward, transpose, residual_count):
    results = jax.eval_shape(
        lambda *values: _run(*values, forward=forward, transpose=transpose, residual_count=residual_count),
        *(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arguments),
    )
    return [jax.core.ShapedArray(result.shape, result.dtype) for result in results]


def _tangent(primals, tangents, *, forward, transpose, residual_count):
    if any(not isinstance(t, ad.Zero) for t in tangents[:residual_count]):
        raise ValueError("facefit_kernels: only first derivatives exist; this asks for a second one")
    parameters = {"forward": forward, "transpose": transpose, "residual_count": residual_count}
    operands = [ad.instantiate_zeros(t) for t in tangents[residual_count:]]
    return (
        _linear_map_p.bind(*primals, **parameters),
        _linear_map_p.bind(*primals[:residual_count], *operands, **parameters),
    )


def _transposed(cotangents, *arguments, forward, transpose, residual_count):
    residuals = arguments[:residual_count]
    results = _linear_map_p.bind(
        *residuals,
        *(ad.instantiate_zeros(c) for c in cotangents),
        forward=transpose,
        transpose=forward,
        residual_count=residual_count,
    )
    return [None] * residual_count + results


def _batched(arguments, axes, *, forward, transpose, residual_count):
    size = next(a.shape[axis] for a, axis in zip(arguments, axes, strict=True) if axis is not None)
    residuals = arguments[:residual_count]
    residual_axes = tuple(None if axis is None else axis for axis in axes[:residual_count])
    # Operands are batched whatever they were, so that the transpose gives back what it is asked for.
    operands = [
        jnp.broadcast_to(a, (size, *a.shape)) if axis is None else jnp.moveaxis(a, axis, 0)
        for a, axis in zip(arguments[residual_count:], axes[residual_count:], strict=True)
    ]

    def over(function):
        return jax.vmap(function, in_axes=(residual_axes, 0), out_axes=0, axis_size=size)

    results = _linear_map_p.bind(
        *residuals, *operands, forward=over(forward), transpose=over(transpose), residual_count=residual_count
    )
    return results, [0] * len(results)


_linear_map_p.def_impl(_run)
_linear_map_p.def_abstract_eval(_abstract)
ad.primitive_jvps[_linear_map_p] = _tangent
ad.primitive_transposes[_linear_map_p] = _transposed
batching.primitive_batchers[_linear_map_p] = _batched
mlir.register_lowering(_linear_map_p, mlir.lower_fun(_run, multiple_results=True))
