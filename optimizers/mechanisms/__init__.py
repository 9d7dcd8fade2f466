"""What many methods have in common."""
