"""Reports on the Hub: cards, pushing, datasets of reports, listing."""

from .listing import HubReport, compare_reports, list_reports
from .push import push_report


__all__ = ["HubReport", "compare_reports", "list_reports", "push_report"]
