"""What can go wrong for a user, as one small tree.

OvsamError
├── InputError            a flag, file or folder the user gave (exit 2)
│   └── VocabularyError   names, synonyms or text embeddings (exit 2)
├── CheckpointError       weights missing, corrupt or unreachable (exit 4)
├── DeviceError           the device or its memory (exit 1)
├── OutputError           the output folder: not writable, full, locked (exit 1)
├── TooManyFailuresError  more images failed than the user allows (exit 1)
└── ImageError            one image; recorded in errors.jsonl, the run goes on (exit 3 at the end)

Every message says what was wrong, where (file, index), what was expected and what to do.
Exit codes are given by `cli/console.py`, not here.
"""


class OvsamError(Exception):
    """Base class of every error that a user can cause and mend."""


class InputError(OvsamError):
    """A flag, file or folder given by the user is missing or malformed."""


class VocabularyError(InputError):
    """A vocabulary or its text embeddings cannot be used as they are."""


class CheckpointError(OvsamError):
    """Weights are missing, corrupt, of another layout, or cannot be downloaded."""


class DeviceError(OvsamError):
    """The chosen device is absent or out of memory."""


class OutputError(OvsamError):
    """The output folder cannot be written, is full, or belongs to something else."""


class TooManyFailuresError(OvsamError):
    """More images of a run failed than its `--max-failures` allows."""


class ImageError(OvsamError):
    """One image cannot be labelled.

    Attributes:
        reason: short class of the failure, such as `truncated` or `not_an_image`.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason
