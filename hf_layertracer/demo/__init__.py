"""The main job on a real model, as `layertracer demo` runs it."""
