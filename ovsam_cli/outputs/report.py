"""`report.html`: what a run came to, as one page that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ovsam_cli.outputs.files import write_whole_file
from ovsam_cli.outputs.json_values import JsonValue
from ovsam_cli.outputs.report_page import iter_report
from ovsam_cli.outputs.report_sample import RunStatistics, SampleChooser
from ovsam_cli.outputs.report_thumbnails import iter_thumbnails
from ovsam_cli.structures import ImageResult


class ReportWriter:
    """Gathers results one by one, then writes the page; memory does not grow with the run.

    Equal results and records give equal bytes.

        report = ReportWriter(names=names, num_images=len(records))
        for result in journal.iter_results(records):
            report.add(result)
        report.write(out / "report.html", record)

    Args:
        names: category names by category_id.
        num_images: of the whole run.
        apply_exif: whether the run turned photos upright by their tag.
    """

    def __init__(
        self, *, names: Mapping[int, str], num_images: int, apply_exif: bool = True
    ) -> None:
        self._names = names
        self._apply_exif = apply_exif
        self._statistics = RunStatistics()
        self._chooser = SampleChooser(num_images)

    def add(self, result: ImageResult) -> None:
        """Take one result, failed ones as well."""
        self._statistics.add(result)
        self._chooser.add(result)

    def write(self, path: Path, record: Mapping[str, JsonValue]) -> None:
        """Read the images of the sample again and write the page.

        Args:
            path: file to make or replace.
            record: of the run, as in `run.json`.

        Raises:
            OutputError: the file cannot be written. An image that is gone is no failure.
        """
        samples = self._chooser.choose()
        pieces = iter_report(
            self._statistics,
            [*zip(samples, iter_thumbnails(samples, apply_exif=self._apply_exif), strict=True)],
            self._names,
            record,
        )
        with write_whole_file(path) as file:
            # File names that are not UTF-8 hold surrogates, which no page can show.
            file.writelines(piece.encode("utf-8", "replace") for piece in pieces)
