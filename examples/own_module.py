"""Correct a network of your own: any trunk that gives a grid of features, and any head that ends in a linear layer.

Run `crayon demo` first for something to work on, then: python examples/own_module.py
"""

import argparse
from itertools import pairwise

import torch
from torch import nn

import crayon_sdk as crayon


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", default="crayon-demo/pictures/metadata.csv", help="pictures with object masks")
    parser.add_argument("--output", default="own-corrected", help="folder to make")
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    crayon.check_output(options.output)  # before the work, not after it
    torch.manual_seed(0)
    layers = [
        nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU())
        for before, after in pairwise((3, 16, 32, 64))
    ]
    trunk = nn.Sequential(*layers)  # images (N, 3, H, W) -> features (N, C, h, w)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2))  # features -> logits (N, K)
    model = crayon.SplitModel(trunk=trunk, head=head, preprocessing=crayon.Preprocessing(size=(64, 64)))

    train = crayon.ImageDataset.from_csv(options.table, split="train")
    maps = crayon.Explainer(model).explain(train)
    answers = crayon.simulate_answers(maps, train)  # object masks stand in for people here
    corrected = crayon.AttentionCorrector(model, epochs=options.epochs).fit(train, maps, answers)
    corrected.save(options.output)  # model.safetensors holds the weights under the names of trunk and head
    print("saved", sorted(trunk.state_dict())[0], "and the rest in", options.output)


if __name__ == "__main__":
    main()
