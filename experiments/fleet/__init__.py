"""Who runs what: the chunks of a sweep, and the processes that claim them."""
