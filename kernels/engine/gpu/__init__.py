"""Programs and rows on a GPU (Hopper), by Mosaic GPU."""
