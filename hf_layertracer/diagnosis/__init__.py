"""What each layer of a model does, by measurement."""
