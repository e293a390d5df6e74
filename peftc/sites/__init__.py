"""Capture of the forward and the sites found in it by following the data."""

from peftc.sites.interfaces import check_interfaces

check_interfaces()
