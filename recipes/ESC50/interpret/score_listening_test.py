#!/usr/bin/env python3
"""Mean opinion scores of a listening test, from the files of its listeners.

    python score_listening_test.py ratings/ \
        --key results/listening/1234/key.json

Writes ratings.csv, scores.csv and scores.md to the key's folder. Listeners who
cannot have listened to what they rated are left out, and named.
"""

import argparse
from pathlib import Path

from lmac_sb.pages.ratings import (
    rating_files,
    read_key,
    read_ratings,
    write_scores,
)
from lmac_sb.utils.errors import exit_on_user_error


@exit_on_user_error
def main(argv=None):
    """Read the ratings, and write and print the scores."""
    parser = argparse.ArgumentParser(
        description="Mean opinion scores of a listening test, with 95 %% "
        "intervals, written as scores.csv and scores.md."
    )
    parser.add_argument(
        "ratings",
        nargs="+",
        help="the listeners' JSON files, or folders of them",
    )
    parser.add_argument(
        "--key", required=True, help="key.json, written with the page"
    )
    parser.add_argument(
        "--output_folder", help="folder for the scores (default: the key's)"
    )
    options = parser.parse_args(argv)
    key = read_key(options.key)
    rows = read_ratings(rating_files(options.ratings, options.key), key)
    folder = Path(options.output_folder or Path(options.key).parent)
    print(write_scores(folder, rows))
    print(f"all ratings and tables: {folder}")


if __name__ == "__main__":
    main()
