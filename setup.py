"""What pyproject.toml cannot say: a wheel holds conf/ as papo/conf. A clone and an editable installation read conf/ itself."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfiguration(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib) / "papo" / "conf"
            # What an earlier build left may be gone from conf/.
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree("conf", folder, ignore=shutil.ignore_patterns("__pycache__"))


setup(cmdclass={"build_py": BuildWithConfiguration})
