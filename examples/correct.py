"""Correct a classifier with yes/no answers to its saliency maps.

Run `crayon demo` first for something to work on, then: python examples/correct.py
"""

import argparse

import crayon_sdk as crayon


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="local-dir:crayon-demo/original", help="anything load_model takes")
    parser.add_argument("--table", default="crayon-demo/pictures/metadata.csv", help="pictures, labels, splits, groups")
    parser.add_argument("--answers", default="crayon-demo/answers.jsonl", help="answers about the maps of the model")
    parser.add_argument("--output", default="corrected", help="folder to make")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3, help="1e-4 suits large pretrained models")
    options = parser.parse_args()
    crayon.check_output(options.output)  # before the work, not after it

    model = crayon.load_model(options.model)
    train = crayon.ImageDataset.from_csv(options.table, split="train")
    test = crayon.ImageDataset.from_csv(options.table, split="test")

    # Explain: one map per picture. These are the maps that people answered about.
    maps = crayon.Explainer(model).explain(train)
    answers = crayon.AnnotationSet.load(options.answers)

    # Correct, check, ship.
    corrector = crayon.AttentionCorrector(model, epochs=options.epochs, lr=options.lr)
    corrected = corrector.fit(train, maps, answers)
    print("Before", crayon.evaluate(model, test), "After", crayon.evaluate(corrected.model, test), sep="\n")
    corrected.save(options.output)  # timm.create_model("local-dir:corrected", pretrained=True)


if __name__ == "__main__":
    main()
