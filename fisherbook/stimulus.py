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

from . import angles as circle
from . import checks
from .faces import Faces
from .store import digest

GREY = 0.5
#: The rotations of an image, by name.
ROTATIONS = {
    "harmonic": "phase multiplication of the polar Fourier series: exact, the same at every angle",
    "bilinear": "bilinear resampling of the pixels, as torchvision's rotate: blurs by what depends on the angle",
}
_RING_SPACING = 0.5  # px
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
    """

    def __init__(
        self, faces: Faces, rotation: str = "harmonic", orders: int | None = None,
        noise_wave: tuple[float, int, float] | None = None,
    ) -> None:  # fmt: skip
        if noise_wave and faces.noise is None:
            raise ValueError("noise_wave needs faces with noise, as from load_faces(..., noise=0.1)")
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
        faces : array of int, str or None
            Indices of faces, the name of a split, or None for all.
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
        """Return indices of faces, checked, from indices, the name of a split (its first fold), or None for all."""
        if faces is None or isinstance(faces, str):
            return torch.from_numpy(self.faces.split(faces))
        indices = torch.as_tensor(np.asarray(faces, np.int64))
        if indices.ndim != 1 or len(indices) == 0 or indices.min() < 0 or indices.max() >= len(self.faces):
            raise ValueError(f"faces must be indices from 0 to {len(self.faces) - 1}, the name of a split, or None")
        return indices

    # ---- what training and recording use ---------------------------------------------------------------------------

    def pixels(
        self,
        faces: Tensor,
        angles: Tensor,
        tangents: bool = False,
        dtype: torch.dtype = torch.float64,
        device: str = "cpu",
    ) -> Tensor:
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
        faces, angles = (
            torch.as_tensor(faces).to(device),
            torch.as_tensor(angles, dtype=torch.float64).to(device),
        )
        if self.streams:
            shown, faces = faces.unique(return_inverse=True)
            return self.part(shown).pixels(faces, angles, tangents, dtype, device)
        values = self._operator(dtype, str(device)).pixels(faces, angles, tangents)
        if self.faces.noise is not None:
            strength = self.noise_strength(angles, tangents).to(dtype)[:, None, None]
            values = values + strength * self._noise(dtype, str(device))[faces]
        return values

    def product(
        self,
        faces: Tensor,
        angles: Tensor,
        tangents: bool = False,
        dtype: torch.dtype = torch.float64,
        device: str = "cpu",
    ) -> Tensor:
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
        return torch.from_numpy(_aperture(self.size)[0])

    @cached_property
    def orders(self) -> int:
        """Highest angular frequency M of the harmonic rotation."""
        if self._given_orders is not None:
            return self._given_orders
        spectrum = self._polar_spectrum
        rim = spectrum[:, :, int(0.9 * spectrum.shape[2]) :, 1:]
        energy = torch.cumsum(rim.abs().square().sum((0, 1, 2)), 0)
        return int((energy < _RIM_ENERGY * energy[-1]).sum()) + 1

    @cached_property
    def spectrum(self) -> Tensor:
        """Polar Fourier coefficients c_m(r), complex128, (face, channel, ring, M + 1).

        A face at the polar angle φ is Re Σ_m c_m(r) exp(imφ).
        """
        return self._polar_spectrum[..., : self.orders + 1].to(torch.complex128)

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
    def _polar_spectrum(self) -> Tensor:
        few = np.linspace(0, len(self.faces) - 1, _FEWER).astype(int)
        return polar_spectrum(torch.from_numpy((self.faces.some(few) if self.streams else self.faces).images))

    @lru_cache(maxsize=4)  # noqa: B019 - one stimulus lives as long as its study
    def _operator(self, dtype: torch.dtype, device: str) -> "_Harmonic | _Bilinear":
        if self.rotation == "harmonic":
            return _Harmonic(self.spectrum, self.size, dtype, device)
        return _Bilinear(torch.from_numpy(self.faces.images), dtype, device)

    @lru_cache(maxsize=4)  # noqa: B019
    def _noise(self, dtype: torch.dtype, device: str) -> Tensor:
        return torch.from_numpy(self.faces.noise).flatten(2)[..., self.aperture].to(device, dtype)


def polar_spectrum(images: Tensor) -> Tensor:
    """Resample images on a polar grid and take the Fourier series over the polar angle.

    Parameters
    ----------
    images : Tensor, float32, shape (face, channel, size, size)

    Returns
    -------
    Tensor, complex64, shape (face, channel, ring, order)
        Coefficients c_m(r) of Re Σ_m c_m(r) exp(i m φ), rings half a pixel apart from the centre to the aperture's
        rim, orders 0 to size; φ is measured counter-clockwise from the right.
    """
    size = images.shape[-1]
    radius = torch.arange(_rings(size), dtype=torch.float64) * _RING_SPACING
    phi = torch.arange(4 * size, dtype=torch.float64) * (2 * torch.pi / (4 * size))
    points = torch.stack([radius[:, None] * phi.cos(), -radius[:, None] * phi.sin()], -1)  # x right, y down
    points = (points / ((size - 1) / 2)).float()
    spectra = []
    for block in images.split(64):
        polar = torch.nn.functional.grid_sample(
            block, points.expand(len(block), *points.shape), "bicubic", "border", align_corners=True
        )
        spectra.append(torch.fft.rfft(polar, norm="forward")[..., : size + 1])
    spectrum = torch.cat(spectra)
    spectrum[..., 1:] *= 2
    return spectrum


class _Harmonic:
    """Synthesis of aperture pixels from the polar spectrum, ring interval by ring interval.

    Between two neighbouring rings the image is interpolated linearly in the radius, and its Fourier series is evaluated
    at each pixel's own polar angle. Sorted by radius, the pixels of one interval need two rings only: one small matrix
    product an interval, and no interpolation over the polar angle.
    """

    def __init__(self, spectrum: Tensor, size: int, dtype: torch.dtype, device: str) -> None:
        _, x, y = _aperture(size)
        radius, phi = np.hypot(x, y) / _RING_SPACING, np.arctan2(y, x)
        orders = np.arange(spectrum.shape[-1])
        interval = np.minimum(radius.astype(int), spectrum.shape[2] - 2)
        self.orders = torch.from_numpy(orders).to(device)
        self.dtype = dtype
        self.shape = spectrum.shape[2], 2 * len(orders)
        self.spectrum = torch.view_as_real(spectrum).to(device, dtype).contiguous()
        self.blocks = []
        for ring in range(spectrum.shape[2] - 1):
            inside = np.flatnonzero(interval == ring)
            if len(inside):
                # Re(c exp(i m phi)) = Re(c) cos(m phi) - Im(c) sin(m phi)
                wave = np.exp(-1j * orders * phi[inside, None]).view(np.float64)
                outer = (radius[inside] - ring)[:, None]
                block = np.concatenate([(1 - outer) * wave, outer * wave], 1).T
                self.blocks.append((ring, inside[0], inside[-1] + 1, torch.from_numpy(block).to(device, dtype)))
        self.n_pixels = len(x)

    def pixels(self, faces: Tensor, angles: Tensor, tangents: bool) -> Tensor:
        phase = torch.exp(-1j * angles[:, None] * self.orders)
        if tangents:
            phase = phase * (-1j * self.orders)
        spectrum = torch.view_as_complex(self.spectrum[faces])
        return self.synthesise(spectrum * phase.to(spectrum.dtype)[:, None, None, :])

    def product(self, faces: Tensor, angles: Tensor, tangents: bool) -> Tensor:
        pairs = torch.cartesian_prod(torch.arange(len(angles), device=faces.device), faces).reshape(-1, 2)
        return self.pixels(pairs[:, 1], angles[pairs[:, 0]], tangents).unflatten(0, (len(angles), len(faces)))

    def synthesise(self, spectrum: Tensor) -> Tensor:
        """Return pixels (pair, channel, pixel) of spectra (pair, channel, ring, M + 1)."""
        real = torch.view_as_real(spectrum).flatten(-2).flatten(0, 1)  # (pair x channel, ring, 2 (M + 1))
        values = real.new_empty(len(real), self.n_pixels)
        for ring, first, last, block in self.blocks:
            torch.mm(real[:, ring : ring + 2].flatten(1), block, out=values[:, first:last])
        return values.unflatten(0, (len(spectrum), -1))

    def adjoint(self, weights: Tensor) -> Tensor:
        projected = weights.new_zeros(*weights.shape[:-1], *self.shape, dtype=self.dtype)
        for ring, first, last, block in self.blocks:
            part = weights[..., first:last].to(self.dtype) @ block.T
            projected[..., ring : ring + 2, :] += part.unflatten(-1, (2, -1))
        # Σ Re(c) a + Im(c) b = Re(c (a - i b))
        return torch.view_as_complex(projected.unflatten(-1, (-1, 2)).contiguous()).conj()


class _Bilinear:
    """Bilinear sampling of the turned pixel grid, by gathering four neighbours, with its exact derivative."""

    def __init__(self, images: Tensor, dtype: torch.dtype, device: str) -> None:
        _, x, y = _aperture(images.shape[-1])
        self.x, self.y = (torch.from_numpy(v).to(device) for v in (x, y))
        self.size = images.shape[-1]
        self.images = images.flatten(2).to(device, dtype)

    def pixels(self, faces: Tensor, angles: Tensor, tangents: bool) -> Tensor:
        corner, *where = (v[:, None] for v in self._where(angles))
        corner, upright = corner.expand(-1, self.images.shape[1], -1), self.images[faces]
        corners = (upright.gather(2, corner + step) for step in (0, 1, self.size, self.size + 1))
        return self._interpolate(*corners, *where, tangents)

    def product(self, faces: Tensor, angles: Tensor, tangents: bool) -> Tensor:
        upright = self.images[faces]
        turned = []
        for corner, *where in zip(*self._where(angles), strict=True):
            corners = (upright[..., corner + step] for step in (0, 1, self.size, self.size + 1))
            turned.append(self._interpolate(*corners, *where, tangents))
        return torch.stack(turned)

    def _where(self, angles: Tensor) -> tuple[Tensor, ...]:
        """For every angle and pixel: the upper left neighbour, how far right and down of it, and x, y, upright."""
        cos, sin = angles.cos()[:, None], angles.sin()[:, None]
        x, y = self.x * cos + self.y * sin, self.y * cos - self.x * sin
        column, row = x + (self.size - 1) / 2, (self.size - 1) / 2 - y
        left, top = column.floor().clamp(max=self.size - 2), row.floor().clamp(max=self.size - 2)
        corner = (top * self.size + left).long()
        return corner, *(v.to(self.images.dtype) for v in (column - left, row - top, x, y))

    @staticmethod
    def _interpolate(a: Tensor, b: Tensor, c: Tensor, d: Tensor, right: Tensor, down: Tensor, x: Tensor, y: Tensor,
                     tangents: bool) -> Tensor:  # fmt: skip
        if not tangents:
            return (1 - down) * ((1 - right) * a + right * b) + down * ((1 - right) * c + right * d)
        along_columns = (1 - down) * (b - a) + down * (d - c)
        along_rows = (1 - right) * (c - a) + right * (d - b)
        return along_columns * y + along_rows * x  # as the face turns, d column / dθ = y and d row / dθ = x


def _rings(size: int) -> int:
    return round((size / 2 - 1) / _RING_SPACING) + 1


@lru_cache(maxsize=8)
def _aperture(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # One pixel less than the inscribed circle, so that no rotation asks for a pixel outside the image.
    along = np.arange(size) - (size - 1) / 2
    x, y = (v.ravel() for v in np.meshgrid(along, -along))
    radius = np.hypot(x, y)
    inside = np.flatnonzero(radius <= size / 2 - 1)
    inside = inside[np.argsort(radius[inside], kind="stable")]
    return inside, x[inside], y[inside]
