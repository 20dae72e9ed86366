"""Looking at reports: figures, tables and comparisons, and the Gradio pages that show them.

Only `app.py` and `tabs/` know of Gradio. A report is someone else's file: `reading.py` decides what is opened at all, and
all its text goes through `text.py` on the way to a page.
"""
