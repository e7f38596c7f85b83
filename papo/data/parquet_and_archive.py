"""A data set of two files: rows in parquet, the pictures they name in a zip."""

from collections.abc import Sequence
from pathlib import Path

from papo.data.archive import extract_images
from papo.data.file_problems import first_existing
from papo.data.hub_file import check_hub_file, commit_of, fetch_hub_file
from papo.data.image_folder import ImageFolder
from papo.data.row_files import parquet_rows
from papo.data.rows import TableRows
from papo.types import key_in, shown


class ParquetAndArchive:
    """Where the two files are: in a folder, or on the hub.

    Args:
        name: what the messages call it.
        parquet: path of the rows in the data set; a folder may hold the file at its top, too.
        archive: path of the zip in the data set; a folder may hold it extracted: as a folder of
            its name without `.zip`, or as data/images/ or images/.
        path: a folder; wins over `hub_id`.
        hub_id: data set id of the hub.
        revision: commit, branch or tag of the hub; None is its newest.
        max_archive_gb: see `extract_images`.
        section: where these settings stand in the configuration; messages name keys of it.
    """

    def __init__(
        self,
        *,
        name: str,
        parquet: str,
        archive: str,
        path: str | None,
        hub_id: str,
        revision: str | None,
        max_archive_gb: float,
        section: str,
    ) -> None:
        self.name = name
        self.parquet = parquet
        self.archive = archive
        self.path = None if path is None else Path(path).expanduser()
        self.hub_id = hub_id
        self.revision = revision
        self.max_archive_gb = max_archive_gb
        self.section = section
        self._remedy = (
            f"Put {parquet} and {archive} of {hub_id} into a folder and set "
            f"{key_in(section, 'path')}=FOLDER, or run once where the hub can be reached."
        )

    def preflight(self) -> None:
        """Returns when both files are in place or can be downloaded; reads and downloads nothing.

        Raises:
            FileNotFoundError: one cannot be had; the message names it and where to put it.
        """
        if self.path is not None:
            self._find_in(self.path)
            return
        for filename in (self.parquet, self.archive):
            check_hub_file(self.hub_id, filename, revision=self.revision, remedy=self._remedy)

    def read(self, columns: Sequence[str]) -> tuple[TableRows, ImageFolder, str | None]:
        """Returns the rows, the pictures (extracted now if need be) and the commit they are from.

        Args:
            columns: read these only; all must be there.

        Raises:
            FileNotFoundError: as `preflight`.
            ValueError: a file is damaged or refused, or a column is missing.
        """
        if self.path is not None:
            parquet, pictures = self._find_in(self.path)
        else:
            parquet, pictures = (
                fetch_hub_file(
                    self.hub_id,
                    filename,
                    revision=self.revision,
                    remedy=self._remedy,
                    max_gb=self.max_archive_gb,
                )
                for filename in (self.parquet, self.archive)
            )
        rows = parquet_rows([parquet], lambda _: columns)
        for column in columns:
            if column not in rows.column_names:
                raise ValueError(
                    f"{parquet} has no column {column!r}, only {shown(', '.join(rows.column_names), 300)}; "
                    f"{self.name} is read in the layout of {self.hub_id}. Was it changed? Then pin "
                    f"the commit that had it ({key_in(self.section, 'revision')}=COMMIT)."
                )
        if pictures.is_file():
            pictures = extract_images(pictures, max_archive_gb=self.max_archive_gb)
        return rows, ImageFolder(pictures), None if self.path is not None else commit_of(parquet)

    def _find_in(self, folder: Path) -> tuple[Path, Path]:
        parquet = first_existing([folder / self.parquet, folder / Path(self.parquet).name])
        if parquet is None:
            raise FileNotFoundError(
                f"{self.name} is not in {folder}: looked for {self.parquet} and "
                f"{Path(self.parquet).name}. {self._remedy}"
            )
        pictures = first_existing(
            [
                folder / Path(self.archive).with_suffix(""),
                folder / self.archive,
                folder / "data" / "images",
                folder / "images",
            ]
        )
        if pictures is None:
            raise FileNotFoundError(
                f"the pictures of {self.name} are not in {folder}: looked for {self.archive} and "
                f"the folder {Path(self.archive).stem}. {self._remedy}"
            )
        return parquet, pictures
