"""Capture of the forward and the sites found in it by following the data."""
