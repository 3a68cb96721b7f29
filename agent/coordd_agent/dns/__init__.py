"""DNS: names, answers, ready-made packets, and the sockets that serve them."""
