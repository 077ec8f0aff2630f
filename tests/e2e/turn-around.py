"""Tries to turn sockets around that were made outside of the sandbox that this runs in.

Descriptors 0, 1 and 2: a backend's socket from the broker, an accepted client, the listening socket.
Arguments: the report, and targets, each NAME=IP,PORT. A line for each attempt: `SOCKET by WAY to TARGET: what came`, or
`...! why not`.
"""
import ctypes, os, select, socket, struct, subprocess, sys

libc = ctypes.CDLL(None, use_errno=True)
FAST_OPEN, X32 = 0x20000000, 0x40000000
report, targets = sys.argv[1], dict(word.split("=") for word in sys.argv[2:])
# A child's are copies, under the same numbers.
sockets = {"the backend's": os.dup(0), "the client's": os.dup(1), "the listener": os.dup(2)}
lines = []


def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def address(fd, target):
    ip, port = target.split(",")
    if socket.socket(fileno=os.dup(fd)).family == socket.AF_INET6:
        text = ip if ":" in ip else "::ffff:" + ip
        return struct.pack("=H", socket.AF_INET6) + struct.pack(">H", int(port)) + bytes(4) + socket.inet_pton(socket.AF_INET6, text) + bytes(4)
    return struct.pack("=H", socket.AF_INET) + struct.pack(">H", int(port)) + socket.inet_aton(ip) + bytes(8)


def dissolve(fd):
    call("connect", fd, bytes(16), 16)


def reaches(fd):
    """What the other side says at once."""
    os.set_blocking(fd, False)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    said = os.read(fd, 60) if poll.poll(100) else b""
    return f"connected, {said!r}"


def connect(fd, target):
    to = address(fd, target)
    os.set_blocking(fd, True)
    call("connect", fd, to, len(to))
    return reaches(fd)


def by_connect(fd, target):
    dissolve(fd)
    return connect(fd, target)


def by_connect_alone(fd, target):
    return connect(fd, target)


def shut(fd):
    """To where sending connects; after another way has connected it only dissolving leads there."""
    for step in [lambda: socket.socket(fileno=os.dup(fd)).shutdown(socket.SHUT_RDWR), lambda: dissolve(fd)]:
        try:
            step()
        except OSError:
            pass
    os.set_blocking(fd, True)


def by_sendto(fd, target):
    shut(fd)
    to = address(fd, target)
    call("sendto", fd, b"\n", 1, FAST_OPEN, to, len(to))
    return reaches(fd)


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_char_p), ("length", ctypes.c_size_t)]


class Msghdr(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("namelen", ctypes.c_uint), ("iov", ctypes.POINTER(Iovec)), ("iovlen", ctypes.c_size_t),
                ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t), ("flags", ctypes.c_int)]


class Mmsghdr(ctypes.Structure):
    _fields_ = [("header", Msghdr), ("length", ctypes.c_uint)]


def message(fd, target):
    to = address(fd, target)
    return Msghdr(to, len(to), ctypes.pointer(Iovec(b"\n", 1)), 1, None, 0, 0)


def by_sendmsg(fd, target):
    shut(fd)
    call("sendmsg", fd, ctypes.byref(message(fd, target)), FAST_OPEN)
    return reaches(fd)


def by_sendmmsg(fd, target):
    shut(fd)
    call("sendmmsg", fd, ctypes.byref(Mmsghdr(message(fd, target), 0)), 1, FAST_OPEN)
    return reaches(fd)


def by_more_flags(fd, target):
    """The flag among others, and in a word whose upper half is not empty."""
    shut(fd)
    to = address(fd, target)
    number = {"x86_64": 44, "aarch64": 206}[os.uname().machine]
    flags = ctypes.c_ulong(0xdead_0000_0000_0000 | FAST_OPEN | socket.MSG_NOSIGNAL)
    call("syscall", ctypes.c_long(number), ctypes.c_long(fd), b"\n", ctypes.c_long(1), flags, to, ctypes.c_long(len(to)))
    return reaches(fd)


def by_x32(fd, target):
    to = address(fd, target)
    child = os.fork()
    if child == 0:
        try:
            call("syscall", ctypes.c_long(X32 | 42), ctypes.c_long(fd), bytes(16), ctypes.c_long(16))
            call("syscall", ctypes.c_long(X32 | 42), ctypes.c_long(fd), to, ctypes.c_long(len(to)))
            os._exit(0)
        except OSError as why:
            os._exit(why.errno)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status > 0:
        raise OSError(status, os.strerror(status))
    if status < 0:
        raise OSError(0, f"killed by signal {-status}")
    return reaches(fd)


def by_proc(fd, target):
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    return by_connect(again, target)


def by_listening_anew(fd, target):
    shut(fd)
    call("listen", fd, 5)
    return "it listens"


def by_binding(fd, target):
    shut(fd)
    call("bind", fd, struct.pack("=H", socket.AF_INET6) + bytes(26), 28)
    return "it is bound"


def by_ulp(fd, target):
    """Another protocol over the same socket."""
    for name in [b"mptcp", b"smc"]:
        libc.setsockopt(fd, 6, 31, name, len(name))
    return by_connect(fd, target)


def by_mptcp(fd, target):
    family = socket.socket(fileno=os.dup(fd)).family
    made = call("socket", int(family), int(socket.SOCK_STREAM), 262)
    return connect(made, target)


def by_another_process(fd, target):
    """Handed over a unix socket to a program that has been started anew."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    child = "import sys,socket,array;s=socket.socket(fileno=0);m,a,_,_=s.recvmsg(1,64);f=array.array('i');f.frombytes(a[0][2][:4]);print('got',file=sys.stderr);" \
        "t=socket.socket(fileno=f[0]);import ctypes,os;l=ctypes.CDLL(None,use_errno=True);to=bytes.fromhex(sys.argv[1]);t.setblocking(True);" \
        "r=l.connect(f[0],bytes(16),16) or l.connect(f[0],to,len(to));e=ctypes.get_errno();s.send(str(e if r else 0).encode())"
    with subprocess.Popen([sys.executable, "-c", child, address(fd, target).hex()], stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        theirs.close()
        socket.send_fds(ours, [b"x"], [fd])
        why = int(ours.recv(20) or b"-1")
    if why:
        raise OSError(why, os.strerror(why) if why > 0 else "the other process fell")
    return reaches(fd)


def by_io_uring(fd, target):
    """IORING_OP_CONNECT, without a library."""
    parameters = ctypes.create_string_buffer(120)
    ring = call("syscall", ctypes.c_long(425), ctypes.c_long(4), parameters)
    raise OSError(0, f"a ring was made: {ring}")


WAYS = {
    "dissolving": by_connect, "connecting": by_connect_alone, "sendto": by_sendto, "sendmsg": by_sendmsg, "sendmmsg": by_sendmmsg,
    "more flags": by_more_flags, "x32": by_x32, "/proc/self/fd": by_proc, "listening": by_listening_anew, "binding": by_binding,
    "ulp": by_ulp, "mptcp": by_mptcp, "another process": by_another_process, "io_uring": by_io_uring,
}

try:
    for fd in sockets.values():
        # A second for each: a backlog may be full.
        socket.socket(fileno=os.dup(fd)).setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 1, 0))
    for name, fd in sockets.items():
        for target, where in targets.items():
            for way, attempt in WAYS.items():
                # One client at a time, and who comes next waits: where nothing is forbidden one way is enough.
                if target == "serial" and way != "dissolving" and os.environ["CAGED"] == "no":
                    continue
                what = f"{name} by {way} to {target}"
                try:
                    lines.append(f"{what}: {attempt(fd, where)}")
                except Exception as why:
                    lines.append(f"{what}! {why}")
    lines.append("end: ")
except Exception as why:
    lines.append(f"end! {why!r}")
with open(report + ".new", "w") as file:
    file.write("\n".join(lines) + "\n")
os.rename(report + ".new", report)
