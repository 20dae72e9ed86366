"""Looking at reports: figures, tables and comparisons, and the Gradio page that shows them.

Only `app.py` and `tabs/` import Gradio. A report is someone else's file: `report_sources.py` decides what is opened, and
all its text passes through `escaping.py` on its way to the page. A tab is one module in `tabs/`.
"""
