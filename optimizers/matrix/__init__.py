"""Methods that act on whole matrices: directions by norms, and by bases."""
