"""Publish a correction on the Hugging Face Hub, and read it back with everything that is behind it.

Log in first: `hf auth login`. Run `crayon demo` for something to publish, then:
python examples/publish.py birds-and-fish --private
"""

import argparse

import crayon_sdk as crayon


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", help="me/name; without an owner it is yours")
    parser.add_argument("--correction", default="crayon-demo/attention", help="folder of a correction")
    parser.add_argument("--private", action="store_true", help="of a new repository")
    parser.add_argument("--dry-run", action="store_true", help="list the files and send nothing")
    options = parser.parse_args()

    correction = crayon.load_correction(options.correction)
    private = True if options.private else None
    published = correction.push_to_hub(options.repository, private=private, dry_run=options.dry_run)
    for path, size in published.files:
        print(f"{size:>12,}  {path}")
    if options.dry_run:
        return
    print(published.url, "" if published.changed else "(it was there already)")

    # The answers once more, as a data set of their own that others can correct their models with.
    data = correction.answers.push_to_hub(f"{published.repo_id}-answers", private=private)
    print(data.url)

    # The commit names these weights for good; main may move on.
    again = crayon.load_correction(f"hf-hub:{published.repo_id}@{published.commit}")
    print(f"{again.record.method}, {len(again.answers)} answers, model {again.model.fingerprint[:12]}")


if __name__ == "__main__":
    main()
