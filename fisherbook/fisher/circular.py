"""Estimators that see the circle: a smooth periodic fit of the responses, and the estimated angle itself."""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .. import angles as circle
from .covariance import least_faces, people
from .kernels import Estimate, tangent


def smoothed(responses: Tensor, angles: Tensor, groups: ArrayLike | None = None) -> Estimate:
    r"""`tangent` with the derivative of a smooth periodic fit instead of the network's own.

    Parameters
    ----------
    responses : Tensor, shape (..., angle, face, unit)
        At angles all the way round the circle; held in memory as a whole.
    angles : Tensor, shape (angle,)
        rad.
    groups : array_like, shape (face,), optional

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
    turns = torch.remainder(angles.double(), 2 * math.pi).sort().values
    gap = torch.cat([turns.diff(), turns[:1] + 2 * math.pi - turns[-1:]]).max()
    if len(turns) < 5 or gap > math.pi / 2:
        raise ValueError(
            f"smoothed needs 5 or more angles all the way round the circle, not {len(turns)} with a gap of "
            f"{gap:.2g} rad"
        )
    order = torch.arange(1, min(32, (len(turns) - 2) // 2) + 1).to(turns)
    phase, one = angles.double()[:, None] * order, torch.ones_like(turns)[:, None]
    basis = torch.cat([one, torch.stack([phase.cos(), phase.sin()], -1).flatten(1)], 1)
    slope = torch.cat([0 * one, torch.stack([-order * phase.sin(), order * phase.cos()], -1).flatten(1)], 1)
    q, r = torch.linalg.qr(basis)
    responses = responses.double()
    mean = responses.mean(-2) / responses.var(-2).mean(-2, keepdim=True).sqrt()
    left = (mean**2).sum() - (q.mT @ mean).square().movedim(-2, 0).flatten(1).sum(1).cumsum(0)
    size = 2 * order + 1
    used = 2 * int((left[2::2] / (1 - size / len(turns)) ** 2).argmin()) + 3
    fit = torch.linalg.solve_triangular(r[:used, :used], slope[:, :used], upper=True, left=False)
    return tangent(responses, torch.einsum("ab,...bfu->...afu", fit @ q[:, :used].mT, responses), groups)


def decoded(
    estimates: Tensor,
    tangents: Tensor,
    angles: Tensor,
    period: float = 2 * math.pi,
    groups: ArrayLike | None = None,
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
        The turn (rad) after which a stimulus comes back to itself: pi for gratings.
    groups : array_like, shape (face,), optional

    Returns
    -------
    Estimate
        With the extra variables `large_error_share`, the share of errors beyond a quarter period, and
        `fisher_information_without_large_errors`: the information of the other faces (rad^-2), missing where
        these are too few.
    """
    turn, d = estimates.double() * (2 * math.pi / period), tangents.double()
    center = torch.atan2(turn.sin().mean(-1, keepdim=True), turn.cos().mean(-1, keepdim=True))
    x = circle.wrap(turn - center) * (period / (2 * math.pi))
    found, who = tangent(x.unsqueeze(-1), d.unsqueeze(-1), groups), people(groups, x.unsqueeze(-1))

    def uncorrected(some: Tensor) -> tuple[Tensor, Tensor]:  # the inverse variance's bias is left in
        count = some.sum(-1)
        mean, slope = ((values * some).sum(-1) / count for values in (x, d))
        noise = who.sums(((d - slope.unsqueeze(-1)) * some).unsqueeze(-1)).square().sum((-2, -1)) / count**2
        variance = ((x - mean.unsqueeze(-1)) ** 2 * some).sum(-1) / (count - 1)
        return (slope**2 - noise * len(who.counts) / (len(who.counts) - 1)) / variance, count

    small = (circle.wrap(turn - angles.unsqueeze(-1) * (2 * math.pi / period)).abs() <= math.pi / 2).to(x)
    whole, rest = uncorrected(torch.ones_like(small)), uncorrected(small)
    k = 1 - (1 - found.information / whole[0]) * whole[1] / rest[1]  # the bias goes as one over the faces
    without = torch.where((rest[1] < least_faces(1)) | (k <= 0), torch.nan, k * rest[0])
    extra = {"large_error_share": 1 - small.mean(-1), "fisher_information_without_large_errors": without}
    return found._replace(extra=extra)


def central_difference(estimates: Tensor, angles: NDArray) -> Tensor:
    """Return d estimate / d angle of ``(replicate, angle, face)`` estimates from the neighbouring angles.

    Where the angles go all the way round the first and the last are neighbours; else the ends take one-sided
    differences.
    """
    if len(angles) < 3:
        raise ValueError(f"{len(angles)} angles give no derivative of estimates: 3, or tangents, are needed")
    order = np.argsort(circle.wrap(angles))
    steps = np.diff(circle.wrap(angles)[order], append=circle.wrap(angles)[order[0]] + 2 * np.pi)
    place = np.arange(len(angles))
    if steps[-1] < 1.5 * np.median(steps):
        before, after = order[place - 1], order[(place + 1) % len(angles)]
    else:
        before, after = order[np.maximum(place - 1, 0)], order[np.minimum(place + 1, len(angles) - 1)]
    span = torch.as_tensor((angles[after] - angles[before]) % (2 * np.pi)).unsqueeze(-1)
    rise = circle.wrap(estimates[:, after] - estimates[:, before])
    return (rise / span)[:, np.argsort(order)]
