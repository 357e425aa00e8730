"""Rotated faces seen through a circular aperture: images, and their derivative with respect to the angle.

Two rotations are offered. `harmonic` resamples each face once on a polar grid, keeps the Fourier series in the polar
angle up to an order M, and turns the face by multiplying coefficient m by exp(-i m theta): an exact group action with
an exact tangent, in which no angle is treated differently. `bilinear` interpolates the pixels anew at each angle, as
torchvision's `rotate` does; it blurs by an amount that depends on the angle, and is here for comparison.

Inside the aperture both are a fixed set of pixels in order of their radius; outside lies mid-grey.
"""

from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from .. import angles as circle
from .. import checks
from ..store import digest
from .faces import Faces
from .rotation import ROTATIONS, Bilinear, Harmonic, aperture, polar_spectrum

GREY = 0.5
_FEWER = 4000  # faces, of those that are too many to keep in memory, that M is chosen for
_RIM_ENERGY = 0.99  # of the rim's variation over the polar angle, kept by the orders up to M


class Stimulus:
    """Faces that can be shown at any angle.

    Parameters
    ----------
    faces : Faces
        What is shown.
    rotation : {"harmonic", "bilinear"}
        How a face is turned.
    orders : int, optional
        Highest angular frequency M of the harmonic rotation. By default the least that keeps 99 % of the variation
        over the polar angle near the rim, on average over the faces.
    noise_wave : tuple of float, optional
        (amplitude a, order k, phase ψ in rad): the faces' noise is multiplied by s(θ) = exp(a cos(kθ + ψ)), a
        constraint on precision that depends on the angle in a known way.

    Attributes
    ----------
    symmetry : int
        The stimulus repeats after 2 pi / symmetry: 1 for faces, 2 for gratings.
    digest : str
        Changes with anything that changes an image.

    Examples
    --------
    >>> stimulus = fb.Stimulus(fb.load_faces("orl", size=16, limit=40))
    >>> stimulus.images([0.0, np.pi / 4], faces=[0, 1, 2]).shape
    torch.Size([2, 3, 1, 16, 16])
    >>> stimulus.tangents(4, faces=[0]).shape
    torch.Size([4, 1, 1, 16, 16])
    """

    def __init__(
        self, faces: Faces, rotation: str = "harmonic", orders: int | None = None,
        noise_wave: tuple[float, int, float] | None = None,
    ) -> None:  # fmt: skip
        checks.having("faces", faces, "identity", "Faces, as load_faces returns them")
        if noise_wave and faces.noise is None:
            raise ValueError("noise_wave needs faces with noise, as from load_faces(..., noise=0.1)")
        if noise_wave and not (np.shape(noise_wave) == (3,) and all(np.isfinite(noise_wave)) and noise_wave[0] < 50):
            raise ValueError(f"noise_wave must be three numbers, amplitude, order and phase, not {noise_wave!r}")
        if noise_wave and checks.whole_number("the order of noise_wave", noise_wave[1]) % faces.symmetry:
            raise ValueError(f"the order of noise_wave must be a multiple of the symmetry, {faces.symmetry}")
        self.faces, self.noise_wave = faces, noise_wave
        self.rotation = checks.one_of("rotation", rotation, ROTATIONS)
        self.size = faces.images.shape[-1]
        self.channels = faces.images.shape[1]
        self.symmetry = faces.symmetry
        self.streams = faces.images.dtype != np.float32  # too many to keep their spectra: made when asked for
        self._given_orders = None if orders is None else checks.whole_number("orders", orders)

    @cached_property
    def digest(self) -> str:  # noqa: D102
        orders = self.orders if self.rotation == "harmonic" else None
        return digest([self.faces.digest, self.rotation, orders, self.noise_wave])

    # ---- what anyone may ask for -----------------------------------------------------------------------------------

    def images(self, angles: int | ArrayLike, faces: Sequence[int] | str | None = None) -> Tensor:
        """Return images, (angle, face, channel, height, width), float64, nominally in [0, 1] and never clipped.

        Parameters
        ----------
        angles : int or array_like
            That many angles on the half-open circle, or angles in rad.
        faces : array of int or bool, str or None
            Indices of faces, a mask that is True for those shown, the name of a split, or None for all.
        """
        return self._outer(angles, faces, tangents=False)

    def tangents(self, angles: int | ArrayLike, faces: Sequence[int] | str | None = None) -> Tensor:
        """Return the images' derivatives with respect to the angle, rad⁻¹, shaped as `images`.

        Harmonic: exact. Bilinear: the exact derivative of the interpolated image, which jumps where a sampled point
        crosses from one cell of the pixel grid to the next.
        """
        return self._outer(angles, faces, tangents=True)

    def speed(self, angles: int | ArrayLike, faces: Sequence[int] | str | None = None) -> np.ndarray:
        """Return the squared speed of the stimulus ‖∂I/∂θ‖² (rad⁻²), averaged over faces, shape (angle,).

        It is the Fisher information about the angle that the pixels would hold under white noise of variance 1.
        """
        indices, at = self.indices(faces), torch.from_numpy(circle.as_angles(angles))
        squared = [self.product(indices, at[k : k + 1], True).square().sum((2, 3)).mean() for k in range(len(at))]
        return torch.stack(squared).numpy()

    def indices(self, faces: Sequence[int] | str | None) -> Tensor:
        """Return indices of faces from indices, a mask, the name of a split (its first fold), or None for all."""
        if faces is None or isinstance(faces, str):
            return torch.from_numpy(self.faces.split(faces))
        return torch.from_numpy(checks.positions("faces", faces, len(self.faces), ", the name of a split, or None"))

    # ---- what training and recording use ---------------------------------------------------------------------------

    def pixels(
        self, faces: Tensor, angles: Tensor, tangents: bool = False, dtype: torch.dtype = torch.float64,
        device: str = "cpu",
    ) -> Tensor:  # fmt: skip
        """Return the pixels inside the aperture for pairs of face and angle.

        Parameters
        ----------
        faces, angles : Tensor, shape (pair,)
            Index of the face and angle (rad, float64) of each pair.
        tangents : bool
            Return derivatives with respect to the angle (rad⁻¹) instead.

        Returns
        -------
        Tensor, shape (pair, channel, pixel)
            In order of the pixels' radius; `embed` makes images of them.
        """
        faces, angles = torch.as_tensor(faces).to(device), torch.as_tensor(angles, dtype=torch.float64).to(device)
        if self.streams:
            shown, faces = faces.unique(return_inverse=True)
            return self.part(shown).pixels(faces, angles, tangents, dtype, device)
        values = self._operator(dtype, str(device)).pixels(faces, angles, tangents)
        if self.faces.noise is not None:
            strength = self.noise_strength(angles, tangents).to(dtype)[:, None, None]
            values = values + strength * self._noise(dtype, str(device))[faces]
        return values

    def product(
        self, faces: Tensor, angles: Tensor, tangents: bool = False, dtype: torch.dtype = torch.float64,
        device: str = "cpu",
    ) -> Tensor:  # fmt: skip
        """Return the pixels inside the aperture, (angle, face, channel, pixel), of every face at every angle."""
        if self.streams:
            return self.part(faces).product(torch.arange(len(faces)), angles, tangents, dtype, device)
        faces, angles = faces.to(device), angles.to(device)
        values = self._operator(dtype, str(device)).product(faces, angles, tangents)
        if self.faces.noise is not None:
            strength = self.noise_strength(angles, tangents).to(dtype)[:, None, None, None]
            values = values + strength * self._noise(dtype, str(device))[faces]
        return values

    def noise_strength(self, angles: Tensor, tangents: bool = False) -> Tensor:
        """Return what multiplies the faces' noise at angles (rad), s(θ), or its derivative (rad⁻¹)."""
        if self.noise_wave is None:
            return torch.full_like(angles, 0.0 if tangents else 1.0)
        amplitude, order, phase = self.noise_wave
        turned = order * angles + phase
        strength = (amplitude * turned.cos()).exp()
        return -amplitude * order * turned.sin() * strength if tangents else strength

    def part(self, faces: Sequence[int] | Tensor) -> "Stimulus":
        """Return the stimulus of some faces, by their indices in the order given, turned as all are."""
        orders = self.orders if self.rotation == "harmonic" else None
        chosen = self.faces.some(torch.as_tensor(faces).cpu().numpy())
        return Stimulus(chosen, self.rotation, orders, self.noise_wave)

    def embed(self, pixels: Tensor, tangents: bool = False) -> Tensor:
        """Place aperture pixels (..., pixel) into images (..., height, width), mid-grey (tangents: 0) outside."""
        images = pixels.new_full((*pixels.shape[:-1], self.size**2), 0.0 if tangents else GREY)
        images[..., self.aperture.to(pixels.device)] = pixels
        return images.unflatten(-1, (self.size, self.size))

    @property
    def aperture(self) -> Tensor:
        """Flat indices of the pixels inside the aperture, in order of their radius."""
        return torch.from_numpy(aperture(self.size)[0])

    @cached_property
    def orders(self) -> int:
        """Highest angular frequency M of the harmonic rotation."""
        return self._given_orders or self._series.shape[-1] - 1

    @property
    def spectrum(self) -> Tensor:
        """Polar Fourier coefficients c_m(r), complex128, (face, channel, ring, M + 1).

        A face at the polar angle φ is Re Σ_m c_m(r) exp(imφ).
        """
        return self.spectrum_of(torch.arange(len(self._series)))

    def spectrum_of(self, faces: Tensor) -> Tensor:
        """Return the `spectrum` of some faces, by their indices."""
        return self._series[faces].to(torch.complex128)

    def project(self, weights: Tensor) -> Tensor:
        """Apply the transposed synthesis to weights on the aperture's pixels.

        Parameters
        ----------
        weights : Tensor, shape (..., channel, pixel)

        Returns
        -------
        Tensor, complex128, shape (..., channel, ring, M + 1)
            With it, Σ_pixels w I(θ) = Re Σ w̃ c exp(-imθ), so that a linear layer need never see an image.
        """
        return self._operator(torch.float64, str(weights.device)).adjoint(weights)

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _outer(self, angles: int | ArrayLike, faces: Sequence[int] | str | None, tangents: bool) -> Tensor:
        pixels = self.product(self.indices(faces), torch.from_numpy(circle.as_angles(angles)), tangents)
        return self.embed(pixels, tangents)

    @cached_property
    def _series(self) -> Tensor:
        """The coefficients as they were computed, complex64; of a few of the faces if they are too many to keep."""
        few = np.linspace(0, len(self.faces) - 1, _FEWER).astype(int)
        whole = polar_spectrum(torch.from_numpy((self.faces.some(few) if self.streams else self.faces).images))
        orders = self._given_orders
        if orders is None:
            rim = whole[:, :, int(0.9 * whole.shape[2]) :, 1:]
            energy = torch.cumsum(rim.abs().square().sum((0, 1, 2)), 0)
            orders = int((energy < _RIM_ENERGY * energy[-1]).sum()) + 1
        return whole[..., : orders + 1].clone()

    @lru_cache(maxsize=4)  # noqa: B019 - one stimulus lives as long as its study
    def _operator(self, dtype: torch.dtype, device: str) -> "Harmonic | Bilinear":
        if self.rotation == "harmonic":
            return Harmonic(self._series, self.size, dtype, device)
        return Bilinear(torch.from_numpy(self.faces.images), dtype, device)

    @lru_cache(maxsize=4)  # noqa: B019
    def _noise(self, dtype: torch.dtype, device: str) -> Tensor:
        return torch.from_numpy(self.faces.noise).flatten(2)[..., self.aperture].to(device, dtype)
