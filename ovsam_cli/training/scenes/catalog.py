"""The 3D models of Debian's sweethome3d-furniture: where they are, what they are called, how big.

The package holds five `.sh3f` files; each is a zip of a `PluginFurnitureCatalog.properties` and of
OBJ models with their textures. `models.tsv` beside this module gives each catalog name the name
used in training and the place where such a thing stands; names that it lacks are not used
(switches, parking marks, composites such as "plate, glass and cutlery").
"""

import hashlib
import re
import shutil
import subprocess
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from ovsam_cli.errors import InputError, OutputError

Split = Literal["train", "val"]

PACKAGE_PATTERN = "sweethome3d-furniture_*.deb"
VAL_SHARE = 0.12  # of the models, never shown in training
MAX_OBJ_BYTES = 4_600_000  # a few trees are larger, and as slow as a whole room
_PROPERTY = re.compile(r"(\w+)#(\d+)\s*=\s*(.*)")
_UNICODE_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


@dataclass(frozen=True, slots=True)
class FurnitureModel:
    """One 3D model.

    Attributes:
        model_id: library and file, such as `Scopia/chair1`; unique.
        catalog_name: lower-case name in the catalog.
        name: category name in training.
        place: where such a thing stands; see the third column of `models.tsv`.
        obj_path: the OBJ file (y up).
        size: (width, depth, height) in meters, after rotation.
        rotation: 3x3 rows applied to the OBJ's axes before anything else.
        elevation: usual height over the floor in meters, 0 for most.
        creator: to be named with the model.
        license_name: licence of the library.
    """

    model_id: str
    catalog_name: str
    name: str
    place: str
    obj_path: Path
    size: tuple[float, float, float]
    rotation: tuple[float, ...]
    elevation: float
    creator: str
    license_name: str


def unpack_models(sources: Path) -> Path:
    """Unpack the furniture package of `sources` next to it, once, without root.

    Returns:
        Folder with one subfolder a library.

    Raises:
        InputError: `sources` holds no such package, or it cannot be read.
        OutputError: the folder cannot be written.
    """
    unpacked = sources / "sweethome3d-furniture"
    if (unpacked / "done").is_file():
        return unpacked
    packages = sorted(sources.glob(PACKAGE_PATTERN))
    if not packages:
        raise InputError(
            f"{sources}: no {PACKAGE_PATTERN}; get it with: apt-get download sweethome3d-furniture"
        )
    temporary = sources / "sweethome3d-furniture.part"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _unpack_deb(packages[-1], temporary / "deb")
        for archive in sorted((temporary / "deb").rglob("*.sh3f")):
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(temporary / archive.stem)
        shutil.rmtree(temporary / "deb")
        (temporary / "done").touch()
        temporary.rename(unpacked)
    except OSError as error:
        raise OutputError(
            f"{temporary}: cannot unpack {packages[-1].name} ({error}); "
            "free some space or choose another --sources"
        ) from error
    return unpacked


def _unpack_deb(package: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    if shutil.which("dpkg-deb"):
        done = subprocess.run(
            ["dpkg-deb", "-x", str(package), str(folder)], capture_output=True, text=True
        )
        if done.returncode == 0:
            return
    # A .deb is an `ar` archive: an 8-byte magic, then 60-byte headers and even-padded members.
    with package.open("rb") as stream:
        if stream.read(8) != b"!<arch>\n":
            raise InputError(f"{package}: not a Debian package; download it again")
        while header := stream.read(60):
            name, size = header[:16].decode().strip().rstrip("/"), int(header[48:58])
            if name.startswith("data.tar"):
                with tarfile.open(fileobj=stream, mode="r|*") as data:
                    data.extractall(folder, filter="data")
                return
            stream.seek(size + size % 2, 1)
    raise InputError(f"{package}: no data.tar inside; download it again")


def read_catalog(unpacked: Path) -> list[FurnitureModel]:
    """Every usable model of the unpacked libraries, sorted by `model_id`."""
    places = read_places()
    models: list[FurnitureModel] = []
    for library in sorted(path for path in unpacked.iterdir() if path.is_dir()):
        license_name, entries = _read_properties(library)
        for entry in entries:
            for name, place in places.get(entry["name"].lower(), ()):
                model = _build_model(library, entry, name, place, license_name)
                if model is not None and _has_textures(model.obj_path):
                    models.append(model)
    return sorted(models, key=lambda model: (model.model_id, model.place))


def read_places() -> dict[str, list[tuple[str, str]]]:
    """`models.tsv` as catalog name -> [(training name, place)]; a name may stand at two places."""
    table = resources.files("ovsam_cli.training.scenes").joinpath("models.tsv")
    places: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for line in table.read_text(encoding="utf-8").splitlines()[1:]:
        catalog_name, name, place = line.split("\t")
        places[catalog_name].append((name, place))
    return dict(places)


def _read_properties(library: Path) -> tuple[str, list[dict[str, str]]]:
    text = (library / "PluginFurnitureCatalog.properties").read_text(encoding="latin-1")
    entries: defaultdict[int, dict[str, str]] = defaultdict(dict)
    license_name = ""
    for line in text.splitlines():
        if line.startswith("license="):
            license_name = line.removeprefix("license=").split(" license")[0].strip()
        if match := _PROPERTY.match(line):
            value = _UNICODE_ESCAPE.sub(lambda code: chr(int(code[1], 16)), match[3]).strip()
            entries[int(match[2])][match[1]] = value
    return license_name, [entries[number] for number in sorted(entries)]


def _build_model(
    library: Path, entry: dict[str, str], name: str, place: str, license_name: str
) -> FurnitureModel | None:
    obj_path = library / entry["model"].lstrip("/")
    size = (float(entry["width"]), float(entry["depth"]), float(entry["height"]))
    # An umbrella is a hand's or a garden's, a bench a room's or a park's: size tells them apart.
    if max(size) > 130 if place == "top" else place == "street" and max(size) < 30:
        return None
    if not obj_path.is_file() or obj_path.stat().st_size > MAX_OBJ_BYTES:
        return None
    identity = "1 0 0 0 1 0 0 0 1"
    return FurnitureModel(
        model_id=f"{library.name}/{obj_path.stem}",
        catalog_name=entry["name"].lower(),
        name=name,
        place=place,
        obj_path=obj_path,
        size=(size[0] / 100, size[1] / 100, size[2] / 100),
        rotation=tuple(float(value) for value in entry.get("modelRotation", identity).split()),
        elevation=float(entry.get("elevation", 0)) / 100,
        creator=entry.get("creator", "unknown"),
        license_name=license_name,
    )


def _has_textures(obj_path: Path) -> bool:
    # A model that names a missing texture renders in loud pink.
    for material_path in obj_path.parent.glob("*.mtl"):
        for line in material_path.read_text(encoding="latin-1").splitlines():
            words = line.split(maxsplit=1)
            if len(words) == 2 and words[0].lower().startswith("map_"):
                if (
                    not (obj_path.parent / words[1].strip().split(" ")[-1]).is_file()
                    and not (obj_path.parent / words[1].strip()).is_file()
                ):
                    return False
    return True


def select_models(models: list[FurnitureModel], split: Split) -> list[FurnitureModel]:
    """The models of a split: a model is held out or not by a hash of its id, for ever.

    A place with too few held-out models keeps its scenes poorer in `val`, never mixed.
    """
    return [model for model in models if _is_held_out(model.model_id) == (split == "val")]


def _is_held_out(model_id: str) -> bool:
    digest = hashlib.sha256(model_id.encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < VAL_SHARE


def write_attributions(sources: Path, out: Path) -> Path:
    """Write who made each model that scenes may show, and under which licence.

    Returns:
        Path of the written `out/attributions.tsv` (model, name, creator, licence, split).
    """
    models = read_catalog(unpack_models(sources))
    path = out / "attributions.tsv"
    try:
        out.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(_iter_attribution_lines(models)), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error}); choose another --out") from error
    return path


def _iter_attribution_lines(models: list[FurnitureModel]) -> Iterator[str]:
    yield "model\tname\tcreator\tlicence\tsplit\n"
    for model_id, model in sorted({model.model_id: model for model in models}.items()):
        split = "val" if _is_held_out(model_id) else "train"
        fields = (model_id, model.catalog_name, model.creator, model.license_name, split)
        yield "\t".join(fields) + "\n"
