"""Methods that look for flat minima: gradients at perturbed weights."""
