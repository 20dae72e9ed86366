"""Jinja templates of the cards; `hf_layertracer.report.templates` reads them."""
