"""Records turned into tables, figures and words, page by page, until each page says it with `report`."""
