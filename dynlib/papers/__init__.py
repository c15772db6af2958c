"""One module a paper; each offers Config, convert, cost and deploy, and none imports another."""

METHODS = {"octconv": "Octave convolution"}  # key: title; here, so that they can be listed without importing torch
