"""Runs a program on a terminal: `terminal.py ROWS COLUMNS PROGRAM ARGUMENT …`.

Its output goes to stdout. Each line on stdin is a JSON array: ["keys", TEXT], ["size", ROWS, COLUMNS] or
["signal", NUMBER]. At the end, stderr has one JSON object: the exit status, and whether the terminal is set as before.
"""

import fcntl
import json
import os
import pty
import select
import struct
import sys
import termios

rows, columns, *command = sys.argv[1:]
master, slave = pty.openpty()


def resize(rows, columns):
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", int(rows), int(columns), 0, 0))


resize(rows, columns)
before = termios.tcgetattr(slave)
pid = os.fork()
if pid == 0:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in range(3):
        os.dup2(slave, fd)
    os.closerange(3, 64)
    os.execvp(command[0], command)

status, commands = None, b""
while True:
    ready, _, _ = select.select([master, *([] if commands is None else [0])], [], [], 0.02)
    if master in ready:
        os.write(1, os.read(master, 65536))
    elif status is not None:
        break
    if commands is not None and 0 in ready:
        chunk = os.read(0, 65536)
        commands += chunk
        while b"\n" in commands:
            line, commands = commands.split(b"\n", 1)
            name, *values = json.loads(line)
            if name == "keys":
                os.write(master, values[0].encode())
            elif name == "size":
                resize(*values)
            elif status is None:
                os.kill(pid, values[0])
        if not chunk:
            commands = None
    if status is None:
        found, code = os.waitpid(pid, os.WNOHANG)
        if found == pid:
            status = os.waitstatus_to_exitcode(code)
after = termios.tcgetattr(slave)
sys.stderr.write(json.dumps({"status": status, "restored": before == after}) + "\n")
