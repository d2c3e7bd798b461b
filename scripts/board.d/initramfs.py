"""Writes FOLDER to standard output as an initramfs: cpio in the format newc, see buffer-format.rst in the kernel's
documentation. Root owns everything except what is below home/pi."""

import os
import stat
import sys

folder = sys.argv[1]
inode = 0


def write(name, mode, data=b"", device=(0, 0)):
    global inode
    inode += 1
    owner = 1000 if name.startswith("home/pi") else 0
    path = name.encode() + b"\0"
    fields = (inode, mode, owner, owner, 1, 0, len(data), 0, 0, *device, len(path), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    for part in (header, data):
        sys.stdout.buffer.write(part + b"\0" * (-len(part) % 4))


def tree(below):
    for entry in sorted(os.scandir(os.path.join(folder, below)), key=lambda entry: entry.name):
        name = os.path.join(below, entry.name)
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            write(name, mode, os.readlink(entry.path).encode())
        elif stat.S_ISDIR(mode):
            write(name, mode)
            tree(name)
        elif stat.S_ISREG(mode):
            with open(entry.path, "rb") as file:
                write(name, mode, file.read())


# The kernel opens the console for init before anything is mounted.
write("dev", stat.S_IFDIR | 0o755)
write("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
tree("")
write("TRAILER!!!", 0)
