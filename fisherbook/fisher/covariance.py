"""People as clusters of faces, and the inverse of a sample covariance.

All estimators correct the bias of S^-1 in the same way. S is a sum of squares of independent components:
one per face if these are independent, else one per person (its mean) and one per face (its deviation from
that mean), equation (5); sums and differences of the two sides for pairs, equation (24). Let z_i be component i,
whitened by S. Then ``z_i' S_-i^-1 z_i = z_i^2 / (1 - h_i)``, with the leverage h_i of z_i and ``S_-i`` without it, has
expectation ``tr(Sigma_i E S_-i^-1)`` whatever the distribution, equation (4). A last factor goes from all components
but one to all, equation (10). What differs between directions of activity (some units tell people apart, others do
not) enters through the variance of each kind of component along w = S^-1 mu', projections being on the w of all
other components; the factor k that takes the form along w to its population value is equation (9). For
independent normal faces this is k = (T - N - 2) / (T - 1), as it must be (equation (2)); for heavy tails and people it
holds where that formula fails by tens of per cent. Numbers are those of the book's page on derivations.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

MARGIN = 3  # effective faces beyond the units below which neither estimate nor error has a finite variance
_ALONE = 1e-9  # leverage, short of one, at which one face is all that a direction has
_SINGULAR = 1e-12  # share of a unit's variance that the others must leave unexplained


@dataclass(frozen=True)
class People:
    """Which faces belong to one person: `codes` (face,) from 0 to P - 1, and `counts` (person,) of faces."""

    codes: Tensor
    counts: Tensor

    @property
    def alone(self) -> bool:
        """Whether every face is its own person."""
        return len(self.counts) == len(self.codes)

    @property
    def scale(self) -> float:
        """What makes up, in a sum of squares over people, for the mean that was taken off."""
        return (len(self.counts) / (len(self.counts) - 1)) ** 0.5

    @classmethod
    def of(cls, codes: Tensor, least: int = 0) -> "People":
        """Return the people whose codes these are, at least so many."""
        return cls(codes, torch.bincount(codes, minlength=least).double())

    def sums(self, values: Tensor, owner: Tensor | None = None) -> Tensor:
        """Sum ``(..., row, unit)`` over the rows of each person, by default the faces, to ``(..., person, unit)``."""
        if self.alone and (owner is None or owner is self.codes):
            return values
        total = values.new_zeros(*values.shape[:-2], len(self.counts), values.shape[-1])
        return total.index_add_(-2, self.codes if owner is None else owner, values)


def people(groups: ArrayLike | None, values: Tensor) -> People:
    """Return the people of ``(..., face, unit)`` values, each face its own person if `groups` is None."""
    faces = values.shape[-2]
    groups = np.arange(faces) if groups is None else np.asarray(groups)
    if groups.shape != (faces,):
        raise ValueError(f"groups must have one label for each of the {faces} faces, not shape {groups.shape}")
    labels, codes = np.unique(groups, return_inverse=True)
    if len(labels) < 2:
        raise ValueError(f"{faces} faces of one person cannot show how people differ: at least 2 are needed")
    return People.of(torch.as_tensor(codes, device=values.device))


class Component(NamedTuple):
    """Independent whitened vectors of equal covariance, which are part of a sum of squares."""

    rows: Tensor  # (..., component, unit)
    owner: Tensor  # (component,) person
    inflation: Tensor | float  # makes up for the mean that was taken off
    freedom: int
    share: float  # of the population's covariance


def components(z: Tensor, who: People, share: float = 1.0) -> list[Component]:
    """Split centred rows into the means of people and the deviations of faces from them: equation (5)."""
    faces, persons = len(who.codes), len(who.counts)
    if who.alone:
        return [Component(z, who.codes, faces / (faces - 1), faces - 1, share)]
    sums = who.sums(z)
    counts = who.counts[who.codes]
    some = torch.nonzero(counts > 1).squeeze(-1)  # the only face of a person has no deviation
    within = z - (sums / who.counts[:, None])[..., who.codes, :]
    within = within if len(some) == faces else within[..., some, :]
    between = sums / who.counts.sqrt()[:, None]
    order = torch.arange(persons, device=z.device)
    part = share * persons / faces
    return [
        Component(between, order, 1 / (1 - who.counts / faces), persons - 1, part),
        Component(within, who.codes[some], (counts / (counts - 1))[some], faces - persons, share - part),
    ]


class Inverse(NamedTuple):
    """How the inverse of a sample covariance stands to that of the population."""

    k: Tensor  # takes the quadratic form along u to its population value, equation (9)
    nu: Tensor  # degrees of freedom of the covariance, equation (7)
    spread: Tensor  # nu - N - 3 of equation (18), along u
    kept: Tensor  # q of equation (8): what a trace retains of its leave-one-out value, (..., kind of component)
    influence: Tensor  # of each person on k times the quadratic form, equation (17), (..., person)


def inverse_bias(parts: list[Component], u: Tensor, who: People) -> Inverse:
    """Compare S^-1, along the whitened direction `u` (..., unit), to the inverse of the true covariance.

    Parameters
    ----------
    parts : list of Component
        The kinds of components that S is made of.
    u : Tensor, shape (..., unit)
        L^-1 of the mean derivative. Where it is 0 there is no direction, and the average over all is taken.
    who : People

    Notes
    -----
    Equations (4), (8), (9), (10) and (17), with all that they name measured: `inside` is y_c of equation (10) and
    `outside` the leave-one-out trace, `along` the squared projections of equation (4), `removed` equation (17).
    """
    units, total = u.shape[-1], sum(part.freedom for part in parts)
    inside, outside, along, removed = [], [], [], []
    for part in parts:
        square = (part.rows**2).sum(-1)
        h = part.inflation * square / total
        if (h > 1 - _ALONE).any():
            raise ValueError(
                "a unit, or a combination of units, differs from its mean in one face or person alone: such units have "
                "no variance to speak of; leave them out (`units='drop'` of estimate leaves out single ones)"
            )
        inside.append(square.sum(-1) / (part.freedom * units))
        outside.append(total / units * (h / (1 - h)).mean(-1))
        square = dot(part.rows, u) ** 2
        along.append(part.inflation * square / (1 - h) ** 2)
        # 1 / (1 - h) is what leaving one out does; on average its square root gives the right variance
        removed.append(square / (1 - h) * (1 - h.mean(-1, keepdim=True)).sqrt() / total)
    freedom = torch.tensor([float(part.freedom) for part in parts], dtype=u.dtype, device=u.device)
    share = torch.tensor([part.share for part in parts], dtype=u.dtype, device=u.device)
    y = torch.stack(inside, -1)
    out = torch.stack(outside, -1).clamp(min=1e-300)  # two equal sides have no differences at all
    out = out * (1 - y / (freedom * y**2 / out).sum(-1, keepdim=True))  # from all components but one to all
    kept = torch.where(y > 0, y / out, 1)
    slope = freedom / total * kept
    v = torch.stack([values.mean(-1) for values in along], -1)
    v = torch.where((u == 0).all(-1, keepdim=True), out, v)  # no direction: the average over all
    whole = (share * v).sum(-1)
    k = (slope * v).sum(-1) / whole
    on_form, on_k = (u.new_zeros(*u.shape[:-1], len(who.counts)) for _ in range(2))
    for i, (part, values) in enumerate(zip(parts, along, strict=True)):
        gradient = (slope[..., i] - k * share[i]) / whole / values.shape[-1]
        on_k.index_add_(-1, part.owner, gradient.unsqueeze(-1) * (values - v[..., i : i + 1]))
        on_form.index_add_(-1, part.owner, -removed[i])
    on_form = on_form - on_form.sum(-1, keepdim=True) * (who.counts / len(who.codes))
    influence = k.unsqueeze(-1) * on_form + (u * u).sum(-1, keepdim=True) * on_k

    def matched(scale: Tensor) -> Tensor:
        """Return the degrees of freedom of a Wishart matrix of the same first two moments (Satterthwaite)."""
        return (freedom * scale).sum(-1) ** 2 / (freedom * scale**2).sum(-1)

    size = (freedom * v).sum(-1) / whole / total
    spread = matched(v) * k / size - 2
    return Inverse(k, matched(out), spread, kept, influence)


def least_faces(units: int) -> int:
    """Return the least number of independent faces for `units` units: nu > N + 3."""
    return units + MARGIN + 2


def enough(nu: Tensor, units: int) -> None:
    """Raise a ValueError unless the effective faces suffice for the units."""
    if (nu <= units + MARGIN).any():
        raise ValueError(
            f"{units} units need more than {units + MARGIN} effective faces; these are worth "
            f"{float(nu.min()):.1f}, since faces of one person count less. Take more people, or fewer units"
        )


def cholesky(x: Tensor, mean: Tensor, freedom: int) -> Tensor:
    """Return the Cholesky factor L of the covariance x'x / freedom of ``(..., face, unit)`` less its `mean`.

    Raises
    ------
    ValueError
        If the covariance has no inverse: constant or linearly dependent units, or too few faces.
    """
    units, least = x.shape[-1], least_faces(x.shape[-1])
    if freedom + 1 < least:
        raise ValueError(
            f"{units} units need at least {least} faces for a covariance that can be inverted with a finite "
            f"error; {x.shape[-2]} came. Take more faces, project onto fewer units or, if every angle has trials of "
            "its own, take the estimator pooled"
        )
    covariance = x.mT @ x / freedom
    variance = varying(covariance.diagonal(dim1=-2, dim2=-1), mean)
    factor, failed = torch.linalg.cholesky_ex(covariance)
    unexplained = factor.diagonal(dim1=-2, dim2=-1) ** 2 < _SINGULAR * variance
    if failed.any() or unexplained.any():
        raise ValueError(
            f"the covariance of {units} units over {x.shape[-2]} faces is singular: either units are linear "
            f"combinations of others (leave these out), or fewer than the {least} faces needed are different"
        )
    return factor


def deviations(x: Tensor, mean: Tensor, freedom: int) -> Tensor:
    """Return the standard deviation of each unit of ``(..., face, unit)`` less its `mean`; none may be constant."""
    return varying((x * x).sum(-2) / freedom, mean).sqrt()


def varying(variance: Tensor, mean: Tensor) -> Tensor:
    """Return the variances of units; a ValueError names those that are constant next to their mean."""
    constant = (variance <= _SINGULAR**2 * mean**2).reshape(-1, variance.shape[-1]).any(0)
    if constant.any():
        raise ValueError(
            f"{int(constant.sum())} of {len(constant)} units are constant over faces at some angle (the first is "
            f"unit {int(constant.nonzero()[0])}): their covariance has no inverse; leave these units out, as "
            "units='drop' of estimate does"
        )
    return variance


def whiten(factor: Tensor, rows: Tensor) -> Tensor:
    """Map rows v to L^-1 v."""
    return torch.linalg.solve_triangular(factor.mT, rows, upper=True, left=False)


def centred(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(..., face, unit)`` in float64 less its mean over faces, and that mean; it must be finite."""
    values = values.double()
    mean = values.mean(-2, keepdim=True)
    if not mean.isfinite().all():
        raise ValueError("activity must be finite, but some of it is NaN or infinite")
    return values - mean, mean.squeeze(-2)


def dot(rows: Tensor, vector: Tensor) -> Tensor:
    """Project rows ``(..., face, unit)`` on a vector ``(..., unit)``."""
    return (rows @ vector.unsqueeze(-1)).squeeze(-1)
