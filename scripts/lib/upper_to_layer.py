"""An overlay's upper directory as an image's layer: whiteouts and opaque directories in the form of the OCI image spec.

usage: upper_to_layer.py UPPER LAYER.tar
"""

import os
import stat
import sys
import tarfile

def main(upper: str, layer: str) -> None:
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as out:
        for folder, names, files in os.walk(upper):
            names.sort()
            for name in sorted(names + files):
                path = os.path.join(folder, name)
                there = os.lstat(path)
                inside = os.path.relpath(path, upper)
                if stat.S_ISCHR(there.st_mode) and there.st_rdev == 0:
                    gone = tarfile.TarInfo(os.path.join(os.path.dirname(inside), ".wh." + name))
                    out.addfile(gone)
                    continue
                entry = out.gettarinfo(path, inside)
                entry.uname = entry.gname = ""
                if entry.isreg():
                    with open(path, "rb") as content:
                        out.addfile(entry, content)
                else:
                    out.addfile(entry)
                if stat.S_ISDIR(there.st_mode) and opaque(path):
                    mark = tarfile.TarInfo(os.path.join(inside, ".wh..wh..opq"))
                    out.addfile(mark)


def opaque(path: str) -> bool:
    try:
        return os.getxattr(path, "trusted.overlay.opaque") == b"y"
    except OSError:
        return False


main(*sys.argv[1:])
