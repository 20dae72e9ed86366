from .listing import HubReport, compare_reports, list_reports
from .push import push_report


__all__ = ["HubReport", "compare_reports", "list_reports", "push_report"]
