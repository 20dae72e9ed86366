from .diagnose import diagnose
from .score import ProbeScores, score_probes


__all__ = ["ProbeScores", "diagnose", "score_probes"]
