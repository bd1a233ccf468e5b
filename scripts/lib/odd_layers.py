"""Writes the tar files of the test images that no package manager makes. usage: odd_layers.py many|odd DIR"""
import io, os, sys, tarfile

EPOCH = 1_700_000_000


def add(tar, name, data=None, mode=0o644, type_=None, link="", uid=0, gid=0, mtime=EPOCH, pax=None, dev=(0, 0)):
    info = tarfile.TarInfo(name)
    info.mode, info.uid, info.gid, info.mtime = mode, uid, gid, mtime
    info.type = type_ or (tarfile.REGTYPE if data is not None else tarfile.DIRTYPE)
    info.linkname = link
    info.devmajor, info.devminor = dev
    if pax:
        info.pax_headers = pax
    if data is not None:
        info.size = len(data)
    tar.addfile(info, io.BytesIO(data) if data is not None else None)


def many(out):
    """126 layers on top of busybox; each adds a file, changes one and every third removes the last but two."""
    for i in range(1, 127):
        with tarfile.open(f"{out}/{i:03}.tar", "w", format=tarfile.PAX_FORMAT) as tar:
            add(tar, "layers/", mode=0o755)
            add(tar, f"layers/{i:03}", f"layer {i}\n".encode())
            add(tar, "layers/last", f"{i}\n".encode())
            if i % 3 == 0 and i > 3:
                add(tar, f"layers/.wh.{i - 2:03}", b"")


def odd(out):
    """Every kind of entry that a layer may hold, in two layers."""
    with tarfile.open(f"{out}/1.tar", "w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape") as tar:
        add(tar, "odd/", mode=0o755)
        add(tar, "odd/setuid", b"#!/bin/sh\n", mode=0o4755)
        add(tar, "odd/setgid-dir/", mode=0o2775, gid=50)
        add(tar, "odd/sticky/", mode=0o1777)
        add(tar, "odd/owner", b"owned\n", mode=0o640, uid=1234, gid=4321)
        add(tar, "odd/big-ids", b"ids\n", uid=2_000_000_000, gid=3_000_000_000)
        add(tar, "odd/nanoseconds", b"t\n", mtime=EPOCH + 0.5, pax={"mtime": f"{EPOCH}.123456789"})
        add(tar, "odd/before-1970", b"t\n", mtime=0, pax={"mtime": "-86400.25"})
        add(tar, "odd/after-2038", b"t\n", mtime=0, pax={"mtime": "4102444800.000000001"})
        add(tar, "odd/" + "n" * 255, b"long name\n")
        deep = "odd/" + "/".join(["d" * 60] * 12)
        add(tar, deep + "/", mode=0o755)
        add(tar, deep + "/leaf", b"deep\n")
        add(tar, "odd/not-utf8-\udcff\udcfe", b"bytes\n")
        add(tar, "odd/new\nline", b"newline\n")
        add(tar, "odd/symlink", type_=tarfile.SYMTYPE, link="owner")
        add(tar, "odd/long-symlink", type_=tarfile.SYMTYPE, link="x/" * 500 + "end")
        add(tar, "odd/dangling", type_=tarfile.SYMTYPE, link="/nowhere/at/all")
        add(tar, "odd/fifo", type_=tarfile.FIFOTYPE, mode=0o622)
        add(tar, "odd/device", type_=tarfile.CHRTYPE, dev=(1, 3), mode=0o666)
        add(tar, "odd/hardlink", type_=tarfile.LNKTYPE, link="odd/owner")
        add(tar, "odd/other/", mode=0o755)
        add(tar, "odd/other/hardlink", type_=tarfile.LNKTYPE, link="odd/owner")
        add(tar, "odd/xattr", b"x\n", pax={
            "SCHILY.xattr.user.plain": "value",
            "SCHILY.xattr.user.lines": "one\ntwo\nthree",
            "SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        })
        # Bytes that are no text, and one that ends a string in C. Python marks such headers as binary.
        add(tar, "odd/xattr-bytes", b"x\n", pax={"SCHILY.xattr.user.bytes": "\x00\udcff\udcfe="})
        # Users may set none of a link's, root may.
        add(tar, "odd/xattr-symlink", type_=tarfile.SYMTYPE, link="xattr", pax={"SCHILY.xattr.security.odd": "link"})
        add(tar, "odd/xattr-dir/", mode=0o711, uid=7, gid=8, pax={"mtime": f"{EPOCH}.000000001", "SCHILY.xattr.user.dir": "folder"})
        add(tar, "odd/xattr-dir/within", b"changes no time\n")
        add(tar, "odd/symlink-not-utf8", type_=tarfile.SYMTYPE, link="to-\udcff", uid=9, gid=10, pax={"mtime": f"{EPOCH}.5"})
        add(tar, "odd/utf8-\u00fc\u65e5", b"name\n")
        add(tar, "odd/block", type_=tarfile.BLKTYPE, dev=(259, 70000), mode=0o660, gid=6)
        add(tar, "odd/hardlink-symlink", type_=tarfile.LNKTYPE, link="odd/symlink")
        add(tar, "odd/hardlink-fifo", type_=tarfile.LNKTYPE, link="odd/fifo")
        add(tar, "odd/changes/", mode=0o755, pax={"SCHILY.xattr.user.lower": "goes"})
        add(tar, "odd/changes/stays", b"lower\n")
        add(tar, "odd/becomes-dir", b"file\n")
        add(tar, "odd/becomes-file/", mode=0o755)
        add(tar, "odd/becomes-file/within", b"goes\n")
        add(tar, "odd/empty", b"")
        add(tar, "odd/repeated", b"first\n")
        add(tar, "odd/repeated", b"second\n")
        add(tar, "odd/will-go", b"lower\n")
        add(tar, "odd/will-be-opaque/", mode=0o755)
        add(tar, "odd/will-be-opaque/lower", b"lower\n")
        add(tar, "odd/many/", mode=0o755)
        for i in range(3000):
            add(tar, f"odd/many/file-{i:05}", b"%d\n" % i)
        add(tar, "odd/large", bytes(range(256)) * 4096 * 8)
    with tarfile.open(f"{out}/2.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        add(tar, "odd/.wh.will-go", b"")
        add(tar, "odd/will-be-opaque/", mode=0o755)
        add(tar, "odd/will-be-opaque/.wh..wh..opq", b"")
        add(tar, "odd/will-be-opaque/upper", b"upper\n")
        add(tar, "odd/changes/", mode=0o3700, uid=11, gid=12, mtime=EPOCH + 1)
        add(tar, "odd/becomes-dir/", mode=0o750)
        add(tar, "odd/becomes-dir/within", b"upper\n")
        add(tar, "odd/becomes-file", b"upper\n")
        add(tar, "odd/gnu-" + "l" * 200, b"gnu long name\n")


if __name__ == "__main__":
    os.makedirs(sys.argv[2], exist_ok=True)
    {"many": many, "odd": odd}[sys.argv[1]](sys.argv[2])
