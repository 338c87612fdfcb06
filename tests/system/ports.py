"""A port to meet at."""
import socket


def free_port():
    """A port whose successor is free too."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            try:
                two.bind(("", one.getsockname()[1] + 1))
            except OSError:
                continue
            return one.getsockname()[1]
