"""Strangers: TLS connections without any right, which ask something every second and come again when they are closed.
usage: stranger.py PORT SECONDS CONNECTIONS ADDRESS...   ends by itself"""
import socket
import ssl
import sys
import threading
import time

port, stop, connections = int(sys.argv[1]), time.time() + float(sys.argv[2]), int(sys.argv[3])
addresses = sys.argv[4:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE


def hold(address):
    while time.time() < stop:
        try:
            raw = socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(address, 0))
            with context.wrap_socket(raw) as tls:
                while time.time() < stop:
                    tls.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
                    if not tls.recv(4096):
                        break
                    time.sleep(1)
        except OSError:
            time.sleep(0.05)


threads = [threading.Thread(target=hold, args=(addresses[i % len(addresses)],), daemon=True) for i in range(connections)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
