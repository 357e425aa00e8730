r"""Estimators of Fisher information as pure functions of arrays: one formula, one reference each.

Noise model: at a fixed angle the faces (or trials) draw the response r of N units from a distribution with
mean mu and covariance Sigma. Linear Fisher information is mu'^T Sigma^-1 mu': what a locally optimal linear
decoder can use, and never more than the full information. Every function takes torch tensors ``(..., face,
unit)`` with any leading dimensions and returns an `Estimate` with those dimensions, in rad^-2. Sums and
solves are in float64. Numbers of equations are those of the book's page on derivations, where each is derived, and
simulated by the tests.

Faces of one person are not independent draws. `groups` (one label per face) says which belong together; None
says that all are independent.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from .covariance import Inverse, People, centred, cholesky, components, dot, enough, inverse_bias, people, whiten


class Estimate(NamedTuple):
    """What every estimator returns; the tensors have the leading dimensions of the responses.

    Attributes
    ----------
    information : Tensor
        The corrected estimate in rad^-2. It may be negative: cutting it at zero would bias every mean.
    standard_error : Tensor
        Its standard error in rad^-2.
    degrees_of_freedom : Tensor
        Of the t distribution that makes an interval: people - 1.
    plugin : Tensor
        The uncorrected value, which is always positive, for logarithms of one fixed set of faces.
    effective_faces : Tensor
        nu, the degrees of freedom of the sample covariance: faces - 1 if these are independent. Equation (7).
    influence : Tensor, shape (..., person)
        What each person adds to the estimate to first order; the sum of squares is the variance.
    extra : mapping of str to Tensor
        Further variables of a single estimator.
    """

    information: Tensor
    standard_error: Tensor
    degrees_of_freedom: Tensor
    plugin: Tensor
    effective_faces: Tensor
    influence: Tensor
    extra: Mapping[str, Tensor] = MappingProxyType({})


def tangent(responses: Tensor, tangents: Tensor, groups: ArrayLike | None = None) -> Estimate:
    r"""Linear Fisher information from responses and their derivatives with respect to the angle.

    .. math:: \hat I = k\,[\bar d^T S^{-1} \bar d - tr(S^{-1} V)]

    Parameters
    ----------
    responses, tangents : Tensor, shape (..., face, unit)
        r_j and d_j = dr_j / dtheta (per rad) of the same faces in one pass.
    groups : array_like, shape (face,), optional
        The person of each face.

    Notes
    -----
    Equation (12). S is the sample covariance of r, k corrects its inverse (equation (9)), and V is the
    covariance of the mean derivative, summed by person, so that it holds for any correlation within a person
    (equation (11)). The standard error is the larger of two. One is the delta method's, from the influence of
    each person on the estimate, right for any tails to first order (equations (15) and (17)). The other is the
    variance for normal responses, 2 I^2 / (nu - N - 3) + 4 k^2 w'Vw - 2 k^2 tr((S^-1 V)^2) with w = S^-1 d, right
    at any N / T; the last term, which would be added if w were exact, is what the noise of w already adds twice
    (equations (18) and (19)).
    Limits: if responses and derivatives are correlated, d - E d = B (r - mu) + noise, a bias of
    (tr(B^2) + tr(B)^2) / (n T) remains (equation (13)).

    References
    ----------
    Kanitscheider, Coen-Cagli, Kohn and Pouget (2015), PLoS Comput Biol 11(6): e1004218, for independent
    normal trials and two stimuli.

    Examples
    --------
    >>> import torch
    >>> from fisherbook.fisher import kernels
    >>> responses = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
    >>> found = kernels.tangent(responses, torch.ones_like(responses))  # each unit adds 1
    >>> abs(float(found.information) - 3) < 3 * float(found.standard_error)
    True
    """
    who = people(groups, responses)
    white = _whitened(responses, tangents, who, sums=True)
    psi = 2 * dot(white.slopes, white.u)
    return _linear(u=white.u, z=white.slopes, psi=psi, inverse=white.inverse, c=white.inverse.k, who=who)


class _Whitened(NamedTuple):
    """Responses and derivatives in coordinates in which the sample covariance S = L L^T is the identity."""

    responses: Tensor  # rows L^-1 x of the centred responses
    slopes: Tensor  # likewise of the derivatives, or of their sums by person
    u: Tensor  # L^-1 of the mean derivative
    inverse: Inverse


def _whitened(responses: Tensor, tangents: Tensor, who: People, *, sums: bool) -> _Whitened:
    """Whiten responses and derivatives, these summed by person if `sums`, and compare S^-1 to the true inverse."""
    _same_shape("tangents", tangents, responses)
    x, mean = centred(responses)
    e, slope = centred(tangents)
    factor = cholesky(x, mean, x.shape[-2] - 1)
    x, u = whiten(factor, x), whiten(factor, slope.unsqueeze(-2)).squeeze(-2)
    inverse = inverse_bias(components(x, who), u, who)
    enough(inverse.nu, x.shape[-1])
    return _Whitened(x, whiten(factor, who.sums(e) if sums else e), u, inverse)


def _linear(
    *, u: Tensor, z: Tensor, psi: Tensor, inverse: Inverse, c: Tensor, who: People, extra: Tensor | float = 0.0
) -> Estimate:
    """Return k u'u - c tr(V) with its errors: the common end of all estimators of linear information.

    Parameters
    ----------
    u : Tensor, shape (..., unit)
        L^-1 of the mean derivative or difference.
    z : Tensor, shape (..., person or row, unit)
        L^-1 of what its noise is made of, by person: V = P / (P - 1) z'z / T^2, equation (11).
    psi : Tensor, shape (..., person)
        What each person adds to the form through the mean, equation (14); its part through S is in `inverse`.
    inverse : Inverse
    c : Tensor
        Factor of the noise: k where S does not hold it too, equation (12), else k / q, equation (25).
    who : People
    extra : Tensor or float
        Second-order variance beyond 2 k^2 tr(V^2). First-order variances that are taken at the estimate contain the
        second-order one twice, equation (19).
    """
    k, number, plugin = inverse.k, len(who.counts), (u * u).sum(-1)
    scale = math.sqrt(number / (number - 1))
    z = z * (scale / len(who.codes))
    gram = z @ z.mT if z.shape[-2] < z.shape[-1] else z.mT @ z
    information = k * plugin - c * (z * z).sum((-2, -1))
    second = 2 * k**2 * (gram * gram).sum((-2, -1))
    effect = scale * (k.unsqueeze(-1) * psi / len(who.codes) + inverse.influence)
    by_people = (effect**2).sum(-1) - second - extra
    normal = 4 * k**2 * (dot(z, u) ** 2).sum(-1) - second
    normal = normal.maximum(second) + 2 * information**2 / inverse.spread.clamp(min=1e-3) + extra
    error = by_people.maximum(normal).sqrt()
    return Estimate(information, error, torch.full_like(plugin, number - 1), plugin, inverse.nu, effect)


def plugin_information(responses: Tensor, tangents: Tensor) -> Tensor:
    """Return the uncorrected d' S^-1 d of a fixed set of faces, in rad^-2: biased, always positive.

    Parameters
    ----------
    responses, tangents : Tensor, shape (..., face, unit)
    """
    _same_shape("tangents", tangents, responses)
    x, mean = centred(responses)
    slope = centred(tangents)[1].unsqueeze(-2)
    return (whiten(cholesky(x, mean, x.shape[-2] - 1), slope) ** 2).sum((-2, -1))


def gaussian(responses: Tensor, tangents: Tensor, groups: ArrayLike | None = None) -> Estimate:
    r"""All Fisher information of a normal distribution whose mean and covariance depend on the angle.

    .. math:: \hat I = \hat I_{tangent} + J,   J = \frac12 tr(\Sigma^{-1}\Sigma'\Sigma^{-1}\Sigma')

    Parameters
    ----------
    responses, tangents : Tensor, shape (..., face, unit)
    groups : array_like, shape (face,), optional

    Notes
    -----
    With C = Cov(r, d), Sigma' = C + C^T. Regressing the derivatives on the responses, B = C^T S^-1 with
    residual covariance R, gives J = tr(B^2) + tr(Sigma^-1 B Sigma B^T), equation (20). The noise of B adds t / n
    to the first and N t / n to the second term, t = tr(S^-1 R), equation (21); with clusters these are sums over
    people of the regression's scores. What remains is the expectation of tr(S^-1 B S B^T) for a Wishart S, which
    mixes in tr(B^2) and tr(B)^2 at 1 / nu, equation (22).

    The standard error adds to the tangent's the influence of each person on J and the second-order variance
    2 ((N + 2) tr((S^-1 R)^2) + t^2) / n^2, which alone is left where Sigma' = 0, equation (23). Not a bound for
    responses that are not normal. Uncorrected it is off by about tr(Sigma^-1 D)(N + 1) / T.

    References
    ----------
    Kay (1993), Fundamentals of Statistical Signal Processing: Estimation Theory, section 3.9, for the
    information (the Slepian-Bangs formula). The corrections are derived above.
    """
    who = people(groups, responses)
    white = _whitened(responses, tangents, who, sums=False)
    x, e, nu = white.responses, white.slopes, white.inverse.nu
    n, units = x.shape[-2] - 1, x.shape[-1]
    b = e.mT @ x / n
    residual = e - x @ b.mT
    r = residual.mT @ residual / (n - units)
    t = _trace(r)
    noise = (t / n, t / n, units * t / n) if groups is None else _regression_noise(x, residual, who)
    square = (b * b.mT).sum((-2, -1)) - noise[0]
    trace = _trace(b) ** 2 - noise[1]
    frobenius = (b * b).sum((-2, -1)) - noise[2]
    bending = square + ((nu - units - 1) * frobenius + square + trace) / nu
    second = 2 * ((units + 2) * (r * r).sum((-2, -1)) + t**2) / (n * nu)
    turn = x @ (b + b.mT)
    psi = 2 * dot(e, white.u) + ((2 * e - turn) * turn).sum(-1)
    psi = who.sums(psi.unsqueeze(-1)).squeeze(-1)
    inverse = white.inverse
    linear = _linear(u=white.u, z=who.sums(e), psi=psi, inverse=inverse, c=inverse.k, who=who, extra=second)
    return linear._replace(
        information=linear.information + bending,
        plugin=linear.plugin + ((b + b.mT) ** 2).sum((-2, -1)) / 2,
    )


def _regression_noise(x: Tensor, residual: Tensor, who: People) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the noise of B adds to tr(B^2), tr(B)^2 and |B|^2, from scores summed by person: equation (21)."""
    n, units = x.shape[-2] - 1, x.shape[-1]
    same = (who.codes[:, None] == who.codes).to(x) / (n * (n - units))
    cross = x @ residual.mT
    own = cross.diagonal(dim1=-2, dim2=-1)
    return (
        (same * cross * cross.mT).sum((-2, -1)),
        (same * own.unsqueeze(-1) * own.unsqueeze(-2)).sum((-2, -1)),
        (same * (x @ x.mT) * (residual @ residual.mT)).sum((-2, -1)),
    )


def direct(pair: Tensor, delta: float, groups: ArrayLike | None = None, design: str = "paired") -> Estimate:
    r"""Linear Fisher information from responses to two stimuli, at theta - delta / 2 and theta + delta / 2.

    .. math:: \hat I = [k\,\Delta\mu^T S^{-1} \Delta\mu - c\, tr(S^{-1} V)] / \delta^2

    Parameters
    ----------
    pair : Tensor, shape (..., side, face, unit)
        Responses; side 0 is theta - delta / 2.
    delta : float
        The step in rad.
    groups : array_like, shape (face,), optional
    design : {"paired", "independent"}
        Whether face j is the same on both sides. Pairing makes the spread of the estimate several times
        smaller.

    Notes
    -----
    Equation (25). S averages the covariances of the two sides, V is that of the mean difference. For pairs the
    components of S are half sums and half differences of the sides, equation (24). V is made of the differences,
    which are in S too: c = k / q, q being the share of their leave-one-out trace that the plain trace retains,
    equation (8). If the sides are correlated by rho and normal, that is nu = 2 n / (1 + rho^2), k = (nu - N - 1) /
    nu and c = 1 - (N + 1) rho (1 + rho) / (2 n) to first order. For independent trials it is the published
    correction, equation (26), which is far off for paired faces.

    References
    ----------
    Kanitscheider, Coen-Cagli, Kohn and Pouget (2015), PLoS Comput Biol 11(6): e1004218.
    """
    if pair.ndim < 3 or pair.shape[-3] != 2:
        raise ValueError(f"pair must have the dimensions (..., side=2, face, unit), not shape {tuple(pair.shape)}")
    sides, mean = centred(pair)
    who = people(groups, sides)
    factor = cholesky(sides.flatten(-3, -2), mean.mean(-2), 2 * (sides.shape[-2] - 1))
    minus, plus = whiten(factor.unsqueeze(-3), sides).unbind(-3)
    u = whiten(factor, (mean[..., 1:, :] - mean[..., :1, :])).squeeze(-2)
    paired = design == "paired"
    half = math.sqrt(0.5)
    rows = ((plus - minus) * half, (plus + minus) * half) if paired else (plus, minus)
    parts = [part for side in rows for part in components(side, who, 0.5)]
    inverse = inverse_bias(parts, u, who)
    enough(inverse.nu, u.shape[-1])
    kept = inverse.kept[..., 0] if paired else inverse.kept[..., :: len(parts) // 2].mean(-1)
    z = torch.cat([minus, plus], -2) if not paired and groups is None else who.sums(plus - minus)
    found = _linear(u=u, z=z, psi=2 * dot(who.sums(plus - minus), u), inverse=inverse, c=inverse.k / kept, who=who)
    return rescaled(found, delta**-2)


def rescaled(found: Estimate, factor: float) -> Estimate:
    """Return the estimate with all that is in rad^-2 multiplied."""
    names = ("information", "standard_error", "plugin", "influence")
    return found._replace(**{name: getattr(found, name) * factor for name in names})


def _trace(matrix: Tensor) -> Tensor:
    """Sum the diagonal of the last two dimensions."""
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)


def _same_shape(argument: str, came: Tensor, responses: Tensor) -> None:
    """Raise a ValueError unless `came` has the shape of the responses."""
    if came.shape != responses.shape:
        raise ValueError(
            f"{argument} must have the shape of the responses, {tuple(responses.shape)}, not {tuple(came.shape)}"
        )
