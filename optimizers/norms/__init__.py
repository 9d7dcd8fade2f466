"""Methods that hold, aim or free the norms of weights."""
