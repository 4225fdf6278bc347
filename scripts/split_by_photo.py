"""Split a folder of training crops into train/ and val/ so that no photo is in both.

    python scripts/split_by_photo.py DATA OUT [--every 20]

DATA holds pictures and a manifest.tsv whose columns `file`, `repository` and `path` say which photo
each crop was cut from. OUT/train and OUT/val get symbolic links; every 20th photo is held out.
"""

import argparse
import csv
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--every", type=int, default=20)
    options = parser.parse_args()
    with (options.data / "manifest.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    photos = sorted({(row["repository"], row["path"]) for row in rows})
    held_out = set(photos[:: options.every])
    for row in rows:
        part = "val" if (row["repository"], row["path"]) in held_out else "train"
        link = options.out / part / row["file"]
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to((options.data / row["file"]).resolve())


if __name__ == "__main__":
    main()
