"""What setup.cfg cannot say: where packages lie, and how the README reads away from the repository."""

import configparser
import re
from pathlib import Path

from setuptools import find_packages, setup


ELSEWHERE = {"hf_layertracer.model_cards": "model_cards", "hf_layertracer.viewer_space": "spaces/layertracer-viewer"}
ROOT = Path(__file__).parent
# A link or a picture that leads into the repository.
_INSIDE = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)]+)\)")


def description() -> str:
    """The README for a package index: absolute links under the URL named Source, and none into nowhere without one."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = settings["metadata"]["project_urls"].splitlines()
    urls = dict(line.split(" = ", 1) for line in lines if line)
    source = urls.get("Source")

    def moved(link: re.Match) -> str:
        picture, text, target = link.groups()
        if source is None:
            return "" if picture else text
        return f"{picture}[{text}]({source}/{'raw' if picture else 'blob'}/main/{target})"

    return _INSIDE.sub(moved, (ROOT / "README.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    setup(
        packages=[*find_packages(include=["hf_layertracer*"]), *ELSEWHERE],
        package_dir=ELSEWHERE,
        long_description=description(),
        long_description_content_type="text/markdown",
    )
