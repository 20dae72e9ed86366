"""The Space's files; `hf_layertracer.viewer.space` pushes them."""
