"""Traces and products of the Fisher matrix and the Hessian, for any ``outputs_fn``.

Pure mathematics over callables and pytrees; knows jax and nothing that trains.
"""

from fisher_jax.curvature.diagonal import (
    fisher_diagonal,
    hessian_diagonal,
    layer_hessian_traces,
)
from fisher_jax.curvature.estimates import Estimate, over_batches
from fisher_jax.curvature.fisher import (
    fisher_trace,
    fisher_vector_product,
    layer_fisher_traces,
    minibatch_fisher_trace,
    squared_gradient_norms,
)
from fisher_jax.curvature.hessian import (
    Eigenvalue,
    hessian_trace,
    hessian_xtrace,
    hvp,
    largest_eigenvalue,
    largest_fisher_eigenvalue,
)
from fisher_jax.curvature.likelihoods import (
    Bernoulli,
    Categorical,
    Gaussian,
    sample_labels,
)
from fisher_jax.curvature.spectrum import (
    Eigenpairs,
    SpectralDensity,
    eigenpairs,
    fisher_operator,
    hessian_operator,
    spectral_density,
)
from fisher_jax.curvature.traces import Traces, fisher_and_hessian_trace

__all__ = [
    "Bernoulli",
    "Categorical",
    "Eigenpairs",
    "Eigenvalue",
    "Estimate",
    "Gaussian",
    "SpectralDensity",
    "Traces",
    "eigenpairs",
    "fisher_and_hessian_trace",
    "fisher_diagonal",
    "fisher_operator",
    "fisher_trace",
    "fisher_vector_product",
    "hessian_diagonal",
    "hessian_operator",
    "hessian_trace",
    "hessian_xtrace",
    "hvp",
    "largest_eigenvalue",
    "largest_fisher_eigenvalue",
    "layer_fisher_traces",
    "layer_hessian_traces",
    "minibatch_fisher_trace",
    "over_batches",
    "sample_labels",
    "spectral_density",
    "squared_gradient_norms",
]
