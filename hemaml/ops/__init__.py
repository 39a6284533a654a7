"""Pure functions on arrays: superpixels, graphs, losses, scores."""
