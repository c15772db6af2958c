"""What a page shows of a method on the reader's machine, besides the method itself."""
