"""What setup.cfg cannot say: packages lie in several places. All other metadata stand there."""

from setuptools import find_packages, setup


ELSEWHERE = {"hf_layertracer.model_cards": "model_cards", "hf_layertracer.viewer_space": "spaces/layertracer-viewer"}

setup(packages=[*find_packages(include=["hf_layertracer*"]), *ELSEWHERE], package_dir=ELSEWHERE)
