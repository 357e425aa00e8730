r"""Estimators of Fisher information as pure functions of arrays: one formula, one reference each.

Noise model: at a fixed angle the faces (or trials) draw the response r of N units from a distribution with
mean mu and covariance Sigma. Linear Fisher information is mu'^T Sigma^-1 mu': what a locally optimal linear
decoder can use, and never more than the full information. Every function takes torch tensors ``(..., face,
unit)`` with any leading dimensions and returns an `Estimate` with those dimensions, in rad^-2. Sums and
solves are in float64.

Faces of one person are not independent draws. `groups` (one label per face) says which belong together; None
says that all are independent.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from .covariance import (
    Inverse,
    People,
    centred,
    cholesky,
    components,
    deviations,
    dot,
    enough,
    inverse_bias,
    people,
    whiten,
)  # fmt: skip


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
        nu, the degrees of freedom of the sample covariance: faces - 1 if these are independent.
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


def tangent(
    responses: Tensor, tangents: Tensor, groups: ArrayLike | None = None, correlations: str = "used"
) -> Estimate:
    r"""Linear Fisher information from responses and their derivatives with respect to the angle.

    .. math:: \hat I = k\,[\bar d^T S^{-1} \bar d - tr(S^{-1} V)]

    Parameters
    ----------
    responses, tangents : Tensor, shape (..., face, unit)
        r_j and d_j = dr_j / dtheta (per rad) of the same faces in one pass.
    groups : array_like, shape (face,), optional
        The person of each face.
    correlations : {"used", "shuffled", "ignored"}
        Between units, in the noise; see `combined`.

    Notes
    -----
    Equation (12). S is the sample covariance of r, k corrects its inverse (equation (9)), and V is the
    covariance of the mean derivative, summed by person, so that it holds for any correlation within a person
    (equation (11)).
    The standard error is the larger of two. One is the delta method's, from the influence of each person on
    the estimate, right for any tails to first order (equations (15) and (17)). The other is the variance for
    normal responses, 2 I^2 /
    (nu - N - 3) + 4 k^2 w'Vw - 2 k^2 tr((S^-1 V)^2) with w = S^-1 d, right at any N / T; the last term, which
    would be added if w were exact, is what the noise of w already adds twice (equations (18) and (19)).
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
    who, x, mean, e, slope = _of_faces(responses, tangents, groups)
    noise = Rows(e * (who.scale / len(who.codes)), who.codes)
    return combined([Rows(x, who.codes)], mean, slope, noise, who, correlations)


class Rows(NamedTuple):
    """Vectors (..., row, unit) of mean 0, and the person (row,) whom each belongs to."""

    values: Tensor
    owner: Tensor


def combined(
    sets: Sequence[Rows],
    mean: Tensor,
    slope: Tensor,
    noise: Rows,
    who: People,
    correlations: str = "used",
    inside: int = 0,
    within: Tensor | float = 1.0,
) -> Estimate:
    r"""Estimate the information from a slope, the rows that its covariance is made of, and the noise of the slope.

    Parameters
    ----------
    sets : sequence of Rows
        Each set less a mean of its own; together they make the covariance S.
    mean, slope : Tensor, shape (..., unit)
        Of the responses, and their derivative.
    noise : Rows
        What each row adds to the error of the slope, blown up for what the mean took off: summed by person, the
        squares add up to V.
    who : People
        All people of both.
    correlations : {"used", "shuffled", "ignored"}
        Between units. Used: the information itself. Shuffled: what would be there if the trials of each unit were
        shuffled, sum of mu'^2 / sigma^2, each unit corrected on its own. Ignored: what a decoder gets that takes the
        noise for uncorrelated, A^2 / B with A the shuffled information and B = mu' D^-1 Sigma D^-1 mu', D the
        variances.
    inside : int
        How many of the first sets are also the rows of `noise`.
    within : Tensor, shape (row,)
        1 for the rows of `noise` that are, 0 for others.

    Notes
    -----
    Shuffled: the units' estimates add up, and so do their influences, in which the correlations between units enter
    the error. Ignored: the elements of B are s_ij / (s_ii s_jj), whose relative bias for normal responses is
    2 rho_ij^2 / n, and V adds tr(D^-1 Sigma D^-1 V); for the ratio, with a and b the relative errors of A and B, the
    expectation is 1 + Var(a - b) times the true one and the relative error 2 a - b.

    References
    ----------
    Averbeck and Lee (2006), J Neurophysiol 95: 3633-3644, for both. Kanitscheider et al. (2015), as above, for the
    correction of the shuffled one for two stimuli, which this equals for normal responses.
    """
    whitened = _whiten(sets, mean, slope, noise, who, correlations != "used", inside, within)
    found = _linear(whitened, 2 * dot(whitened.z, whitened.u), who)
    return _blind(whitened, found, who) if correlations == "ignored" else found


class _Whitened(NamedTuple):
    sets: list[Rows]  # rows L^-1 x of the centred responses, S = L L^T
    u: Tensor  # L^-1 of the slope
    plugin: Tensor  # its square
    noise: Tensor  # of that of the slope, by row
    z: Tensor  # its sums by person
    inverse: Inverse


def _of_faces(responses: Tensor, tangents: Tensor, groups: ArrayLike | None) -> tuple:
    _same_shape("tangents", tangents, responses)
    return people(groups, responses), *centred(responses), *centred(tangents)


def _whiten(
    sets: Sequence[Rows],
    mean: Tensor,
    slope: Tensor,
    noise: Rows,
    who: People,
    apart: bool = False,
    inside: int = 0,
    within: Tensor | float = 1.0,
) -> _Whitened:
    rows = torch.cat([one.values for one in sets], -2)
    freedom, units = rows.shape[-2] - len(sets), rows.shape[-1]
    if apart:
        scale = deviations(rows, mean, freedom).unsqueeze(-2)
    else:
        factor = cholesky(rows, mean, freedom)

    def white(values: Tensor) -> Tensor:
        return values / scale if apart else whiten(factor, values)

    sets = [Rows(white(one.values), one.owner) for one in sets]
    u, error = white(slope.unsqueeze(-2)).squeeze(-2), white(noise.values)
    everyone = People.of(torch.cat([one.owner for one in sets]), len(who.counts))
    parts, kinds = [], 1
    for one in sets:
        label, code = one.owner.unique(return_inverse=True)
        split = components(one.values, People.of(code), len(code) / rows.shape[-2])
        parts, kinds = parts + [part._replace(owner=label[part.owner]) for part in split], len(split)
    if apart:  # every unit is a population of its own
        parts = [part._replace(rows=part.rows.mT.unsqueeze(-1)) for part in parts]
    inverse = inverse_bias(parts, u.unsqueeze(-1) if apart else u, everyone)
    enough(inverse.nu, 1 if apart else units)
    kept = inverse.kept[..., : kinds * inside : kinds].mean(-1) if inside else torch.ones_like(inverse.k)
    if not apart:
        kept = kept.unsqueeze(-1)
    if inside:
        within = torch.as_tensor(within, dtype=u.dtype, device=u.device).reshape(-1, 1)
        z = who.sums(error * (1 + (kept.rsqrt().unsqueeze(-2) - 1) * within), noise.owner)
    else:
        z = who.sums(error, noise.owner)
    plugin = (u * u).sum(-1)
    if apart:
        root = inverse.k.sqrt()
        u, z = u * root, z * root.unsqueeze(-2)
        rows = torch.cat([one.values for one in sets], -2)
        alike = (rows.mT @ rows / freedom).square()  # two units' estimates vary together as their squared correlation
        share = u**2 / (u**2).sum(-1, keepdim=True)
        spread = inverse.spread.mean(-1) / dot(alike * share.unsqueeze(-1), share).sum(-1)
        one, nu = torch.ones_like(spread), inverse.nu.amin(-1)
        inverse = Inverse(one, nu, spread, inverse.kept, inverse.influence.sum(-2))
    return _Whitened(sets, u, plugin, error, z, inverse)


def _linear(white: _Whitened, psi: Tensor, who: People, extra: Tensor | float = 0.0) -> Estimate:
    # The common end; psi is what each person adds to the quadratic form by the slope. First-order variances, taken at
    # the estimate, contain the second-order one twice; `extra` adds to the latter.
    u, z, inverse = white.u, white.z, white.inverse
    k = inverse.k
    gram = z @ z.mT if z.shape[-2] < z.shape[-1] else z.mT @ z
    information = k * ((u * u).sum(-1) - (z * z).sum((-2, -1)))
    second = 2 * k**2 * (gram * gram).sum((-2, -1))
    effect = k.unsqueeze(-1) * psi + who.scale * inverse.influence
    by_people = (effect**2).sum(-1) - second - extra
    normal = 4 * k**2 * (dot(z, u) ** 2).sum(-1) - second
    normal = normal.maximum(second) + 2 * information**2 / inverse.spread.clamp(min=1e-3) + extra
    error = by_people.maximum(normal).sqrt()
    freedom = torch.full_like(k, len(torch.cat([one.owner for one in white.sets]).unique()) - 1)
    return Estimate(information, error, freedom, white.plugin, inverse.nu, effect)


def _blind(white: _Whitened, found: Estimate, who: People) -> Estimate:
    # From the information without correlations to that of a decoder that does not know of them.
    rows, owner = (torch.cat(parts, axis) for parts, axis in zip(zip(*white.sets, strict=True), (-2, 0), strict=True))
    u, z, n = white.u, white.z, rows.shape[-2] - len(white.sets)
    r = rows.mT @ rows / n
    mended = r * (1 + 2 * (1 - r**2) / n)
    noise = (z @ mended * z).sum((-2, -1))
    toward = dot(mended, u)
    b = (u * toward).sum(-1) - noise
    own = dot(rows, u) ** 2 - 2 * dot(rows**2, u * toward) + (u * (2 * toward - dot(r, u))).sum(-1).unsqueeze(-1)
    on_b = 2 * dot(z, toward) + who.scale * who.sums(own.unsqueeze(-1) / n, owner).squeeze(-1)
    a, bounds = found.information, torch.linalg.eigvalsh(r)
    known = torch.where((a > 0) & (b > 0), a / b, (u**2).sum(-1) / (u * dot(r, u)).sum(-1))
    ratio = known.clamp(1 / bounds[..., -1], 1 / bounds[..., 0].clamp(min=1e-9)).unsqueeze(-1)
    effect = ratio * (2 * found.influence - ratio * on_b)
    ratio = ratio.squeeze(-1)
    apart = (found.influence / a.unsqueeze(-1) - on_b / b.unsqueeze(-1)).square().sum(-1)
    twice = found.standard_error**2 - (found.influence**2).sum(-1)  # the second order, in the influences on A
    least = (ratio * found.standard_error) ** 2  # where there is next to no information
    error = ((effect**2).sum(-1) + 4 * ratio**2 * twice).maximum(least).sqrt()
    information, plugin = a * ratio / (1 + apart), found.plugin * (u**2).sum(-1) / (u * dot(r, u)).sum(-1)
    return found._replace(information=information, standard_error=error, plugin=plugin, influence=effect)


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
    residual covariance R, gives J = tr(B^2) + tr(Sigma^-1 B Sigma B^T), equation (20). The noise of B adds t / n to the
    first and N t / n to the second term, t = tr(S^-1 R); with clusters these are sums over people of the
    regression's scores. What remains is the expectation of tr(S^-1 B S B^T) for a Wishart S, which mixes in
    tr(B^2) and tr(B)^2 at 1 / nu.

    The standard error adds to the tangent's the influence of each person on J and the second-order variance
    2 ((N + 2) tr((S^-1 R)^2) + t^2) / n^2, which alone is left where Sigma' = 0. Not a bound for responses
    that are not normal. Uncorrected it is off by about tr(Sigma^-1 D)(N + 1) / T.

    References
    ----------
    Kay (1993), Fundamentals of Statistical Signal Processing: Estimation Theory, section 3.9, for the
    information (the Slepian-Bangs formula). The corrections are derived above.
    """
    who, x, mean, d, slope = _of_faces(responses, tangents, groups)
    white = _whiten([Rows(x, who.codes)], mean, slope, Rows(d, who.codes), who)
    x, e, nu = white.sets[0].values, white.noise, white.inverse.nu
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
    scale = who.scale / len(who.codes)
    psi = who.sums(psi.unsqueeze(-1)).squeeze(-1) * scale
    linear = _linear(white._replace(z=white.z * scale), psi, who, second)
    return linear._replace(
        information=linear.information + bending,
        plugin=linear.plugin + ((b + b.mT) ** 2).sum((-2, -1)) / 2,
    )


def _regression_noise(x: Tensor, residual: Tensor, who: People) -> tuple[Tensor, Tensor, Tensor]:
    # What the noise of B adds to tr(B^2), tr(B)^2 and |B|^2, from scores summed by person.
    n, units = x.shape[-2] - 1, x.shape[-1]
    same = (who.codes[:, None] == who.codes).to(x) / (n * (n - units))
    cross = x @ residual.mT
    own = cross.diagonal(dim1=-2, dim2=-1)
    return (
        (same * cross * cross.mT).sum((-2, -1)),
        (same * own.unsqueeze(-1) * own.unsqueeze(-2)).sum((-2, -1)),
        (same * (x @ x.mT) * (residual @ residual.mT)).sum((-2, -1)),
    )


def direct(
    pair: Tensor | Sequence[Tensor],
    delta: float,
    groups: ArrayLike | None = None,
    design: str = "paired",
    correlations: str = "used",
) -> Estimate:
    r"""Linear Fisher information from responses to two stimuli, at theta - delta / 2 and theta + delta / 2.

    .. math:: \hat I = [k\,\Delta\mu^T S^{-1} \Delta\mu - c\, tr(S^{-1} V)] / \delta^2

    Parameters
    ----------
    pair : Tensor, shape (..., side, face, unit), or two Tensors, shape (..., face, unit)
        Responses; side 0 is theta - delta / 2. Two tensors may differ in length where the sides are independent.
    delta : float
        The step in rad.
    groups : array_like, shape (face,), optional
        Where two tensors came, of the faces of both in turn.
    design : {"paired", "independent"}
        Whether face j is the same on both sides. Pairing makes the spread of the estimate several times
        smaller.
    correlations : {"used", "shuffled", "ignored"}
        Between units, in the noise; see `combined`.

    Notes
    -----
    S averages the covariances of the two sides, weighed by their degrees of freedom, V is that of the mean
    difference. For pairs the components of S are half sums and half differences of the sides, equation (24). V is made
    of the differences, which are in S too: c = k / q, q being the share of their leave-one-out trace that the plain
    trace retains. If the sides are correlated by rho and normal, that is nu = 2 n / (1 + rho^2), k = (nu - N -
    1) / nu and c = 1 - (N + 1) rho (1 + rho) / (2 n) to first order. For independent trials it is the published
    correction, which is far off for paired faces.

    References
    ----------
    Kanitscheider, Coen-Cagli, Kohn and Pouget (2015), PLoS Comput Biol 11(6): e1004218.
    """
    if isinstance(pair, Tensor):
        if pair.ndim < 3 or pair.shape[-3] != 2:
            raise ValueError(f"pair must have the dimensions (..., side=2, face, unit), not shape {tuple(pair.shape)}")
        groups = groups if groups is None or design == "paired" else np.tile(np.asarray(groups), 2)
        pair = pair.unbind(-3)
    (minus, below), (plus, above) = map(centred, pair)
    paired = design == "paired"
    both = torch.cat([minus, plus], -2)
    who = people(groups, plus if paired else both)
    if paired:
        half = 0.5**0.5
        sets = [Rows((plus - minus) * half, who.codes), Rows((plus + minus) * half, who.codes)]
        noise = Rows((plus - minus) * (who.scale / len(who.codes)), who.codes)
    else:
        sizes = [minus.shape[-2], plus.shape[-2]]
        sets = [Rows(*rows) for rows in zip((minus, plus), who.codes.split(sizes), strict=True)]
        scaled = [
            rows * (sign * ((n / (n - 1)) ** 0.5 if who.alone else who.scale) / n)
            for rows, sign, n in zip((minus, plus), (-1, 1), sizes, strict=True)
        ]
        noise = Rows(torch.cat(scaled, -2), who.codes)
    found = combined(sets, (below + above) / 2, above - below, noise, who, correlations, 1 if paired else 2)
    return rescaled(found, delta**-2)


def rescaled(found: Estimate, factor: float) -> Estimate:
    """Return the estimate with all that is in rad^-2 multiplied."""
    names = ("information", "standard_error", "plugin", "influence")
    return found._replace(**{name: getattr(found, name) * factor for name in names})


def _trace(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)


def _same_shape(argument: str, came: Tensor, responses: Tensor) -> None:
    if came.shape != responses.shape:
        raise ValueError(
            f"{argument} must have the shape of the responses, {tuple(responses.shape)}, not {tuple(came.shape)}"
        )
