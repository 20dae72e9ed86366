"""What setup.cfg cannot say: packages lie in two places. All other metadata stand there."""

from setuptools import find_packages, setup


setup(
    packages=[*find_packages(include=["hf_layertracer*"]), "hf_layertracer.model_cards"],
    package_dir={"hf_layertracer.model_cards": "model_cards"},
)
