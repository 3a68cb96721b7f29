"""Tests of the client library: the core without sockets, the shells against a scripted server."""
