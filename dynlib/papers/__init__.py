"""One module a paper; each offers Config, convert, cost and deploy, and none imports another."""
