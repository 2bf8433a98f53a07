"""Answers about the maps of one model correct another: a ResNet teaches a ConvNeXt where to look.

Run `crayon demo` first for something to work on, then: python examples/transfer.py
"""

import argparse

import crayon_sdk as crayon


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="local-dir:crayon-demo/original", help="the model that was answered about")
    parser.add_argument("--student", default="test_convnext", help="timm name of the model to correct")
    parser.add_argument("--weights", action="store_true", help="start from the student's published weights")
    parser.add_argument("--table", default="crayon-demo/pictures/metadata.csv", help="pictures, labels, splits, groups")
    parser.add_argument("--answers", default="crayon-demo/answers.jsonl", help="answers about the teacher's maps")
    parser.add_argument("--output", default="student-corrected", help="folder to make")
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    crayon.check_output(options.output)  # before the work, not after it

    train = crayon.ImageDataset.from_csv(options.table, split="train")
    test = crayon.ImageDataset.from_csv(options.table, split="test")
    teacher = crayon.load_model(options.teacher)
    student = crayon.load_model(options.student, pretrained=options.weights, num_classes=train.num_classes)

    # The maps are the teacher's; they are brought to the student's map size and crop.
    maps = crayon.Explainer(teacher).explain(train)
    answers = crayon.AnnotationSet.load(options.answers)
    corrector = crayon.AttentionCorrector(student, epochs=options.epochs, lr=1e-3)
    corrected = corrector.fit(train, maps, answers)
    print(
        f"maps of {maps.size}, the student's are {student.map_size}", crayon.evaluate(corrected.model, test), sep="\n"
    )
    corrected.save(options.output)


if __name__ == "__main__":
    main()
