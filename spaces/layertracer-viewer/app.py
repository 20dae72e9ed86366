"""The LayerTracer viewer as a Hugging Face Space: everything is in the library."""

from pathlib import Path

from hf_layertracer.viewer.app import build_app, serve


app = build_app([Path(__file__).parent / "examples"])

if __name__ == "__main__":
    serve(app)
