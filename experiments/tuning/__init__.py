"""What a sweep adds to itself: rates, lengths of its baseline, points of a search."""
