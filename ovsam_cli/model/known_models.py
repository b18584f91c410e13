"""Models that go by a name: what they consist of, and under which terms. Data only, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TINY_PATH = Path(__file__).parent.parent / "weights" / "tiny.safetensors"


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a model on the Hugging Face hub."""

    repo_id: str
    filename: str


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that goes by a name.

    Attributes:
        name: what `--model` takes.
        description: one line.
        path: the file or folder on this machine, or None.
    """

    name: str
    description: str
    path: Path | None


# The authors' repository; names unverified offline, so revisions are not pinned yet.
OVSAM_REPO = "HarborYuan/ovsam_models"
CLIP_FILE = HubFile("timm/resnet50x16_clip.openai", "open_clip_model.safetensors")
# The code they come from is under that licence; the repository itself states none.
OFFICIAL_NOTICE = (
    "Open-Vocabulary SAM weights by the paper's authors (huggingface.co/HarborYuan/ovsam_models):"
    " S-Lab License 1.0, NON-COMMERCIAL use only; they hold parts of OpenAI's CLIP (MIT) and Meta's"
    " SAM (Apache-2.0)."
)
OWN_NOTICE = (
    "Trained with ovsam by its owner, who says how it may be used; it holds parts of OpenAI's CLIP"
    " (MIT) and started from Meta's SAM (Apache-2.0)."
)
MODEL_FILES: dict[str, tuple[HubFile, ...]] = {
    "rn50x16": (
        HubFile(OVSAM_REPO, "sam2clip_vith_rn50x16.pth"),
        HubFile(OVSAM_REPO, "clip2sam_lvis_rn50x16.pth"),
        CLIP_FILE,
    ),
}
DESCRIPTIONS = {
    "tiny": "bundled, CPU, offline: for trying the tool, teaching and tests",
    "rn50x16": "the published Open-Vocabulary SAM (CLIP RN50x16), about 1.5 GB",
}
# Published checksums of files that other projects host.
KNOWN_SHA256 = {
    "RN50x16.pt": "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa",
    "sam_vit_h_4b8939.pth": "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
}
