"""Which file is meant by the path of a picture that somebody wrote on another machine."""

import os
from pathlib import Path, PurePosixPath

# LLaMA-Factory's layout, in which PAPO_eval wrote its paths: ./data/images/SET/FILE.
_FOREIGN_FOLDERS = ("/", ".", "data", "images")


class ImageFolder:
    """The files of a folder, found by the end of their path.

    `./data/images/SET/1.png` is found as `SET/1.png` below the folder, or, where an archive has no
    folder SET, as `1.png` at its top. Only files of the folder are ever found.

    Args:
        root: is read once, now.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._by_path: dict[tuple[str, ...], Path] = {}
        self._by_end: dict[tuple[str, ...], Path | None] = {}
        for folder, _, names in os.walk(root):
            inner = Path(folder).relative_to(root).parts
            for name in names:
                parts, file = (*inner, name), Path(folder) / name
                self._by_path[parts] = file
                for start in range(len(parts)):
                    end = parts[start:]
                    # Two files end alike: neither is meant for sure.
                    self._by_end[end] = None if end in self._by_end else file

    def find(self, written: str) -> Path | None:
        """Returns the file, or None where there is none or where several could be meant."""
        parts = PurePosixPath(written.replace("\\", "/")).parts
        own = parts
        while own and own[0] in _FOREIGN_FOLDERS:
            own = own[1:]
        if not own:
            return None
        return (
            self._by_path.get(parts)
            or self._by_path.get(own)
            or self._by_end.get(parts)
            or self._by_end.get(own)
            or self._by_path.get(own[1:])
        )
