"""Correct a classifier in several processes, on one machine or many; every one of them runs this script.

Run `crayon demo` first for something to work on, then: accelerate launch --num_processes 2 examples/many_processes.py
(without a GPU accelerate starts one process, unless --multi_gpu is given; torchrun --nproc_per_node 2 does the same)
"""

import argparse
import os

import crayon_sdk as crayon


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="crayon-demo", help="what crayon demo makes: model, pictures, answers")
    parser.add_argument("--output", default="corrected-by-many", help="folder to make")
    parser.add_argument("--state", default="corrected-by-many.state", help="what a stopped launch goes on from")
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    crayon.check_output(options.output)

    model = crayon.load_model(f"local-dir:{options.folder}/original")
    table = f"{options.folder}/pictures/metadata.csv"
    train, test = (crayon.ImageDataset.from_csv(table, split=split) for split in ("train", "test"))

    # All processes call the same in the same order: they share the work, and each gets the whole result.
    maps = crayon.Explainer(model).explain(train)
    answers = crayon.AnnotationSet.load(f"{options.folder}/answers.jsonl")
    corrector = crayon.AttentionCorrector(model, epochs=options.epochs, lr=1e-3, checkpoint_dir=options.state)
    corrected = corrector.fit(train, maps, answers)
    found = crayon.evaluate(corrected.model, test)
    corrected.save(options.output)  # the main process alone writes
    if os.environ.get("RANK", "0") == "0":
        print(found)


if __name__ == "__main__":
    main()
