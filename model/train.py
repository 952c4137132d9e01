"""Train a picture classifier and write what serves it.

    python model/train.py --train pictures --archive build/model.tar.gz
    python model/train.py --train pictures --weights none --backbone resnet18 --image-size 96 --epochs 12

The same file runs here, on the EC2 box and as a SageMaker script-mode job, whose SM_* variables are its defaults. One
line an epoch goes to stdout; the last line repeats the epoch whose weights were kept.
"""

import json
import os
import time
from dataclasses import asdict
from pathlib import Path

from classifier import plots
from classifier.archive import complete_model_folder, pack, write_atomically
from classifier.command import Parser, run
from classifier.export import write_model
from classifier.fit import loss_and_accuracy, predict
from classifier.metrics import confusion_matrix, per_class
from classifier.mistake import Mistake
from classifier.task import add_choice_flags, add_recipe_flags, add_task_flags, recipe_from, task_from


def parser() -> Parser:
    """All of train.py's flags."""
    parser = Parser(description=__doc__.splitlines()[0])
    add_task_flags(parser, os.environ)
    add_recipe_flags(parser)
    add_choice_flags(parser)
    parser.add_argument("--config", type=Path, metavar="FILE", help="choices as hpo.py writes them; flags win")
    group = parser.add_argument_group("results")
    folder = {"type": Path, "metavar": "DIR"}
    default = os.environ.get("SM_MODEL_DIR", "build/model")
    group.add_argument("--model-dir", **folder, default=default, help="(SM_MODEL_DIR, else build/model)")
    default = os.environ.get("SM_OUTPUT_DATA_DIR", "build/output")
    help_text = "metrics.json and plots (SM_OUTPUT_DATA_DIR, else build/output)"
    group.add_argument("--output-data-dir", **folder, default=default, help=help_text)
    group.add_argument("--archive", type=Path, metavar="FILE", help="model.tar.gz, with manifest.json beside it")
    return parser


def main() -> None:
    started = time.monotonic()
    flags = parser()
    options = flags.parse()
    if options.config:
        flags.set_defaults(**read_choices(options.config))
        options = flags.parse()
    # Now and not after the training: a place that cannot be written to should cost no time.
    for folder in (options.model_dir, options.output_data_dir, *([options.archive.parent] if options.archive else [])):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Mistake(f"cannot make the folder {folder}: {error.strerror}") from error

    task = task_from(options)
    splits = task.splits
    print(
        f"{len(task.labels)} classes; {len(splits.train)} pictures to train on, {len(splits.validation)} to validate, "
        f"{len(splits.test)} to test; {task.backbone}, {'head only' if task.freeze else 'all layers'}",
        flush=True,
    )
    recipe = recipe_from(options, task, options.learning_rate, options.batch_size)
    network, fit = task.train(options.hidden, recipe, lambda epoch: print(epoch.line(), flush=True))
    logits = predict(network, task.samples(splits.test))
    test_loss, test_accuracy = loss_and_accuracy(logits, splits.test.targets)

    figures = {
        "validation_loss": fit.best.validation_loss,
        "validation_accuracy": fit.best.validation_accuracy,
        "test_loss": test_loss,
        "test_accuracy": test_accuracy,
        "epochs": len(fit.history),
        "best_epoch": fit.best.epoch,
    }
    write_model(network, task, options.hidden, options.model_dir)
    # Without the run's time, so that training again with the same seed gives the same archive.
    complete_model_folder(options.model_dir, figures)
    if options.archive:
        pack(options.model_dir, options.archive)

    matrix = confusion_matrix(splits.test.targets, logits.argmax(dim=1).tolist(), len(task.labels))
    report = {
        **figures,
        "seconds": round(time.monotonic() - started, 3),
        "history": [asdict(epoch) for epoch in fit.history],
        "per_class": per_class(matrix, task.labels),
        "confusion_matrix": {"labels": task.labels, "rows_true_columns_predicted": matrix.tolist()},
        "pictures": {"train": len(splits.train), "validation": len(splits.validation), "test": len(splits.test)},
        "recipe": asdict(recipe),
    }
    plots.training_curve(fit.history, fit.best, options.output_data_dir / "training-curve.png")
    plots.confusion_matrix(matrix, task.labels, options.output_data_dir / "confusion-matrix.png")
    write_atomically(options.output_data_dir / "metrics.json", (json.dumps(report, indent=1) + "\n").encode())
    print(f"test_loss={test_loss:.6f} test_accuracy={test_accuracy:.6f} seconds={report['seconds']:.1f}")
    # Last, because Automatic Model Tuning takes the last value it sees for the job's: it must be the saved model's.
    print(fit.best.line(), flush=True)


def read_choices(path: Path) -> dict:
    """The learning_rate, batch_size and hidden of a file that hpo.py wrote; raises Mistake."""
    try:
        choices = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Mistake(f"--config {path}: no readable JSON file: {error}") from error
    known = {"learning_rate": (float, int), "batch_size": int, "hidden": int}
    for name, value in choices.items() if isinstance(choices, dict) else [("it", choices)]:
        if name not in known or not isinstance(value, known[name]) or isinstance(value, bool) or value < 0:
            raise Mistake(f"--config {path}: {name} = {value!r} is none of the choices {', '.join(known)}")
    return choices


if __name__ == "__main__":
    run(main)
