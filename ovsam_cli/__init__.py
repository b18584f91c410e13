"""Label images with Open-Vocabulary SAM: a mask and a name for every prompted object.

The public names are resolved on first use, so that `import ovsam_cli` (and with it
`ovsam --help`) loads neither torch nor numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ovsam_cli.errors import OvsamError
    from ovsam_cli.labelling.options import LabelOptions, LabelRequest
    from ovsam_cli.labelling.python_api import label_image, load_model, make_prompts
    from ovsam_cli.labelling.run import label_images
    from ovsam_cli.structures import Detections, Prompts

__version__ = "0.1.0"
__all__ = [
    "Detections",
    "LabelOptions",
    "LabelRequest",
    "OvsamError",
    "Prompts",
    "__version__",
    "label_image",
    "label_images",
    "load_model",
    "make_prompts",
]


def __getattr__(name: str) -> object:
    homes = {
        "Detections": "ovsam_cli.structures",
        "LabelOptions": "ovsam_cli.labelling.options",
        "LabelRequest": "ovsam_cli.labelling.options",
        "OvsamError": "ovsam_cli.errors",
        "Prompts": "ovsam_cli.structures",
        "label_image": "ovsam_cli.labelling.python_api",
        "label_images": "ovsam_cli.labelling.run",
        "load_model": "ovsam_cli.labelling.python_api",
        "make_prompts": "ovsam_cli.labelling.python_api",
    }
    if name not in homes:
        raise AttributeError(f"module 'ovsam_cli' has no attribute {name!r}")
    return getattr(import_module(homes[name]), name)
