"""Layer-wise adaptation: a layer's step is as long as its weights, times a rate."""
