"""From layers of cells to the pictures that microscope and camera make. Knows no biology."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

Array = NDArray[np.float64]
Rng = np.random.Generator

WAVELENGTH_UM = 0.64  # the transmitted laser
EMISSION_UM = 0.61
MEDIUM_INDEX = 1.33
OBJECTIVE_NA = 1.2
CONDENSER_NA = 0.4
MAX_COUNT = 4095  # 12 bits


def transmitted_light(rng: Rng, layers: list[tuple[float, Array]], px: float) -> NDArray[np.uint16]:
    """Image weak phase layers, partially coherent and slightly oblique, and take the picture.

    A layer defocused by z turns phase into contrast 2 sin(pi lambda z f^2) (Guigay 1977, Optik
    49:121), which for small z is the Laplacian of Teague 1983, doi:10.1364/JOSA.73.001434. The
    condenser's angles shift a defocused layer's images apart: a blur proportional to abs(z).

    Parameters
    ----------
    rng
        Of light, lines and noise.
    layers
        Defocus in um, and index difference x thickness in um as (Y, X).
    px
        Side of a pixel in um.

    Returns
    -------
    numpy.ndarray
        (Y, X) camera counts, 12 bits in uint16.
    """
    shape = layers[0][1].shape
    fy, fx = np.meshgrid(fft.fftfreq(shape[0], px), fft.rfftfreq(shape[1], px), indexing="ij")
    f2 = fy**2 + fx**2
    cutoff = (OBJECTIVE_NA + CONDENSER_NA) / WAVELENGTH_UM
    shear = 2j * np.pi * 0.02 * (fx + 0.5 * fy)  # um, the oblique part
    spectrum = np.zeros(f2.shape, complex)
    for z, path in layers:
        blur = abs(z) * CONDENSER_NA / (2 * MEDIUM_INDEX)
        transfer = 2 * np.sin(np.pi * WAVELENGTH_UM / MEDIUM_INDEX * z * f2) + shear
        phase = fft.rfft2(2 * np.pi / WAVELENGTH_UM * path)
        spectrum += transfer * np.exp(-2 * (np.pi * blur) ** 2 * f2) * phase
    contrast = fft.irfft2(spectrum * np.exp(-2 * f2 / cutoff**2), shape)

    down, across = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    tilt_y, tilt_x, bowl = rng.normal(0, 0.04, 3)
    light = 1 + tilt_y * down + tilt_x * across - abs(bowl) * (down**2 + across**2)
    lines = 1 + 0.006 * rng.normal(size=(shape[0], 1))  # the laser's flicker, line by line
    electrons = 2400 * light * lines * (1 + contrast).clip(min=0.05)
    return _camera(rng, electrons, gain=0.65, read_noise=8.0, offset=0.0)


def fluorescence(
    rng: Rng, glow: Array, haze: Array, inside: NDArray[np.bool_], px: float
) -> NDArray[np.uint16]:
    """Blur by the microscope's spot, add haze from other depths, and take the picture.

    The spot is a Gaussian of sigma 0.22 lambda / NA (Zhang et al. 2007, doi:10.1364/AO.46.001819).

    Parameters
    ----------
    rng
        Of the noise.
    glow, haze
        (Y, X), brightness in and out of focus.
    inside
        (Y, X), where there is a cell, which glows faintly all over.
    px
        Side of a pixel in um.

    Returns
    -------
    numpy.ndarray
        (Y, X) camera counts, 12 bits in uint16.
    """
    sharp = gaussian_filter(glow, 0.22 * EMISSION_UM / OBJECTIVE_NA / px)
    far = gaussian_filter(haze, 0.7 / px) + gaussian_filter(glow, 1.2 / px)
    cytoplasm = gaussian_filter(inside.astype(float), 0.6 / px)
    electrons = 1200 * (sharp + far) + 25 * cytoplasm + 10
    return _camera(rng, electrons, gain=1.0, read_noise=4.0, offset=100.0)


def _camera(
    rng: Rng, electrons: Array, gain: float, read_noise: float, offset: float
) -> NDArray[np.uint16]:
    """Poisson and read noise, then counts clipped to 12 bits."""
    noisy = rng.poisson(electrons) + rng.normal(0.0, read_noise, electrons.shape)
    return np.rint(offset + gain * noisy).clip(0, MAX_COUNT).astype(np.uint16)
