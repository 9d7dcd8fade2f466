"""What a sweep adds to itself: rates to its grids, lengths to its baseline."""
