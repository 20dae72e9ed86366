"""The command line: `layertracer`."""
