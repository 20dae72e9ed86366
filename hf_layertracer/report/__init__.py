"""A record as files: JSON, picture, and a section of a README."""

from .report import CARD_FILE, FIGURE_FILE, REPORT_FILE, LayerTracerReport


__all__ = ["CARD_FILE", "FIGURE_FILE", "REPORT_FILE", "LayerTracerReport"]
