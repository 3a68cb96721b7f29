"""Sockets: the only room that knows ZeroMQ; peers, clients and their keys."""
