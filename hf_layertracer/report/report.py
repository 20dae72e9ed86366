"""The report as files: saved next to a model, loaded from a folder or from the Hub."""

from __future__ import annotations

import io
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ..errors import LayerTracerError, ReportNotFoundError
from ..files import write_atomically
from ..records import SCHEMA_VERSION, Diagnosis, ReportData
from ..records.version1 import upgrade
from ..strict_json import parse_json
from ..text import one_line


if TYPE_CHECKING:
    from huggingface_hub import CommitInfo
    from matplotlib.figure import Figure
    from pandas import DataFrame

REPORT_FILE = "layertracer_report.json"
FIGURE_FILE = "layertracer_report.png"
CARD_FILE = "README.md"


# huggingface_hub warns of a card without metadata, and the tag lets the Hub find it.
_NEW_CARD = "---\ntags:\n- layertracer\n---\n"


class LayerTracerReport(ReportData):
    """What a diagnosis measured, what was decided and what came of it.

    The fields are those of [`~records.ReportData`].

    Example:

    ```python
    >>> from hf_layertracer import LayerTracerReport
    >>> from hf_layertracer.viewer.space import example_reports
    >>> report = LayerTracerReport.load(example_reports() / "gemma-3-270m")
    >>> report
    LayerTracerReport(google/gemma-3-270m: 18 layers, 144 probes, 1 diagnosis, plan freeze-deep)
    >>> report.sensitivity.vulnerable_layer, report.task_particle.layer
    (17, 13.0)
    >>> report.to_pandas().nlargest(3, "layer_sensitivity")["layer"].tolist()
    [17, 1, 5]

    ```
    """

    def __repr__(self) -> str:
        counts = [(self.num_layers, "layer", "layers"), (self.probes.count, "probe", "probes")]
        counts += [(len(self.diagnoses), "diagnosis", "diagnoses")]
        parts = [f"{number} {one if number == 1 else several}" for number, one, several in counts]
        parts.append(f"plan {self.plan.strategy}" if self.plan else "no plan")
        return f"{type(self).__name__}({one_line(self.model.name, 80)}: {', '.join(parts)})"

    __str__ = __repr__

    def save(self, directory: str | Path) -> None:
        """Writes `layertracer_report.json`, its picture and its section of `README.md`, each whole or not at all.

        Args:
            directory (`str` or `Path`): Made where it does not exist. The rest of an existing `README.md` stays.

        Raises:
            LayerTracerError: The folder cannot be written to, or the disk is full; earlier files survive.
        """
        from .card_section import put_section
        from .markdown import report_section

        directory = Path(directory)
        # What was measured comes first: a picture that cannot be drawn must not cost it.
        self.save_json(directory)
        files = self.files()
        card = directory / CARD_FILE
        try:
            text = card.read_bytes().decode() if card.is_file() else _NEW_CARD
        except (OSError, UnicodeDecodeError) as error:
            raise LayerTracerError(f"Could not read {card}: {error}.") from error
        files[CARD_FILE] = put_section(text, report_section(self)).encode()
        for name, content in files.items():
            write_atomically(directory / name, content)

    def save_or_keep(self, directory: str | Path) -> None:
        """[`LayerTracerReport.save`], but where that fails the measurements are kept in a temporary folder.

        Args:
            directory (`str` or `Path`): As in `save`.

        Raises:
            LayerTracerError: Something could not be written; the message says where the measurements lie.
        """
        try:
            self.save(directory)
        except Exception as error:  # whatever fails, minutes of measuring are not lost to it
            kept = Path(tempfile.mkdtemp(prefix="layertracer-"))
            try:
                self.save_json(kept)
            except LayerTracerError:
                kept.rmdir()
                raise error from None
            raise LayerTracerError(f"{error} The measurements are kept: {kept / REPORT_FILE}.") from error

    def save_json(self, directory: str | Path) -> None:
        """Writes `layertracer_report.json` alone.

        Args:
            directory (`str` or `Path`): Made where it does not exist.

        Raises:
            LayerTracerError: The folder cannot be written to, or the disk is full; an earlier file survives.
        """
        write_atomically(Path(directory) / REPORT_FILE, self.to_json())

    def files(self) -> dict[str, bytes]:
        """The report and its picture as they stand in files.

        Returns:
            `dict[str, bytes]`: Contents by file name.
        """
        # matplotlib takes a while to import: only those who save a report wait for it.
        from .figure import draw_report

        picture = io.BytesIO()
        draw_report(self).savefig(picture, format="png")
        return {REPORT_FILE: self.to_json(), FIGURE_FILE: picture.getvalue()}

    def to_json(self) -> bytes:
        """The content of `layertracer_report.json`."""
        return (self.model_dump_json(indent=1) + "\n").encode()

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> CommitInfo:
        """Pushes the report with its picture and a card, in one commit.

        Args:
            repo_id (`str`): The repository, made where it does not exist.
            kwargs: As in [`push_report`], such as `repo_type="dataset"`, `private=True` or `create_pr=True`.

        Returns:
            `CommitInfo`: The commit.

        Raises:
            HubError: The Hub or the way to it failed; call it again.
            LayerTracerError: The repository is of another type, or its card cannot be read.
        """
        from ..hub import push_report

        return push_report(self, repo_id, **kwargs)

    @classmethod
    def from_pretrained(cls, repo_id: str | Path, **kwargs: Any) -> LayerTracerReport:
        """Reads the report of a repository on the Hub, or of a folder: [`LayerTracerReport.load`] by its usual name.

        Args:
            repo_id (`str` or `Path`): The repository, or a folder or file.
            kwargs: As in [`LayerTracerReport.load`], such as `revision="main"` or `repo_type="dataset"`.

        Returns:
            [`LayerTracerReport`]: The report.

        Raises:
            ReportNotFoundError: There is none.
            LayerTracerError: It is malformed or of a newer version than this library knows.
        """
        return cls.load(repo_id, **kwargs)

    def to_pandas(self, diagnosis: Diagnosis | None = None) -> DataFrame:
        """The report as a table, one row per layer.

        Args:
            diagnosis ([`Diagnosis`], *optional*):
                The diagnosis to take the values from, such as `report.first`; the latest by default.

        Returns:
            `pandas.DataFrame`: The columns are those of [`~records.ReportData.layer_rows`].
        """
        from pandas import DataFrame

        return DataFrame(self.layer_rows(diagnosis))

    def plot(self, path: str | Path | None = None) -> Figure:
        """Draws Layer Sensitivity above and lens probability below, as in `layertracer_report.png`.

        Args:
            path (`str` or `Path`, *optional*): File to write the picture to: `.png`, `.pdf` or `.svg`.

        Returns:
            `matplotlib.figure.Figure`: The picture; a notebook shows it.

        Raises:
            LayerTracerError: The file cannot be written, or matplotlib knows no such format.
        """
        from .figure import draw_report

        figure = draw_report(self)
        if path is not None:
            content = io.BytesIO()
            try:
                figure.savefig(content, format=Path(path).suffix.lstrip(".") or "png")
            except ValueError as error:
                raise LayerTracerError(f"{path} is no picture that can be drawn: {error}.") from error
            write_atomically(Path(path), content.getvalue())
        return figure

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        repo_type: str | None = None,
        subfolder: str | None = None,
        token: str | None = None,
    ) -> LayerTracerReport:
        """Reads a report.

        Args:
            source (`str` or `Path`): A report file, a folder with one, or the id of a repository on the Hub.
            revision (`str`, *optional*): Branch, tag or commit of the repository.
            repo_type (`str`, *optional*): `"model"` or `"dataset"`; by default the model of this name, else the dataset.
            subfolder (`str`, *optional*):
                Folder of the repository. Of a dataset that collects reports, the newest is read by default.
            token (`str`, *optional*): For a private repository; the one that you are logged in with by default.

        Returns:
            [`LayerTracerReport`]: The report.

        Raises:
            ReportNotFoundError: There is none.
            LayerTracerError: It is malformed or of a newer version than this library knows.
        """
        if not isinstance(source, str | Path):
            raise LayerTracerError(
                f"A report is loaded from a file, folder or repository, not {type(source).__name__}."
            )
        path = Path(source)
        if os.path.isdir(path):  # unlike Path.is_dir, no error for a name that is too long
            path = path / REPORT_FILE
        if not os.path.isfile(path):
            if path.name == REPORT_FILE and path.parent.is_dir():
                raise ReportNotFoundError(f"The folder {path.parent} holds no {REPORT_FILE}.")
            from ..hub.transport import download_report

            path = download_report(
                str(source), REPORT_FILE, repo_type=repo_type, subfolder=subfolder, revision=revision, token=token
            )
        try:
            content = parse_json(path.read_bytes())
        except OSError as error:
            raise LayerTracerError(f"Could not read {path}: {error.strerror or error}.") from error
        except (ValueError, RecursionError) as error:
            raise LayerTracerError(f"{path} is not a LayerTracer report: it is not JSON ({error}).") from error
        return cls.from_dict(content, name=str(source))

    @classmethod
    def from_dict(cls, content: Any, name: str = "The report") -> LayerTracerReport:
        """Validates the content of a report file.

        Args:
            content (`Any`): What the JSON holds.
            name (`str`, *optional*): What to call it in an error.

        Returns:
            [`LayerTracerReport`]: The report.

        Raises:
            LayerTracerError: It is malformed or of a newer version than this library knows.
        """
        found = content.get("schema_version") if isinstance(content, dict) else None
        if not isinstance(found, int) or isinstance(found, bool):
            raise LayerTracerError(f"{name} is not a LayerTracer report: it has no schema_version.")
        if found < 1:
            raise LayerTracerError(f"{name} has schema version {found}, which never was: the first is 1.")
        if found > SCHEMA_VERSION:
            raise LayerTracerError(
                f"{name} has schema version {found}; this hf_layertracer reads up to {SCHEMA_VERSION}. Upgrade it: "
                "pip install -U hf_layertracer"
            )
        try:
            # As JSON, in which a text is no number; validating Python's objects as strictly would refuse lists too.
            return cls.model_validate_json(json.dumps(upgrade(content) if found == 1 else content), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            # Keys are other people's text: nothing in them may break the line.
            place = repr(".".join(str(part) for part in first["loc"]))[1:-1] or "the report"
            raise LayerTracerError(
                f"{name} is not a valid LayerTracer report: {place:.200}: {first['msg']} ({error.error_count()} problems)."
            ) from error
