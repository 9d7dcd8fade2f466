"""What runs leave behind: files, metrics, results, and tables of them."""
