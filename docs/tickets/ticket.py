#!/usr/bin/python3
"""Tickets for console-proxy, by an issuer of your own (Debian: python3-cryptography).

  ticket.py key KEYFILE                                makes a private key; it never leaves this machine
  ticket.py issuer KEYFILE...                          prints the issuer's file, for the host
  ticket.py ticket KEYFILE ISSUER GUEST PERSON [MODE [SECONDS [CONSOLES]]]
  ticket.py url URL KEYFILE ISSUER GUEST PERSON [MODE [SECONDS [CONSOLES]]]

ISSUER is the name of the issuer's file on the host without .toml, GUEST a UUID, MODE control or view, SECONDS at most 300,
CONSOLES separated by commas (vnc,serial/0), by default all. A URL begins with https:// and ends in /.
"""
import base64
import json
import os
import secrets
import sys
import time

from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def make_key(file):
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(pem)


def read_key(file):
    with open(file, "rb") as pem:
        return form.load_pem_private_key(pem.read(), None)


def issuer(*files):
    keys = [read_key(file).public_key().public_bytes(form.Encoding.Raw, form.PublicFormat.Raw) for file in files]
    print("public-keys = [%s]" % ", ".join('"%s"' % base64.b64encode(key).decode() for key in keys))


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def ticket(file, issuer, guest, person, mode="control", seconds="60", consoles="*"):
    now = int(time.time())
    header = {"alg": "EdDSA", "kid": issuer, "typ": "JWT"}
    claims = {
        "iss": issuer, "aud": "console-proxy", "sub": person, "guest": guest, "consoles": consoles.split(","),
        "mode": mode, "iat": now, "nbf": now, "exp": now + int(seconds), "jti": secrets.token_urlsafe(12),
    }
    signed = base64url(json.dumps(header).encode()) + "." + base64url(json.dumps(claims).encode())
    return signed + "." + base64url(read_key(file).sign(signed.encode()))


match sys.argv[1:]:
    case ["key", file]:
        make_key(file)
    case ["issuer", _, *_] as words:
        issuer(*words[1:])
    case ["ticket", _, _, _, _, *_] as words if len(words) <= 8:
        print(ticket(*words[1:]))
    case ["url", url, _, _, _, _, *_] as words if len(words) <= 9:
        # Behind #: what stands there is sent to no server and stands in no log.
        print(url + "#token=" + ticket(*words[2:]))
    case _:
        sys.exit(__doc__)
