"""Estimators that see the whole curve: a smooth fit of the responses, and the estimated angle itself.

A `period` is that of the stimulus, in rad: 2 pi, pi for gratings and orientations, infinite for a line, which is fitted
by polynomials where the circle takes a Fourier series.
"""

import math

import numpy as np
import torch
from numpy.polynomial import legendre
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .covariance import least_faces, people, varying
from .kernels import Estimate, Rows, combined, tangent

_WINDOW = 1 / 24  # of the period, on both sides, whose trials make a covariance where too few have one angle
_TOGETHER = 1 << 18  # numbers of a curve whose estimates are made at a time
_MANY = 3  # trials per unit that are enough of one angle
_ORDERS = 32, 8  # the highest of a Fourier series, and of a polynomial


def smoothed(
    responses: Tensor, angles: Tensor, groups: ArrayLike | None = None, period: float = 2 * math.pi,
    correlations: str = "used",
) -> Estimate:  # fmt: skip
    r"""`tangent` with the derivative of a smooth periodic fit instead of the network's own.

    Parameters
    ----------
    responses : Tensor, shape (..., angle, face, unit)
        At angles all the way round the circle; held in memory as a whole.
    angles : Tensor, shape (angle,)
        rad.
    groups : array_like, shape (face,), optional
    period : float
        rad.
    correlations : {"used", "shuffled", "ignored"}
        See `combined`.

    Notes
    -----
    Each face's responses are fitted by a Fourier series whose order, one for all, has the least generalised
    cross-validation error on the faces' mean. The fit is linear, so each face has its own fitted slope, and
    the noise of the mean slope is estimated from these as in `tangent`, whether the noise at neighbouring
    angles is the same (faces) or not (trials). Structure finer than the order is not seen.

    References
    ----------
    Wahba (1990), Spline Models for Observational Data, for generalised cross-validation.
    """
    responses = responses.double()
    mean = responses.mean(-2) / responses.var(-2).mean(-2, keepdim=True).sqrt()
    basis, slope, sizes = _basis(angles, angles, period, spare=1)
    fit, _ = _chosen(basis, slope, sizes, mean)
    slopes = (fit @ responses.flatten(-2)).view(responses.shape)
    some = max(1, len(angles) * _TOGETHER // responses.numel())
    parts = zip(responses.split(some, -3), slopes.split(some, -3), strict=True)
    found = [tangent(*part, groups, correlations)[:6] for part in parts]
    return Estimate(*(torch.cat(column, responses.ndim - 3) for column in zip(*found, strict=True)))


def smoothed_trials(
    responses: Tensor, angles: Tensor, at: Tensor, groups: ArrayLike | None = None, period: float = 2 * math.pi,
    correlations: str = "used", offset: float = 0.0,
) -> Estimate:  # fmt: skip
    """`smoothed` from trials that each have an angle of their own, at the angles wanted.

    Parameters
    ----------
    responses : Tensor, shape (..., trial, unit)
    angles : Tensor, shape (trial,)
        rad, repeated or all different.
    at : Tensor, shape (angle,)
        rad.
    groups : array_like, shape (trial,), optional
        Which trials belong together; all are independent if left out.
    period, correlations
        As in `smoothed`.
    offset : float
        Added to the slope of every unit: 1 where the responses are errors of an estimate.

    Notes
    -----
    The order of the fit has the least generalised cross-validation error over trials. The covariance at an angle is
    that of the residuals of its own trials, if these are three for each unit or more, else of those within a
    twenty-fourth of the period on both sides, or at the nearest angle if that is further. The noise of the slope is
    that of the residuals of all trials, each with its own weight, so that the noise may depend on the angle.
    """
    responses, who = responses.double(), people(groups, responses)
    if not responses.isfinite().all():
        raise ValueError("activity must be finite, but some of it is NaN or infinite")
    for place in at.tolist():
        own = responses[..., window(angles, place, responses.shape[-1], period), :]
        varying(own.var(-2, correction=0), own.mean(-2))  # residuals of a constant unit are not quite constant
    responses = responses - (middle := responses.mean(-2, keepdim=True))  # sums of squares keep their digits
    basis, slope, sizes = _basis(angles, at, period, spare=0)
    weights, q = _chosen(basis, slope, sizes, responses, trials=True)
    residual, leverage = responses - q @ (q.mT @ responses), (q * q).sum(-1)
    noise = residual * ((1 - leverage).rsqrt().unsqueeze(-1) if who.alone else who.scale)
    found = []
    for place, weight in zip(at.tolist(), weights, strict=True):
        near = window(angles, place, responses.shape[-1], period)
        inside = near.nonzero().squeeze(-1)
        rows, mean = residual[..., inside, :], (responses[..., inside, :].mean(-2, keepdim=True) + middle).squeeze(-2)
        rows = rows - rows.mean(-2, keepdim=True)
        lost = max(1.0, float(leverage[inside].sum()))  # degrees of freedom that the fit took; one angle's mean is one
        rows = rows * ((len(inside) - 1) / max(len(inside) - lost, 1.0)) ** 0.5
        sets, error = [Rows(rows, who.codes[inside])], Rows(noise * weight[:, None], who.codes)
        found.append(combined(sets, mean, weight @ responses + offset, error, who, correlations, 1, near))
    axis = responses.ndim - 2
    return Estimate(*(torch.stack(column, axis) for column in list(zip(*found, strict=True))[:6]))


def window(angles: Tensor, place: float, units: int, period: float = 2 * math.pi) -> Tensor:
    """Return which trials make the covariance at a place; see `smoothed_trials`."""
    apart = wrap(angles - place, period).abs()
    whole = period if period < math.inf else float(angles.max() - angles.min())
    own = apart <= 1e-6 * whole
    if own.sum() > _MANY * units:
        return own
    return apart <= max(float(apart.min()), _WINDOW * whole) + 1e-6 * whole


def wrap(angles: Tensor, period: float) -> Tensor:
    """Wrap to half a period on both sides of zero; on a line there is nothing to wrap."""
    return torch.remainder(angles + period / 2, period) - period / 2 if period < math.inf else angles


def gaps(angles: NDArray, period: float) -> tuple[NDArray, NDArray]:
    """Return the order of angles round the circle, after the widest gap, and the steps from each to the next.

    The last step is the widest, back to the first angle.
    """
    turned = np.asarray(angles) % period
    order = np.argsort(turned, kind="stable")
    steps = np.diff(turned[order], append=turned[order[0]] + period)
    first = int(steps.argmax()) + 1
    return np.roll(order, -first), np.roll(steps, -first)


def _basis(angles: Tensor, at: Tensor, period: float, spare: int) -> tuple[Tensor, Tensor, list[int]]:
    # The functions at the angles, their derivatives where these are wanted, and how many each order has.
    angles, at = angles.double(), at.double()
    if period == math.inf:
        low, high = float(angles.min()), float(angles.max())
        distinct = len(np.unique(angles.cpu().numpy()))
        if distinct < 3 + spare:
            raise ValueError(f"a smooth fit on a line needs {3 + spare} or more different places, not {distinct}")
        half, top = (high - low) / 2, min(_ORDERS[1], (distinct - 1 - spare) // 2 + 1)
        scaled = [(2 * values.cpu().numpy() - low - high) / (2 * half) for values in (angles, at)]
        basis = legendre.legvander(scaled[0], top)
        slope = legendre.legval(scaled[1], legendre.legder(np.eye(top + 1)) / half).T
        return *(torch.as_tensor(np.ascontiguousarray(v)).to(angles) for v in (basis, slope)), list(range(2, top + 2))
    _, steps = gaps(angles.cpu().numpy(), period)
    distinct, gap = int((steps > 1e-9).sum()), float(steps[-1])
    if distinct < 5 or gap > period / 4 + 1e-9:
        raise ValueError(
            f"smoothed needs 5 or more angles all the way round the circle, not {distinct} with a gap of "
            f"{gap:.2g} rad; `period` says that a stimulus repeats after less than a turn, or never"
        )
    top = min(_ORDERS[0], (distinct - 1 - spare) // 2, max(1, int(period / (2 * gap) + 1e-9)))
    order = torch.arange(1, top + 1).to(angles) * (2 * math.pi / period)

    def waves(values: Tensor, derivative: bool) -> Tensor:
        phase, one = values[:, None] * order, torch.ones_like(values)[:, None]
        pair = (-order * phase.sin(), order * phase.cos()) if derivative else (phase.cos(), phase.sin())
        return torch.cat([one * (not derivative), torch.stack(pair, -1).flatten(1)], 1)

    return waves(angles, False), waves(at, True), list(range(3, 2 * top + 2, 2))


def _chosen(
    basis: Tensor, slope: Tensor, sizes: list[int], values: Tensor, trials: bool = False
) -> tuple[Tensor, Tensor]:
    # What takes values (..., row, unit) to slopes, for the order of least generalised cross-validation error, and the
    # orthonormal functions of that order.
    number = len(basis)
    sizes = [size for size in sizes if 2 * size <= number] or sizes[:1] if trials else sizes
    if number <= sizes[0]:
        raise ValueError(f"{number} trials are too few for a smooth fit of order one")
    q, r = torch.linalg.qr(basis[:, : sizes[-1]])
    explained = (q.mT @ values).square()
    whole = (values**2).sum(-2)
    if trials:  # each unit in terms of its own noise
        noise = (whole - explained.sum(-2)).clamp(min=1e-300)
        whole, explained = whole / noise, explained / noise.unsqueeze(-2)
    left = whole.sum() - explained.movedim(-2, 0).flatten(1).sum(1).cumsum(0)
    size = torch.tensor(sizes).to(left)
    used = sizes[int((left[[s - 1 for s in sizes]] / (1 - size / number) ** 2).argmin())]
    fit = torch.linalg.solve_triangular(r[:used, :used], slope[:, :used], upper=True, left=False)
    return fit @ q[:, :used].mT, q[:, :used]


def decoded(
    estimates: Tensor, tangents: Tensor, angles: Tensor, period: float = 2 * math.pi, groups: ArrayLike | None = None
) -> Estimate:
    r"""Fisher information that behaviour shows: (1 + b')^2 / Var of the estimated angle, corrected.

    `tangent` for one unit, the estimate unwrapped about its circular mean.

    Parameters
    ----------
    estimates, tangents : Tensor, shape (..., angle, face)
        Estimated angle (rad) and its derivative with respect to the true angle.
    angles : Tensor, shape (angle,)
        True angles in rad.
    period : float
        The turn (rad) after which a stimulus comes back to itself: pi for gratings, infinite for a line.
    groups : array_like, shape (face,), optional

    Returns
    -------
    Estimate
        With the extra variables `large_error_share`, the share of errors beyond a quarter period, and
        `fisher_information_without_large_errors`: the information of the other faces (rad^-2), missing where
        these are too few.
    """
    estimates, d = estimates.double(), tangents.double()
    x = wrap(estimates - _center(estimates, period), period)
    found, who = tangent(x.unsqueeze(-1), d.unsqueeze(-1), groups), people(groups, x.unsqueeze(-1))

    def uncorrected(some: Tensor) -> tuple[Tensor, Tensor]:  # the inverse variance's bias is left in
        count = some.sum(-1)
        mean, slope = ((values * some).sum(-1) / count for values in (x, d))
        noise = who.sums(((d - slope.unsqueeze(-1)) * some).unsqueeze(-1)).square().sum((-2, -1)) / count**2
        variance = ((x - mean.unsqueeze(-1)) ** 2 * some).sum(-1) / (count - 1)
        return (slope**2 - noise * len(who.counts) / (len(who.counts) - 1)) / variance, count

    small = (wrap(estimates - angles.unsqueeze(-1), period).abs() <= period / 4).to(x)
    whole, rest = uncorrected(torch.ones_like(small)), uncorrected(small)
    k = 1 - (1 - found.information / whole[0]) * whole[1] / rest[1]  # the bias goes as one over the faces
    without = torch.where((rest[1] < least_faces(1)) | (k <= 0), torch.nan, k * rest[0])
    extra = {"large_error_share": 1 - small.mean(-1), "fisher_information_without_large_errors": without}
    return found._replace(extra=extra)


def decoded_trials(
    estimates: Tensor, angles: Tensor, at: Tensor, groups: ArrayLike | None = None, period: float = 2 * math.pi
) -> Estimate:
    """`decoded` from trials that each have an angle of their own: the bias b is a smooth fit of the errors.

    Parameters
    ----------
    estimates : Tensor, shape (..., trial)
        Estimated angle (rad).
    angles, at, groups, period
        As in `smoothed_trials`, whose fit and covariance it uses.

    Returns
    -------
    Estimate
        With the extra variable `large_error_share`.
    """
    error = wrap(estimates.double() - angles, period)
    basis, _, sizes = _basis(angles, at, period, spare=0)
    middle = _center(error, period)
    for _ in range(3):  # errors are unwrapped about their own smooth mean
        error = middle + wrap(error - middle, period)
        _, q = _chosen(basis, basis, sizes, error.unsqueeze(-1), trials=True)
        middle = (q @ (q.mT @ error.unsqueeze(-1))).squeeze(-1)
    found = smoothed_trials(error.unsqueeze(-1), angles, at, groups, period, offset=1.0)
    large = (wrap(error, period).abs() > period / 4).double()
    share = [large[..., window(angles, place, 1, period)].mean(-1) for place in at.tolist()]
    return found._replace(extra={"large_error_share": torch.stack(share, -1)})


def _center(angles: Tensor, period: float) -> Tensor:
    if period == math.inf:
        return angles.mean(-1, keepdim=True)
    turn = angles * (2 * math.pi / period)
    mean = torch.atan2(turn.sin().mean(-1, keepdim=True), turn.cos().mean(-1, keepdim=True))
    return mean * (period / (2 * math.pi))


def central_difference(estimates: Tensor, angles: NDArray, period: float = 2 * math.pi) -> Tensor:
    """Return d estimate / d angle of ``(replicate, angle, face)`` estimates from the neighbouring angles.

    Where the angles go all the way round the first and the last are neighbours; else, and at gaps of over a sixth of
    the period, the ends take one-sided differences. Each step is unwrapped about the mean direction of all faces'
    steps, where they have one.

    Raises
    ------
    ValueError
        If angles are fewer than 3, or neighbours half a period or more apart: nobody could tell which way an estimate
        went.
    """
    if len(angles) < 3:
        raise ValueError(f"{len(angles)} angles give no derivative of estimates: 3, or tangents, are needed")
    if period == math.inf:
        order = np.argsort(angles)
        steps = np.diff(np.asarray(angles)[order], append=math.inf)
    else:
        order, steps = gaps(angles, period)
    usual, widest = 1.5 * np.median(steps), steps.max()
    wide = steps > max(usual, period / 6)  # across these, and the widest, are no neighbours
    wide |= (steps > widest - 1e-9) & (widest > min(usual, period / 2) - 1e-9)
    ahead, behind = (~each | wide & np.roll(wide, 1) for each in (wide, np.roll(wide, 1)))  # who is alone has both
    if (most := steps[ahead | np.roll(behind, -1)].max()) > period / 2 - 1e-9:
        raise ValueError(
            f"neighbouring angles are {most:.3g} rad apart, half a period or more: estimates have no derivative "
            "there; show angles in between, or give tangents"
        )
    around = torch.as_tensor(order, device=estimates.device)
    size, ahead, behind = (
        torch.as_tensor(each, device=estimates.device, dtype=estimates.dtype).unsqueeze(-1)
        for each in (np.where(np.isfinite(steps), steps, 0), ahead, behind)
    )
    rise = _step(estimates[:, torch.roll(around, -1)] - estimates[:, around], period)
    both, span = ahead * rise + behind * rise.roll(1, 1), ahead * size + behind * size.roll(1, 0)
    return (both / span)[:, torch.argsort(around)]


def _step(rise: Tensor, period: float) -> Tensor:
    if period == math.inf:
        return rise
    turn = rise * (2 * math.pi / period)
    sin, cos = turn.sin().mean(-1, keepdim=True), turn.cos().mean(-1, keepdim=True)
    common = torch.where(sin**2 + cos**2 > 0.25, torch.atan2(sin, cos) * (period / (2 * math.pi)), 0.0)
    return common + wrap(rise - common, period)
