"""Cut the neurons that look at the wrong thing, then guide the attention of what is left.

Run `crayon demo` first for something to work on, then: python examples/prune_then_guide.py
"""

import argparse

import crayon_sdk as crayon


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="local-dir:crayon-demo/original", help="anything load_model takes")
    parser.add_argument("--table", default="crayon-demo/pictures/metadata.csv", help="pictures with object masks")
    parser.add_argument("--output", default="pruned-and-guided", help="folder to make")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3, help="1e-4 suits large pretrained models")
    options = parser.parse_args()
    crayon.check_output(options.output)  # before the work, not after it
    model = crayon.load_model(options.model)
    train = crayon.ImageDataset.from_csv(options.table, split="train")
    test = crayon.ImageDataset.from_csv(options.table, split="test")

    # Explain: a map per picture, and the three strongest patches of every neuron.
    explainer = crayon.Explainer(model)
    maps, patches = explainer.explain(train), explainer.explain_neurons(train, patches_per_neuron=3)

    # Answer: here object masks stand in for people, and every answer says that it is simulated.
    answers = crayon.simulate_answers(maps, train).merge(crayon.simulate_neuron_answers(patches, train))

    # Prune first: the answers describe the original model. What is cut stays cut.
    pruned = crayon.NeuronPruner(model).fit(train, answers)
    print(f"cut {len(pruned.record.pruned_neurons)} of {model.num_neurons} neurons")
    both = crayon.AttentionCorrector(pruned.model, epochs=options.epochs, lr=options.lr).fit(train, maps, answers)
    print(crayon.evaluate(both.model, test))
    both.save(options.output)  # remembers both corrections and all answers


if __name__ == "__main__":
    main()
