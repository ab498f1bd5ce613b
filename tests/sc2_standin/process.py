"""The stand-in's executable. It starts fast, since it knows nothing: every request goes to the house, whose socket is
its first argument, and comes back with what is to be done."""

import argparse
import os
import socket
import struct
import time

from websockets.sync.server import ServerConnection, serve


def receive(pipe: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        if not (more := pipe.recv(count - len(data))):
            os._exit(0)  # the house is gone
        data += more
    return data


def handle(connection: ServerConnection) -> None:
    for request in (connection.recv(decode=False) for _ in iter(int, 1)):
        pipe.sendall(struct.pack("!I", len(request)) + request)
        deed, size = struct.unpack("!cI", receive(pipe, 5))
        answer = receive(pipe, size)
        if deed == b"a":  # answer
            connection.send(answer)
        elif deed == b"q":  # quit
            os._exit(0)
        elif deed == b"d":  # die
            os._exit(1)
        elif deed == b"c":  # cut the connection in the middle of an answer
            connection.socket.sendall(b"\x82\x7e\x10\x00" + answer[:3])
            connection.socket.shutdown(socket.SHUT_RDWR)
        elif deed == b"s":  # say nothing
            time.sleep(3600)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("house")
    parser.add_argument("-listen", default="127.0.0.1")
    parser.add_argument("-port", type=int, required=True)
    known, _ = parser.parse_known_args()
    pipe = socket.socket(socket.AF_UNIX)
    pipe.connect(known.house)
    with serve(handle, known.listen, known.port, max_size=None, compression=None) as server:
        server.serve_forever()
