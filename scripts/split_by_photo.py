"""Split a folder of training crops into train/ and val/ so that no photo is in both.

    python scripts/split_by_photo.py DATA OUT [--every 20] [--list NAMES.txt] [--copy]

DATA holds pictures and a manifest.tsv whose columns `file`, `repository` and `path` say which photo
each crop was cut from. OUT/train and OUT/val get symbolic links, or copies to be carried elsewhere;
every 20th photo is held out. A list names, a line each, the files to take: the split stays the same.
"""

import argparse
import csv
import shutil
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--list", type=Path, help="take these files alone")
    parser.add_argument("--copy", action="store_true", help="copies in place of links")
    options = parser.parse_args()
    with (options.data / "manifest.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    photos = sorted({(row["repository"], row["path"]) for row in rows})
    held_out = set(photos[:: options.every])
    chosen = set(options.list.read_text().splitlines()) if options.list else {row["file"] for row in rows}
    for row in (row for row in rows if row["file"] in chosen):
        part, other = ("val", "train") if (row["repository"], row["path"]) in held_out else ("train", "val")
        source, target = (options.data / row["file"]).resolve(), options.out / part / row["file"]
        target.parent.mkdir(parents=True, exist_ok=True)
        for earlier in (target, options.out / other / row["file"]):  # of a split by another rule
            earlier.unlink(missing_ok=True)
        if options.copy:
            shutil.copy(source, target)
        else:
            target.symlink_to(source)


if __name__ == "__main__":
    main()
