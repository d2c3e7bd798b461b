"""A faulty link to 127.0.0.1:PORT. Listens on a free port of 127.0.0.1, prints that port, and relays until killed.
Bytes are counted per connection, in both directions together."""

import argparse
import asyncio
import os
import socket
import struct
import sys
import threading

parser = argparse.ArgumentParser(prog="scripts/board proxy DIR", description=__doc__)
parser.add_argument("port", type=int)
parser.add_argument("--delay", type=float, default=0, metavar="MS", help="delay every byte, in each direction")
parser.add_argument("--rate", type=float, default=0, metavar="B/S", help="bytes per second, in each direction")
parser.add_argument("--stall-after", type=int, metavar="N", help="after N bytes, relay nothing more but stay open")
parser.add_argument("--reset-after", type=int, metavar="N", help="after N bytes, reset the connection")
parser.add_argument("--times", type=int, metavar="K", help="stall or reset the first K connections only")
parser.add_argument("--tied", action="store_true", help="end when standard input ends")
args = parser.parse_args()
connections = 0


class Relay:
    def __init__(self, faulty, writers):
        self.faulty, self.writers, self.bytes = faulty, writers, 0

    def past(self, limit):
        return self.faulty and limit is not None and self.bytes > limit

    def reset(self):
        for writer in self.writers:
            linger_0 = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_0)
            writer.transport.abort()

    async def pump(self, reader, writer):
        now = asyncio.get_running_loop().time
        queue = asyncio.Queue(64)

        async def deliver():
            while True:
                due, data = await queue.get()
                await asyncio.sleep(max(0, due - now()))
                if not data:
                    writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()

        delivery = asyncio.create_task(deliver())
        try:
            data = b"-"
            while data and not delivery.done():
                data = await reader.read(16384)
                self.bytes += len(data)
                if self.past(args.stall_after):
                    await asyncio.Event().wait()
                if self.past(args.reset_after):
                    self.reset()
                    return
                if args.rate:
                    await asyncio.sleep(len(data) / args.rate)
                await queue.put((now() + args.delay / 1000, data))
            await delivery
        except OSError:
            pass
        finally:
            delivery.cancel()


async def serve(reader, writer):
    global connections
    connections += 1
    try:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", args.port)
    except OSError:
        writer.transport.abort()
        return
    relay = Relay(args.times is None or connections <= args.times, (writer, far_writer))
    await asyncio.gather(relay.pump(reader, far_writer), relay.pump(far_reader, writer))
    for each in relay.writers:
        each.close()


def end_with_stdin():
    sys.stdin.read()
    os._exit(0)


async def main():
    if args.tied:
        threading.Thread(target=end_with_stdin, daemon=True).start()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
