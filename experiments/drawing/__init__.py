"""What the pages of a report and of a cockpit are drawn with.

Matplotlib draws (`canvas`); colors are the page's own in light and dark (`colors`);
both pages have one frame (`sheet`).
"""
