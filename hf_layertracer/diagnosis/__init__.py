from .diagnose import diagnose


__all__ = ["diagnose"]
