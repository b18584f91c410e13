"""Write `vocabularies/*.json` from the class lists that public packages carry.

    pip download --no-deps mmdet==3.3.0 mmsegmentation==1.2.2 -d WHEELS
    python scripts/make_vocabularies.py --wheels WHEELS --out vocabularies

The two wheels are opened as zip files and their lists read with `ast`; nothing of them is
imported. torchvision, open_clip and timm must be installed: their tables are read as files too.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ovsam_cli.vocabulary import clean_names, normalize_name

HERE = Path(__file__).parent
Row = dict[str, int | str | bool | list[str]]
MMDET = ("mmdet-3.3.0", "mmdet/evaluation/functional/class_names.py")
MMSEG = ("mmsegmentation-1.2.2", "mmseg/utils/class_names.py")

# Objects365 misspells these or shortens them beyond recognition; the output keeps its spelling.
OBJECTS365_TEXT = {
    "Trash bin Can": ["trash bin", "trash can"], "Bakset": ["basket"], "Ballon": ["balloon"],
    "Moniter/TV": ["monitor", "tv"], "Dinning Table": ["dining table"], "Canned": ["canned food"],
    "Cutting/chopping Board": ["cutting board", "chopping board"], "Soccer": ["soccer ball"],
    "Billards": ["billiards"], "Extention Cord": ["extension cord"], "Tong": ["tongs"],
    "Tennis": ["tennis ball"], "Hotair ballon": ["hot air balloon"], "Head Phone": ["headphones"],
    "Hamimelon": ["hami melon"], "Mushroon": ["mushroom"], "Campel": ["camel"],
    "Tape Measur/ Ruler": ["tape measure", "ruler"], "Formula 1 ": ["formula 1 car"],
    "Buttefly": ["butterfly"], "Noddles": ["noodles"],
    "Table Teniis paddle": ["table tennis paddle"],
    "Curling": ["curling stone"], "Table Tennis ": ["table tennis ball"], "Skiboard": ["ski"],
    "French": ["french horn"], "Extractor": ["range hood", "extractor hood"],
    "Washing Machine/Drying Machine": ["washing machine", "drying machine"],
}  # fmt: skip
# The class list repeats two names; both pairs are different classes of ImageNet.
IMAGENET_RENAMED = {744: "projectile", 836: "sunglass"}


def main() -> None:
    """Write every vocabulary and print how many categories and names each has."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheels", type=Path, required=True, help="folder with the two wheels")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    facts = json.loads((HERE / "vocabulary_facts.json").read_text())
    write(
        options.out,
        "coco",
        coco(facts["coco"]),
        "COCO 2017 instance categories with official ids (torchvision 0.29 "
        "models/_meta.py); name groups as in OpenSeg-style evaluation; 48/17 split of OVR-CNN",
        "CC-BY-4.0 (COCO annotations); BSD-3-Clause (torchvision)",
    )
    write(
        options.out,
        "lvis",
        lvis(facts["lvis_v1"], options.wheels),
        "LVIS v1 categories with official ids and spelling (list in mmdet 3.3.0); "
        "base = common and frequent, novel = rare",
        "CC-BY-4.0 (LVIS annotations); Apache-2.0 (mmdet)",
    )
    write(
        options.out,
        "imagenet1k",
        imagenet1k(),
        "ImageNet-1k class index order, names curated for CLIP (open_clip 3.3 "
        "zero_shot_metadata.py); id = class index + 1; 744 and 836 renamed to be distinct",
        "MIT (open_clip)",
    )
    write(
        options.out,
        "in21k",
        in21k(),
        "ImageNet-22k (fall 2011) synsets with WordNet lemmas (timm 1.0.31 "
        "data/_info); id = row + 1; repeated first lemmas are made distinct",
        "WordNet 3.0 licence (WORDNET-LICENSE.txt); Apache-2.0 (timm)",
    )
    write(
        options.out,
        "objects365",
        plain(options.wheels, MMDET, "objects365v2_classes", OBJECTS365_TEXT),
        "Objects365 v2 categories in the order and spelling of mmdet 3.3.0; synonyms "
        "mend the spelling",
        "CC-BY-4.0 (Objects365 annotations); Apache-2.0 (mmdet)",
    )
    write(
        options.out,
        "openimages",
        plain(options.wheels, MMDET, "oid_v6_classes", {}),
        "Open Images V6 boxable categories in the order of mmdet 3.3.0",
        "CC-BY-4.0 (Open Images annotations); Apache-2.0 (mmdet)",
    )
    write(
        options.out,
        "ade20k",
        plain(options.wheels, MMSEG, "ade_classes", {}),
        "ADE20K scene parsing categories, id = label value (list in mmsegmentation 1.2.2)",
        "BSD-3-Clause (ADE20K tools); Apache-2.0 (mmsegmentation)",
    )
    write(
        options.out,
        "voc",
        plain(options.wheels, MMDET, "voc_classes", {}),
        "PASCAL VOC object categories (list in mmdet 3.3.0)",
        "Apache-2.0 (mmdet)",
    )
    write(
        options.out,
        "demo",
        demo(),
        "Things that emoji sets and LVIS or COCO both name; plain names",
        "CC0-1.0",
    )


def coco(facts: dict[str, list[int] | list[str]]) -> list[Row]:
    names = assigned(package_file("torchvision", "models/_meta.py"), "_COCO_CATEGORIES")
    ids = {name: number for number, name in enumerate(names)}
    rows: list[Row] = []
    listed = [name for name in names if name not in {"__background__", "N/A"}]
    for index, (name, group) in enumerate(zip(listed, facts["reference_name_groups"], strict=True)):
        row: Row = {"id": ids[name], "name": name, "reference": group}
        row["text_names"] = list(dict.fromkeys([name, *str(group).split(",")]))
        if index in facts["base_indices_48"] or index in facts["novel_indices_17"]:
            row["base"] = index in facts["base_indices_48"]
        rows.append(row)
    return rows


def lvis(facts: dict[str, list[int]], wheels: Path) -> list[Row]:
    names = from_wheel(wheels, MMDET, "lvis_classes")
    heads = Counter(head(name) for name in names)
    rows: list[Row] = []
    for number, listed in enumerate(names, 1):
        frequency = next(
            letter
            for letter, key in {"r": "rare", "c": "common", "f": "frequent"}.items()
            if number in facts[f"{key}_category_ids"]
        )
        row: Row = {"id": number, "name": listed.replace("(stereo_", "(stero_")}
        row["frequency"], row["base"] = frequency, frequency != "r"
        own = list(clean_names(listed))
        if "(" in listed and heads[head(listed)] == 1:
            own = list(dict.fromkeys([*own, head(listed)]))
        if own != list(clean_names(str(row["name"]))):
            row["text_names"] = own
        if listed != row["name"]:
            row["reference"] = listed
        rows.append(row)
    return rows


def imagenet1k() -> list[Row]:
    names = assigned(package_file("open_clip", "zero_shot_metadata.py"), "IMAGENET_CLASSNAMES")
    synsets = package_file("timm", "data/_info/imagenet_synsets.txt").read_text().split()
    return [
        {"id": index + 1, "name": IMAGENET_RENAMED.get(index, name), "synset": synset}
        for index, (name, synset) in enumerate(zip(names, synsets, strict=True))
    ]


def in21k() -> list[Row]:
    info = package_file("timm", "data/_info")
    lemmas = table(info / "imagenet_synset_to_lemma.txt")
    definitions = table(info / "imagenet_synset_to_definition.txt")
    synsets = (info / "imagenet22k_synsets.txt").read_text().split()
    own = {synset: lemmas[synset].split(", ") for synset in synsets}
    first = Counter(normalize_name(own[synset][0]) for synset in synsets)
    whole = Counter(normalize_name(lemmas[synset]) for synset in synsets)
    taken = {name for name, count in first.items() if count == 1}
    rows: list[Row] = []
    for number, synset in enumerate(synsets, 1):
        name = own[synset][0]
        if first[normalize_name(name)] > 1:
            spare = (
                x
                for x in own[synset][1:]
                if normalize_name(x) not in taken and not first[normalize_name(x)]
            )
            name = next(spare, f"{name} ({synset})")
            taken.add(normalize_name(name))
        row: Row = {"id": number, "name": name, "synset": synset}
        texts = [normalize_name(lemma) for lemma in own[synset]]
        if whole[normalize_name(lemmas[synset])] > 1:  # only the meaning can tell these apart
            meaning = normalize_name(re.sub(r"\([^)]*\)|;.*", "", definitions[synset])).split()
            texts = [f"{texts[0]}, {' '.join(meaning[:12])}"]
        if texts != list(clean_names(name)):
            row["text_names"] = list(dict.fromkeys(texts))
        rows.append(row)
    return rows


def demo() -> list[Row]:
    lines = (HERE / "demo_concepts.tsv").read_text().splitlines()[1:]
    names: dict[str, None] = {}
    for line in lines:
        concept, lvis_name, coco_name = line.split("\t")
        names[coco_name or (head(lvis_name) if lvis_name else concept.replace("-", " "))] = None
    return [{"id": number, "name": name} for number, name in enumerate(names, 1)]


def plain(
    wheels: Path, source: tuple[str, str], function: str, texts: dict[str, list[str]]
) -> list[Row]:
    rows: list[Row] = []
    for number, name in enumerate(from_wheel(wheels, source, function), 1):
        row: Row = {"id": number, "name": name}
        if name in texts:
            row["text_names"] = texts[name]
        rows.append(row)
    return rows


def head(name: str) -> str:
    """`bat_(animal)` -> `bat`."""
    return normalize_name(name.partition("_(")[0])


def table(path: Path) -> dict[str, str]:
    return dict(line.split("\t", 1) for line in path.read_text().splitlines())


def package_file(package: str, path: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None, f"{package} is not installed"
    return Path(spec.origin).parent / path


def assigned(path: Path, variable: str) -> list[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == variable:
            return list(ast.literal_eval(node.value))
    raise SystemExit(f"{path}: no {variable}")


def from_wheel(wheels: Path, source: tuple[str, str], function: str) -> list[str]:
    wheel = next(wheels.glob(f"{source[0]}-*.whl"))
    tree = ast.parse(zipfile.ZipFile(wheel).read(source[1]))
    body = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == function).body
    returned = next(node for node in body if isinstance(node, ast.Return))
    assert returned.value is not None
    return list(ast.literal_eval(returned.value))


def write(folder: Path, name: str, rows: Sequence[Row], source: str, licence: str) -> None:
    head_lines = json.dumps({"source": source, "licence": licence}, indent=1)[:-2]
    body = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in rows)
    text = f'{head_lines},\n "categories": [\n{body}\n ]\n}}\n'
    (folder / f"{name}.json").write_text(text, encoding="utf-8")
    print(f"{name}: {len(rows)} categories, {len(text) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
