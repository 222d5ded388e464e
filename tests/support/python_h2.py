"""A client of HTTP/2 that shares no code with the server: python's h2, which enforces the protocol on what it is sent.

python_h2.py PORT [AUTHORITY.pem]: over TLS with ALPN where there is an authority, by prior knowledge otherwise. Plays every
exchange on one connection and says "under way" when the server is to be told to stop. Ends with 0 if all went as it must.
"""

import socket
import ssl
import sys

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    PingAckReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame


class Client:
    def __init__(self, port, authority):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.scheme = "http"
        if authority:
            context = ssl.create_default_context(cafile=authority)
            context.set_alpn_protocols(["h2", "http/1.1"])
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
            assert self.socket.selected_alpn_protocol() == "h2"
            self.scheme = "https"
        self.h2 = H2Connection(H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.unread = b""
        self.seen = []
        self.after = []
        self.is_over = False
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def ask(self, method, path, fields=(), ends=True):
        stream = self.h2.get_next_available_stream_id()
        pseudo = [(":method", method), (":scheme", self.scheme), (":authority", "localhost"), (":path", path)]
        self.h2.send_headers(stream, pseudo + list(fields), end_stream=ends)
        self.flush()
        return stream

    def hear(self):
        """What the next read brings; nothing is acknowledged by itself."""
        read = self.socket.recv(65536)
        self.is_over = not read
        self.unread += read
        while len(self.unread) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self.unread)[:9])
            if len(self.unread) < 9 + length:
                break
            whole, self.unread = self.unread[: 9 + length], self.unread[9 + length :]
            if self.goodbyes():
                self.hear_after_goodbye(frame, whole[9:])
            else:
                self.seen += self.h2.receive_data(whole)
                self.flush()

    def hear_after_goodbye(self, frame, payload):
        """h2 takes the first GOAWAY for the end: what follows on it is read here (RFC 9113 section 6.8 lets it)."""
        frame.parse_body(memoryview(payload))
        if isinstance(frame, PingFrame):
            pong = PingFrame(0, opaque_data=frame.opaque_data, flags=["ACK"])
            self.socket.sendall(pong.serialize())
        self.after.append(frame)

    def all(self, kind, stream):
        return [one for one in self.seen if isinstance(one, kind) and one.stream_id == stream]

    def hear_until(self, heard):
        while not heard():
            assert not self.is_over, f"closed after {self.seen}"
            self.hear()

    def ended(self, stream):
        self.hear_until(lambda: self.all(StreamEnded, stream))
        return dict(self.all(ResponseReceived, stream)[0].headers)[":status"], self.content(stream)

    def pongs(self):
        return [one for one in self.seen if isinstance(one, PingAckReceived)]

    def goodbyes(self):
        return [one for one in self.seen if isinstance(one, ConnectionTerminated)]

    def content(self, stream):
        return b"".join(one.data for one in self.all(DataReceived, stream))


def get(client):
    assert client.ended(client.ask("GET", "/plaintext")) == ("200", b"Hello, World!")


def echo_under_flow_control(client):
    """Windows are opened only when nothing more fits into them, so both sides have to wait, again and again."""
    content = bytes(at % 251 for at in range(300_000))
    stream = client.ask("POST", "/echo", [("te", "trailers")], ends=False)
    sent, acknowledged, waited_to_send, waited_to_receive = 0, 0, 0, 0
    has_ended = False
    while not client.all(StreamEnded, stream):
        room = min(client.h2.local_flow_control_window(stream), client.h2.max_outbound_frame_size)
        if sent < len(content) and room > 0:
            client.h2.send_data(stream, content[sent : sent + room])
            client.flush()
            sent += min(room, len(content) - sent)
        elif sent == len(content) and not has_ended:
            client.h2.send_headers(stream, [("x-count", str(sent))], end_stream=True)
            client.flush()
            has_ended = True
        else:
            waited_to_send += room == 0
            got = len(client.content(stream))
            if client.h2.remote_flow_control_window(stream) == 0:
                client.h2.acknowledge_received_data(got - acknowledged, stream)
                client.flush()
                acknowledged = got
                waited_to_receive += 1
            client.hear()
            assert not client.is_over
    assert client.content(stream) == content
    assert waited_to_send > 0 and waited_to_receive >= 4, (waited_to_send, waited_to_receive)
    trailers = [dict(one.headers) for one in client.all(TrailersReceived, stream)]
    assert trailers == [{"x-count": "300000"}], trailers
    client.h2.acknowledge_received_data(len(content) - acknowledged, stream)


def reset(client):
    """A stream that is given up costs nothing but itself."""
    stream = client.ask("GET", "/sleep/60000")
    client.h2.reset_stream(stream, ErrorCodes.CANCEL)
    client.h2.ping(b"is it so")
    client.flush()
    client.hear_until(client.pongs)
    assert not client.all(ResponseReceived, stream) and not client.all(StreamReset, stream)
    get(client)


def goodbye(client):
    """What was under way at a stop is answered, after the client was told to go."""
    stream = client.ask("GET", "/sleep/2000")
    client.h2.ping(b"is it on")
    client.flush()
    client.hear_until(lambda: len(client.pongs()) == 2)
    print("under way", flush=True)
    client.hear_until(client.goodbyes)
    assert not client.all(ResponseReceived, stream)
    while not client.is_over:
        client.hear()
    heads = [one.data for one in client.after if isinstance(one, HeadersFrame)]
    content = [one.data for one in client.after if isinstance(one, DataFrame) and one.stream_id == stream]
    assert dict(client.h2.decoder.decode(heads[0]))[":status"] == "200" and b"".join(content) == b"slept\n"
    last = [one for one in client.after if isinstance(one, GoAwayFrame)][-1]
    assert (last.error_code, last.last_stream_id) == (ErrorCodes.NO_ERROR, stream), last
    assert client.goodbyes()[0].error_code == ErrorCodes.NO_ERROR


if __name__ == "__main__":
    client = Client(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
    for exchange in (get, echo_under_flow_control, reset, goodbye):
        exchange(client)
