"""Procedural pictures for floors, walls, facades, ground and sky: albedo as photographs have it.

Every picture is (SIZE, SIZE, 3) float32 in [0, 1], sRGB, and tiles without a seam; the sky is
(SIZE // 2, SIZE, 3) and linear.
"""

import colorsys
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Range = tuple[float, float]

SIZE = 512  # pixels a side


def spectral_noise(
    rng: np.random.Generator, exponent: float, *, stretch: Range = (1.0, 1.0)
) -> FloatArray:
    """(SIZE, SIZE) periodic noise of unit variance with a 1 / f^exponent amplitude spectrum.

    Args:
        rng: source of randomness.
        exponent: 0 is white, 1 is pink, 2 is cloudy.
        stretch: (rows, columns) factors on the frequency; a larger one keeps that direction smooth.
    """
    rows = np.fft.fftfreq(SIZE)[:, None] * SIZE * stretch[0]
    columns = np.fft.rfftfreq(SIZE)[None, :] * SIZE * stretch[1]
    radius = np.sqrt(rows**2 + columns**2)
    radius[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((SIZE, SIZE))) / radius**exponent
    spectrum[0, 0] = 0.0
    noise = np.fft.irfft2(spectrum, s=(SIZE, SIZE))
    return np.asarray(noise / (noise.std() + 1e-9), dtype=np.float32)


def random_color(
    rng: np.random.Generator, hue: Range, saturation: Range, value: Range
) -> FloatArray:
    """(3,) sRGB color drawn uniformly from ranges of hue (turns), saturation and value."""
    color = colorsys.hsv_to_rgb(
        float(rng.uniform(*hue)) % 1.0, float(rng.uniform(*saturation)), float(rng.uniform(*value))
    )
    return np.array(color, dtype=np.float32)


def _finish(albedo: npt.NDArray[np.floating], rng: np.random.Generator) -> FloatArray:
    # Every real surface has dirt (slow) and grain (fast).
    stain = 1 + rng.uniform(0.02, 0.08) * spectral_noise(rng, 1.6)
    grain = 1 + rng.uniform(0.01, 0.05) * spectral_noise(rng, 0.3)
    dirty = np.clip(albedo * (stain * grain)[..., None], 0.02, 0.97)
    return np.asarray(dirty, dtype=np.float32)


def plaster(rng: np.random.Generator) -> FloatArray:
    """Painted wall: pale or colored, faint roller marks."""
    if rng.uniform() < 0.65:
        color = random_color(rng, (0.02, 0.2), (0.0, 0.25), (0.65, 0.95))
    else:
        color = random_color(rng, (0.0, 1.0), (0.1, 0.55), (0.35, 0.85))
    noise = 0.02 * spectral_noise(rng, 0.8)
    return _finish(color + noise[..., None], rng)


def wallpaper(rng: np.random.Generator) -> FloatArray:
    """Stripes or a small repeated motif in two near tones."""
    first = random_color(rng, (0.0, 1.0), (0.05, 0.5), (0.4, 0.9))
    second = np.clip(first * rng.uniform(0.7, 1.25) + rng.normal(0, 0.05, 3), 0, 1)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    repeats = int(rng.integers(2, 12))
    if rng.uniform() < 0.5:
        wave = np.sin(2 * np.pi * repeats * columns + rng.uniform(0, 6))
    else:
        motif = np.sin(2 * np.pi * repeats * columns) * np.sin(2 * np.pi * repeats * rows)
        wave = motif + 0.5 * np.cos(4 * np.pi * repeats * (rows + columns))
    mix = 1 / (1 + np.exp(-8 * (wave - rng.uniform(-0.4, 0.6))))
    return _finish(first * (1 - mix[..., None]) + second * mix[..., None], rng)


def planks(rng: np.random.Generator) -> FloatArray:
    """Wooden boards along the rows, each with its own tone and grain."""
    base = random_color(rng, (0.04, 0.11), (0.2, 0.65), (0.25, 0.75))
    boards = int(rng.choice((4, 6, 8, 12)))
    width = SIZE // boards
    grain = spectral_noise(rng, 1.1, stretch=(1.0, 14.0))
    fine = spectral_noise(rng, 0.6, stretch=(1.0, 25.0))
    albedo = np.empty((SIZE, SIZE, 3), dtype=np.float32)
    contrast = float(rng.uniform(0.03, 0.12))
    for board in range(boards):
        rows = slice(board * width, (board + 1) * width if board < boards - 1 else SIZE)
        shift = int(rng.integers(SIZE))
        tone = base * (1 + rng.normal(0, 0.09)) + rng.normal(0, 0.012, 3)
        pattern = np.roll(grain + 0.5 * fine, shift, axis=1)[rows]
        albedo[rows] = tone * (1 + contrast * pattern[..., None])
        albedo[rows.start : rows.start + 2] *= 0.5
        albedo[rows, shift : shift + 2] *= 0.55
    return _finish(albedo, rng)


def tiles(rng: np.random.Generator) -> FloatArray:
    """Square or oblong tiles with grout."""
    color = random_color(rng, (0.0, 1.0), (0.0, 0.35), (0.3, 0.92))
    other = color if rng.uniform() < 0.7 else random_color(rng, (0, 1), (0, 0.4), (0.15, 0.9))
    rows = int(rng.choice((2, 4, 4, 8, 16)))
    columns = rows if rng.uniform() < 0.7 else max(1, rows // 2)
    return _finish(_lay_blocks(rng, (color, other), (rows, columns), is_shifted=False), rng)


def bricks(rng: np.random.Generator) -> FloatArray:
    """Brickwork, red to gray."""
    color = random_color(rng, (0.0, 0.09), (0.15, 0.6), (0.35, 0.75))
    other = np.clip(color * rng.uniform(0.8, 1.1), 0, 1).astype(np.float32)
    rows = int(rng.choice((8, 12, 16)))
    return _finish(_lay_blocks(rng, (color, other), (rows, rows // 3), is_shifted=True), rng)


def _lay_blocks(
    rng: np.random.Generator,
    colors: tuple[FloatArray, FloatArray],
    counts: tuple[int, int],
    *,
    is_shifted: bool,
) -> FloatArray:
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    height, width = SIZE / counts[0], SIZE / counts[1]
    row = (rows // height).astype(int) % counts[0]
    moved = columns + (row % 2) * width / 2 * is_shifted
    column = (moved // width).astype(int) % counts[1]
    tones = 1 + rng.uniform(0.01, 0.1) * rng.standard_normal(counts)
    checker = ((row + column) % 2)[..., None]
    albedo = np.where(checker, colors[0], colors[1]) * tones[row, column][..., None]
    joint = max(1.5, 0.02 * height)
    grout = (rows % height < joint) | (moved % width < joint)
    gray = random_color(rng, (0.05, 0.15), (0.0, 0.15), (0.3, 0.8))
    marble = 1 + rng.uniform(0.0, 0.08) * spectral_noise(rng, 1.3)
    return np.where(grout[..., None], gray, albedo * marble[..., None]).astype(np.float32)


def carpet(rng: np.random.Generator) -> FloatArray:
    """Woven or shaggy floor covering."""
    color = random_color(rng, (0.0, 1.0), (0.05, 0.5), (0.2, 0.75))
    pile = spectral_noise(rng, float(rng.uniform(0.0, 0.6)))
    return _finish(color * (1 + rng.uniform(0.06, 0.2) * pile[..., None]), rng)


def grass(rng: np.random.Generator) -> FloatArray:
    """Lawn, fresh to dry."""
    green = random_color(rng, (0.17, 0.3), (0.35, 0.7), (0.25, 0.5))
    dry = random_color(rng, (0.1, 0.16), (0.3, 0.5), (0.35, 0.6))
    patches = 1 / (1 + np.exp(-2 * spectral_noise(rng, 1.4) - rng.uniform(-2, 1.5)))
    mixed = dry * (1 - patches[..., None]) + green * patches[..., None]
    return _finish(mixed * (1 + 0.25 * spectral_noise(rng, 0.25)[..., None]), rng)


def asphalt(rng: np.random.Generator) -> FloatArray:
    """Road, concrete or gravel."""
    color = random_color(rng, (0.05, 0.65), (0.0, 0.12), (0.2, 0.62))
    grain = rng.uniform(0.05, 0.2) * spectral_noise(rng, 0.2) + 0.08 * spectral_noise(rng, 1.2)
    return _finish(color * (1 + grain[..., None]), rng)


def soil(rng: np.random.Generator) -> FloatArray:
    """Sand, earth or snow."""
    if rng.uniform() < 0.2:
        color = random_color(rng, (0.55, 0.65), (0.0, 0.08), (0.8, 0.95))
    else:
        color = random_color(rng, (0.06, 0.13), (0.15, 0.5), (0.35, 0.8))
    relief = 0.1 * spectral_noise(rng, 0.9) + 0.06 * spectral_noise(rng, 0.2)
    return _finish(color * (1 + relief[..., None]), rng)


def facade(rng: np.random.Generator) -> FloatArray:
    """House front with rows of windows; one picture is about 6 m wide."""
    albedo = (plaster, bricks, tiles, plaster)[int(rng.integers(4))](rng)
    count = int(rng.integers(2, 5))
    cell = SIZE // count
    frame = random_color(rng, (0.0, 1.0), (0.0, 0.4), (0.2, 0.95))
    width, height = rng.uniform(0.35, 0.7), rng.uniform(0.4, 0.75)
    for row in range(count):
        for column in range(count):
            top = int(row * cell + cell * (1 - height) / 2)
            left = int(column * cell + cell * (1 - width) / 2)
            bottom, right = top + int(cell * height), left + int(cell * width)
            albedo[top - 4 : bottom + 4, left - 4 : right + 4] = frame
            pane = random_color(rng, (0.5, 0.65), (0.05, 0.4), (0.08, 0.6))
            shade = np.linspace(0.7, 1.3, bottom - top, dtype=np.float32)[:, None, None]
            albedo[top:bottom, left:right] = np.clip(pane * shade, 0, 1)
            albedo[top:bottom, (left + right) // 2 - 2 : (left + right) // 2 + 2] = frame
    return albedo


Painter = Callable[[np.random.Generator], FloatArray]
FLOORS: tuple[Painter, ...] = (planks, planks, planks, tiles, carpet, carpet, asphalt)
WALLS: tuple[Painter, ...] = (plaster, plaster, plaster, plaster, wallpaper, tiles, bricks, planks)
FENCES: tuple[Painter, ...] = (plaster, bricks, bricks, planks)
GROUNDS: tuple[Painter, ...] = (grass, grass, asphalt, asphalt, soil, tiles, bricks)


def paint(painters: tuple[Painter, ...], rng: np.random.Generator) -> FloatArray:
    """A picture by a random one of `painters`."""
    return painters[int(rng.integers(len(painters)))](rng)


def sky(rng: np.random.Generator) -> FloatArray:
    """(SIZE // 2, SIZE, 3) equirectangular sky, linear radiance, row 0 at the nadir.

    A gradient from haze to blue with clouds; below the horizon a dull ground.
    """
    elevation = np.linspace(-1, 1, SIZE // 2, dtype=np.float32)[:, None, None]
    zenith = random_color(rng, (0.55, 0.62), (0.25, 0.8), (0.45, 0.9))
    haze = random_color(rng, (0.05, 0.6), (0.0, 0.2), (0.75, 1.0))
    if rng.uniform() < 0.3:
        zenith = haze * float(rng.uniform(0.75, 1.0))
    up = np.clip(elevation, 0, 1) ** float(rng.uniform(0.35, 0.8))
    picture = haze * (1 - up) + zenith * up
    clouds = spectral_noise(rng, 1.7, stretch=(2.0, 1.0))[: SIZE // 2]
    cover = 1 / (1 + np.exp(-3 * (clouds - rng.uniform(-0.5, 2.0))))
    cloud = cover[..., None] * np.clip(elevation * 4, 0, 1)
    picture = picture * (1 - cloud) + float(rng.uniform(0.85, 1.1)) * cloud
    ground = random_color(rng, (0.08, 0.3), (0.1, 0.4), (0.15, 0.4))
    return np.where(elevation < 0, ground, picture).astype(np.float32)
